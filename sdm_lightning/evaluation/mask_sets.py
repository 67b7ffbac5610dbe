"""``sdm masks``: a frozen set of masks, one file per image, with a manifest of what they are."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm
from tqdm.contrib.concurrent import process_map

from sdm_lightning import __version__
from sdm_lightning.arrays import UInt8Array
from sdm_lightning.data.masks.convention import MaskConvention
from sdm_lightning.data.masks.presets import free_form_mask, get_preset, hole_ratio
from sdm_lightning.data.masks.sources import mask_seed
from sdm_lightning.data.named_images import NamedImages
from sdm_lightning.data.naming import key_for_path
from sdm_lightning.data.samples import FileSource, open_samples
from sdm_lightning.data.shards.indexing import refuse_repeated
from sdm_lightning.data.shards.reading import ShardReader
from sdm_lightning.errors import InputError, parse_json
from sdm_lightning.files import write_atomically
from sdm_lightning.workers import default_workers

MANIFEST_NAME = "manifest.json"
FORMAT = "sdm_lightning.masks"
DESCRIBED = ("digest", "preset", "size", "seed", "generator", "mean_hole_ratio")
"""What a manifest says of a whole set, for the record of an evaluation."""


@dataclass(frozen=True)
class MaskFile:
    """One mask of a set: file name, SHA-256 of the file, share of hole pixels."""

    file: str
    sha256: str
    hole_ratio: float


def write_mask_set(
    output: str,
    images: str | None = None,
    *,
    count: int | None = None,
    preset: str = "mat512_large",
    size: int = 512,
    seed: int = 0,
    files: str | None = None,
    mask_convention: MaskConvention = "known-white",
    overwrite: bool = False,
    num_workers: int | None = None,
) -> None:
    """Write a frozen set of masks: PNG files, 255 = known, and a manifest.

    Each mask is drawn from a seed made of its image's name, so it does not depend on what else is
    in the set; they are the masks that `sdm test` draws for the same preset and mask seed. Masks
    that others have published, numbered and without images' names, are taken with --files.

    Args:
        output: Folder to create.
        images: Images to draw masks for, one of the same name each: a folder, zip, tar or shards.
            Without it, masks are numbered.
        count: Number of masks without images: 00000000.png, 00000001.png, ...
        preset: Mask preset, such as mat512_small (list: docs/training.md).
        size: Side in pixels.
        seed: Seed of the masks; a different seed gives a different set.
        files: Mask files to take instead of drawing, a folder, zip or tar. They and the images are
            paired in the order of their names, as MAT pairs its masks. Both must have the same
            number of files. --preset, --size and --seed are then ignored.
        mask_convention: What white means in those files: known-white or hole-white.
        overwrite: Replace an existing mask set.
        num_workers: Drawing processes; default: one per core, up to 8.

    Raises:
        InputError: If the folder exists, the preset is unknown, there are no images, or another
            number of files than of images.
    """
    get_preset(preset)
    if files is not None and images is None:
        raise InputError("--files needs --images: masks are paired with images")
    if (images is None) == (count is None):
        raise InputError("give either --images or --count")
    if count is not None and count < 1:
        raise InputError(f"--count must be at least 1, got {count}")
    if size < 2:
        raise InputError(f"--size must be at least 2, got {size}")
    target = Path(output)
    if target.exists():
        if not overwrite:
            raise InputError(f"{target}: exists; choose another folder, or set --overwrite true")
        if not (target / MANIFEST_NAME).is_file():
            raise InputError(f"{target}: not a mask set, so it is not replaced; remove it yourself")
    names = sample_keys(images) if images is not None else [f"{i:08d}" for i in range(count or 0)]
    # One file for two keys on a system that takes upper and lower case for one.
    refuse_repeated((_file_name(name).casefold() for name in names), images or output)
    make: Callable[[str], UInt8Array]
    if files is None:
        make = partial(_drawn, preset=preset, size=size, seed=seed)
        generator = f"sdm-lightning {__version__}"
        facts = {"preset": preset, "size": size, "seed": seed, "generator": generator}
        origin = f"{preset}, {size}x{size}, seed {seed}"
    else:
        make = _in_order(names, files, mask_convention)
        facts = {"preset": None, "size": None, "seed": None, "generator": files}
        origin = files
    target.parent.mkdir(parents=True, exist_ok=True)
    # Everything is written beside the target and put in place at once: no half-written set.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        folder = Path(scratch) / "masks"
        folder.mkdir()
        write = partial(_write_mask, folder=folder, make=make)
        workers = default_workers() if num_workers is None else num_workers
        if workers < 2 or len(names) < 500 or files is not None:
            written = [write(name) for name in tqdm(names, unit="mask", desc="masks")]
        else:
            written = process_map(
                write, names, max_workers=workers, chunksize=64, unit="mask", desc="masks"
            )
        manifest = {
            "format": FORMAT,
            "version": 1,
            "convention": "known-white",
            **facts,
            "images": images,
            "count": len(written),
            "mean_hole_ratio": float(np.mean([file.hole_ratio for file in written])),
            "digest": set_digest(written),
            "files": [vars(file) for file in written],
        }
        write_atomically(folder / MANIFEST_NAME, json.dumps(manifest, indent=1))
        if target.exists():
            shutil.move(target, Path(scratch) / "old")
        os.replace(folder, target)
    ratios = np.array([file.hole_ratio for file in written])
    print(
        f"{len(written)} masks of {origin} in {target}\n"
        f"hole ratio: mean {ratios.mean():.3f}, deviation {ratios.std():.3f}, "
        f"from {ratios.min():.3f} to {ratios.max():.3f}\n"
        f"digest {manifest['digest']}"
    )


def _file_name(key: str) -> str:
    """Return the name of a key's mask; keys of other programs' shards may hold folders."""
    return f"{key_for_path(f'{key}.png')}.png"


def _drawn(name: str, preset: str, size: int, seed: int) -> UInt8Array:
    return free_form_mask(preset, size, mask_seed(seed, name))


def _in_order(
    names: list[str], path: str, convention: MaskConvention
) -> Callable[[str], UInt8Array]:
    """Pair names with mask files in their order; return what reads the mask of a name."""
    masks = NamedImages(path)
    if len(masks.entries) != len(names):
        raise InputError(
            f"{path}: {len(masks.entries)} masks for {len(names)} images; files that are paired in "
            "the order of their names must be equal in number"
        )
    of = dict(zip(names, masks.entries, strict=True))
    return lambda name: masks.mask(of[name], convention)


def _write_mask(name: str, folder: Path, make: Callable[[str], UInt8Array]) -> MaskFile:
    mask = make(name)
    done, data = cv2.imencode(".png", mask * 255)
    assert done
    content = data.tobytes()
    file = _file_name(name)
    (folder / file).write_bytes(content)
    return MaskFile(file, hashlib.sha256(content).hexdigest(), round(hole_ratio(mask), 6))


def sample_keys(images: str) -> list[str]:
    """List the keys of a folder, zip or tar of images, by path, or of shards, sorted.

    Raises:
        InputError: If there are none.
    """
    source = open_samples(images, ShardReader())
    if isinstance(source, FileSource):
        return [source.keys[entry.name] for entry in source.entries]
    found = [raw.key for raw in source.read(0, len(source))]
    refuse_repeated(found, images)
    return sorted(found)


def set_digest(files: Iterable[MaskFile]) -> str:
    """Compute a SHA-256 over names and hashes of the files, in the order of their names."""
    lines = [f"{file.sha256}  {file.file}\n" for file in sorted(files, key=lambda f: f.file)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def verified_mask_set(masks: str, convention: MaskConvention | None) -> dict[str, Any] | None:
    """Check masks that are a frozen set, and describe the set; None for other masks.

    Args:
        masks: The folder.
        convention: What white is said to mean in them; None takes the set's word.

    Raises:
        InputError: If a file has changed, or the given convention is not the set's.
    """
    manifest = check_mask_set(masks)
    if manifest is None:
        return None
    if convention not in (None, manifest["convention"]):
        raise InputError(
            f"{masks}/{MANIFEST_NAME}: says {manifest['convention']}, mask_convention says "
            f"{convention}; leave mask_convention out"
        )
    return {name: manifest[name] for name in DESCRIBED}


def check_mask_set(folder: str | Path) -> dict[str, Any] | None:
    """Check every file of a mask set against its manifest.

    Returns:
        The manifest; None for a folder without one.

    Raises:
        InputError: If the manifest is damaged or not one of masks, or a file is missing, changed or
            new.
    """
    root = Path(folder)
    manifest_file = root / MANIFEST_NAME
    if not manifest_file.is_file():
        return None
    again = "write the mask set again"
    try:
        manifest = parse_json(manifest_file.read_bytes())
    except ValueError as error:
        raise InputError(f"{manifest_file}: damaged ({error}); {again}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{manifest_file}: not a manifest of masks; `sdm masks` writes one")
    if missing := {"convention", "files", *DESCRIBED} - manifest.keys():
        raise InputError(f"{manifest_file}: damaged (no {min(missing)}); {again}")
    if manifest["convention"] != "known-white":
        said = manifest["convention"]
        raise InputError(
            f"{manifest_file}: damaged (convention {said!r}, not 'known-white'); {again}"
        )
    try:
        files = [MaskFile(**entry) for entry in manifest["files"]]
        names = [Path(file.file).name for file in files]
        if names != [file.file for file in files]:
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(f"{manifest_file}: damaged; {again}") from None
    for file in files:
        path = root / file.file
        if not path.is_file():
            raise InputError(f"{path}: missing, but the manifest lists it; {again}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
            raise InputError(f"{path}: changed since the manifest was written")
    extra = {path.name for path in root.glob("*.png")} - {file.file for file in files}
    if extra:
        raise InputError(f"{root}/{min(extra)}: not in the manifest; remove it")
    if set_digest(files) != manifest["digest"]:
        raise InputError(f"{manifest_file}: its digest is not that of its files")
    return manifest
