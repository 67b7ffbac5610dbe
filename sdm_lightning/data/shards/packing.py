"""Pack images into WebDataset shards: the command ``sdm shards``.

The shards are built in a folder beside the output and the folder is renamed when the index is
written, so an output that exists is complete. The encoded images are kept byte for byte.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sdm_lightning.data.masks.convention import MaskConvention, opposite_convention
from sdm_lightning.data.naming import pair_masks, unique_keys
from sdm_lightning.data.shards.building import (
    WORK,
    Built,
    Item,
    Task,
    build_shard,
    run_all,
)
from sdm_lightning.data.shards.index import INDEX_NAME, parse_index
from sdm_lightning.data.shards.indexing import write_index
from sdm_lightning.data.sources import Entry, ImageSource, open_source
from sdm_lightning.errors import InputError, parse_json
from sdm_lightning.files import write_atomically
from sdm_lightning.locking import lock

SKIPPED_NAME = "skipped.txt"
_LOCK_ATTEMPTS = 8


def _split(items: Sequence[Item], shard_size: int, max_samples: int) -> Iterator[tuple[Item, ...]]:
    group: list[Item] = []
    size = 0
    for item in items:
        grown = item.image.size + (item.mask.size if item.mask else 0)
        if group and (len(group) >= max_samples or size + grown > shard_size):
            yield tuple(group)
            group, size = [], 0
        group.append(item)
        size += grown
    if group:
        yield tuple(group)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let only one process build a folder; the lock ends with the process.

    It lies beside the folder: Windows does not rename a folder with an open file.
    """
    path = folder.with_name(f"{folder.name}.lock")
    # Forked workers share the lock and outlive a killed parent by a moment.
    for _ in range(_LOCK_ATTEMPTS):
        file = path.open("a")
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            lock(file.fileno())
            # Not a file that the process before us has removed since we opened it.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()
        time.sleep(0.5)
    else:
        raise InputError(f"{folder}: another process is packing here; wait for it to finish")
    try:
        yield
    finally:
        if sys.platform == "win32":  # where no open file is removed
            file.close()
        with contextlib.suppress(OSError):  # another process has it open there
            path.unlink()
        file.close()


def _ours(output: Path) -> dict[str, Any] | None:
    """Return the index of an output that this command made, unchanged since, else None."""
    try:
        content = parse_json((output / INDEX_NAME).read_bytes())
        table, _ = parse_index(content, str(output / INDEX_NAME))
    except (OSError, ValueError):
        return None
    known = {*table, INDEX_NAME, SKIPPED_NAME, WORK}
    return content if {path.name for path in output.iterdir()} <= known else None


