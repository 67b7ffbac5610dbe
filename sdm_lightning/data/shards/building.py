"""Build shards, one by one or in parallel, so that an interrupted packing can be resumed."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from tqdm import tqdm
from webdataset.writer import TarWriter

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.data.decode import BadImageError, decode_mask, probe_image
from sdm_lightning.data.masks.convention import MOSTLY_HOLE, MaskConvention
from sdm_lightning.data.masks.presets import hole_ratio
from sdm_lightning.data.shards.reading import MASK_MEMBER
from sdm_lightning.data.sources import Entry, ImageSource
from sdm_lightning.files import sha256_of_file, write_atomically
from sdm_lightning.workers import usable_cores

WORK = ".work"
"""Folder with the bookkeeping of an unfinished packing, inside the unfinished output."""

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """A sample to pack: its key, image and mask."""

    key: str
    image: Entry
    mask: Entry | None


@dataclass(frozen=True)
class Task:
    """All that a process needs to build one shard."""

    number: int
    items: tuple[Item, ...]
    images: ImageSource
    masks: ImageSource | None
    mask_convention: MaskConvention
    folder: Path

    @property
    def tar(self) -> Path:
        """Where the shard lies until it gets its name."""
        return self.folder / f"{self.number:06d}.tar"

    @property
    def record(self) -> Path:
        """The record that the shard is finished, with its checksum."""
        return self.folder / WORK / f"{self.number:06d}.json"


@dataclass(frozen=True)
class Built:
    """The result of one task."""

    number: int
    samples: int
    bytes: int
    sha256: str
    skipped: tuple[tuple[str, str], ...]
    mostly_hole: int = 0
    other_size: int = 0


def _mask_png(known: UInt8Array) -> bytes:
    out = io.BytesIO()
    Image.fromarray(known * 255).save(out, "PNG", optimize=False)
    return out.getvalue()


def _finished(task: Task) -> Built | None:
    """Return what an interrupted packing already built, if it is still whole."""
    try:
        content = json.loads(task.record.read_text(encoding="utf-8"))
        built = Built(**{**content, "skipped": tuple(tuple(s) for s in content["skipped"])})
        if built.samples == 0:
            return built
        whole = task.tar.stat().st_size == built.bytes and sha256_of_file(task.tar) == built.sha256
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return built if whole else None


def build_shard(task: Task) -> Built:
    """Write one shard, or keep it where an interrupted packing finished it already.

    An image that cannot be read or decoded is left out and named in the result.
    """
    done = _finished(task)
    if done is not None:
        return done
    partial = task.tar.with_suffix(".part")
    skipped, samples, mostly_hole, other_size = [], 0, 0, 0
    with open(partial, "wb") as out:
        # mtime 0 and no user name: the same images give the same bytes.
        with TarWriter(
            out, user="", group="", mode=0o644, encoder=False, mtime=0, format="PAX_FORMAT"
        ) as writer:
            for item in task.items:
                try:
                    data = task.images.read(item.image)
                    extension, shape = probe_image(data)
                    sample: dict[str, Any] = {"__key__": item.key, extension: data}
                    if item.mask is not None and task.masks is not None:
                        try:
                            content = task.masks.read(item.mask)
                            known = decode_mask(content, task.mask_convention)
                        except BadImageError as error:
                            raise BadImageError(f"mask {item.mask.name} {error}") from error
                        sample[MASK_MEMBER] = _mask_png(known)
                        mostly_hole += bool(hole_ratio(known) > MOSTLY_HOLE)
                        other_size += known.shape != shape
                except (BadImageError, OSError) as error:
                    skipped.append((item.image.name, str(error)))
                    continue
                writer.write(sample)
                samples += 1
        out.flush()
        os.fsync(out.fileno())
    size, sha256 = partial.stat().st_size, sha256_of_file(partial)
    if samples:
        os.replace(partial, task.tar)
    else:
        partial.unlink()
    built = Built(task.number, samples, size, sha256, tuple(skipped), mostly_hole, other_size)
    write_atomically(task.record, json.dumps(asdict(built)))
    return built


def _start_worker(parent: int) -> None:
    # Ctrl-C reaches every process of a terminal; the workers finish their shard, which then need
    # not be built again.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        # A killed parent leaves its workers waiting forever, holding the lock of the output.
        # On Windows the number of a parent stays when it has ended.
        process = multiprocessing.parent_process()
        while os.getppid() == parent and (process is None or process.is_alive()):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_all(
    function: Callable[[Any], T],
    tasks: Sequence[Any],
    sizes: Sequence[int],
    num_workers: int | None,
    title: str,
    unit: str = "image",
) -> list[T]:
    """Run the function on every task, in processes, under one progress bar; keep the order."""
    workers = min(usable_cores() if num_workers is None else num_workers, len(tasks))
    results: dict[int, T] = {}
    with tqdm(total=sum(sizes), unit=unit, desc=title, file=sys.stderr) as bar:
        if workers <= 1:
            for i, task in enumerate(tasks):
                results[i] = function(task)
                bar.update(sizes[i])
        else:
            # Forked workers start at once and need no __main__ guard in a user's script.
            method = "fork" if sys.platform == "linux" else "spawn"
            context = multiprocessing.get_context(method)
            with ProcessPoolExecutor(workers, context, _start_worker, (os.getpid(),)) as pool:
                futures: dict[Future[T], int] = {
                    pool.submit(function, task): i for i, task in enumerate(tasks)
                }
                try:
                    for future in as_completed(futures):
                        results[futures[future]] = future.result()
                        bar.update(sizes[futures[future]])
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
    return [results[i] for i in range(len(tasks))]