def _check_output(output: Path, settings: dict[str, Any], newest: float, overwrite: bool) -> bool:
    """Return whether the output is already as requested; refuse a folder of other files."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    content = _ours(output) if output.is_dir() else None
    if content is None:
        raise InputError(f"{output}: exists and holds other files; choose a folder that is new")
    if overwrite:
        return False
    if content.get("settings") == settings and newest <= (output / INDEX_NAME).stat().st_mtime:
        return True
    raise InputError(
        f"{output}: holds shards packed from other images or with other settings; "
        "choose another folder or set --overwrite true"
    )


def pack_shards(
    source: str,
    output: str,
    *,
    masks: str | None = None,
    mask_convention: MaskConvention = "known-white",
    shard_size: int = 256 * 1024 * 1024,
    max_samples: int = 1000,
    shuffle: bool = True,
    seed: int = 0,
    num_workers: int | None = None,
    overwrite: bool = False,
) -> None:
    """Pack a folder, tar or zip of images into WebDataset shards with an index.

    Every image is decoded once as a check; its bytes are kept as they are. What cannot be decoded
    is left out, listed in ``skipped.txt`` and counted; files of other formats, such as HEIC, are
    left out and counted. The same images and settings give shards with the same bytes. After an
    interruption, the same command continues where it stopped.

    Args:
        source: Folder (searched in depth), tar or zip with jpg, png, webp, bmp or tif images.
        output: Folder to create; it must be new, empty, or the result of this same command.
        masks: Folder, tar or zip with one mask per image, paired by file name.
        mask_convention: What white means in them: known-white or hole-white.
        shard_size: Maximum total size of a shard's images, in bytes.
        max_samples: Maximum number of images in a shard.
        shuffle: Spread the images over the shards at random, which training needs where the
            source is sorted by class; false keeps the order of the file names.
        seed: Seed of that shuffle.
        num_workers: Processes; default one per core, 0 packs in this process.
        overwrite: Replace shards that an earlier packing left in ``output``.

    Raises:
        InputError: If there is nothing to pack, an image lacks its mask, or the output holds
            something else.
    """
    if shard_size < 1 or max_samples < 1:
        raise InputError("shard_size and max_samples must be at least 1")
    out = Path(os.path.abspath(output))
    if out == Path(os.path.abspath(source)):
        raise InputError(f"{output}: is the source itself; choose another folder")
    partial = out.with_name(out.name + ".partial")
    images = open_source(source)  # report its faults before a folder is created
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = not partial.exists()
    (partial / WORK).mkdir(parents=True, exist_ok=True)
    try:
        with _locked(partial):
            _pack(
                images, out, partial,
                masks=None if masks is None else open_source(masks),
                mask_convention=mask_convention, shard_size=shard_size, max_samples=max_samples,
                order=seed if shuffle else None, num_workers=num_workers, overwrite=overwrite,
            )  # fmt: skip
    except KeyboardInterrupt:
        print(f"interrupted; the same command continues from {partial}", file=sys.stderr)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"{partial}: no space left on this disk; free some and run the same command again"
            ) from error
        raise
    finally:
        # Nothing was built yet if the input itself was refused: leave no trace of it.
        if fresh and not any(partial.glob("*.tar")):
            shutil.rmtree(partial, ignore_errors=True)


def _pack(
    images: ImageSource,
    out: Path,
    partial: Path,
    *,
    masks: ImageSource | None,
    mask_convention: MaskConvention,
    shard_size: int,
    max_samples: int,
    order: int | None,
    num_workers: int | None,
    overwrite: bool,
) -> None:
    entries = images.entries()
    keys = unique_keys(entry.name for entry in entries)
    listed: dict[str, Entry] = {}
    mask_of: dict[str, Entry] = {}
    if masks is not None:
        listed = {entry.name: entry for entry in masks.entries()}
        pairs = pair_masks([entry.name for entry in entries], list(listed), masks.path)
        mask_of = {image: listed[mask] for image, mask in pairs.items()}
    items = [Item(keys[entry.name], entry, mask_of.get(entry.name)) for entry in entries]
    listing = hashlib.sha256()
    for item in items:
        line = f"{item.key} {item.image.size} {item.mask.size if item.mask else -1}\n"
        listing.update(line.encode("utf-8", "surrogatepass"))
    settings: dict[str, Any] = {
        "shard_size": shard_size,
        "max_samples": max_samples,
        "shuffle_seed": order,
        "masks": masks is not None,
        "mask_convention": mask_convention,
        "listing": listing.hexdigest(),
    }
    newest = max(entry.modified for entry in (*entries, *listed.values()))
    if _check_output(out, settings, newest, overwrite):
        print(f"{out}: already packed from these images with these settings; nothing to do")
        return
    plan = partial / WORK / "plan.json"
    planned = {**settings, "newest": newest}
    if plan.exists() and json.loads(plan.read_text(encoding="utf-8")) != planned:
        raise InputError(
            f"{partial}: an unfinished packing of other images or with other settings; "
            "repeat that command or delete this folder"
        )
    write_atomically(plan, json.dumps(planned))
    if order is not None:
        random.Random(f"pack/{order}").shuffle(items)
    for path in partial.glob("*-*.tar"):  # interrupted while the final names were given
        os.replace(path, partial / f"{path.stem.rsplit('-', 1)[1]}.tar")
    tasks = [
        Task(number, group, images, masks, mask_convention, partial)
        for number, group in enumerate(_split(items, shard_size, max_samples))
    ]
    sizes = [len(task.items) for task in tasks]
    built = run_all(build_shard, tasks, sizes, num_workers, "pack")
    skipped = sorted(entry for shard in built for entry in shard.skipped)
    _report_skipped(skipped, len(entries), images.path)
    if images.left_out:
        print(f"{images.path}: left out {images.left_out}")
    suspects = sum(shard.mostly_hole for shard in built)
    if suspects:
        print(
            f"{suspects} of {len(mask_of)} masks are nearly all hole (read as {mask_convention}). "
            "If your masks mean the opposite, pack again with --mask_convention "
            f"{opposite_convention(mask_convention)}"
        )
    other_size = sum(shard.other_size for shard in built)
    if other_size:
        print(
            f"{other_size} of {len(mask_of)} masks are of another size than their image; training "
            "refuses them, and testing those that are not of the size of its crop"
        )
    whole = [shard for shard in built if shard.samples]
    if not whole:
        raise InputError(f"{images.path}: none of its {len(entries)} images can be decoded")
    _publish(whole, skipped, settings, out, partial)
    samples, size = sum(b.samples for b in whole), sum(b.bytes for b in whole)
    plural = "s" * (len(whole) > 1)
    print(f"{out}: {samples} images in {len(whole)} shard{plural}, {size / 1e6:.1f} MB")


def _report_skipped(skipped: Sequence[tuple[str, str]], total: int, path: str) -> None:
    for name, reason in skipped[:10]:
        print(f"skipped {name}: {reason}")
    if skipped:
        print(f"{path}: skipped {len(skipped)} of {total} images; {SKIPPED_NAME} lists them")


def _publish(
    built: Sequence[Built],
    skipped: Sequence[tuple[str, str]],
    settings: dict[str, Any],
    out: Path,
    partial: Path,
) -> None:
    """Give the shards their names, write the index, and move the folder to its place."""
    # A hash of the content in every name: caches go by base name, and two data sets that both
    # have a 000000.tar would serve each other's images. One hash for all keeps brace ranges.
    digest = hashlib.sha256("".join(b.sha256 for b in built).encode()).hexdigest()[:8]
    shards = []
    for shard in built:
        name = f"shard-{digest}-{shard.number:06d}.tar"
        os.replace(partial / f"{shard.number:06d}.tar", partial / name)
        shards.append(
            {"name": name, "samples": shard.samples, "bytes": shard.bytes, "sha256": shard.sha256}
        )
    if skipped:
        lines = "".join(f"{name}\t{reason}\n" for name, reason in skipped)
        write_atomically(partial / SKIPPED_NAME, lines)
    write_index(
        partial / INDEX_NAME, shards, masks=settings["masks"], skipped=len(skipped),
        settings=settings,
    )  # fmt: skip
    if out.exists():
        old = out.with_name(out.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(out, old)
        os.replace(partial, out)
        shutil.rmtree(old)
    else:
        os.replace(partial, out)
    shutil.rmtree(out / WORK, ignore_errors=True)
