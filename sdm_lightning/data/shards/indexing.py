"""Write an index: for shards just packed, or for shards that something else packed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdm_lightning.data.shards.building import run_all
from sdm_lightning.data.shards.index import (
    INDEX_FORMAT,
    INDEX_NAME,
    INDEX_VERSION,
    ShardIndex,
    is_tar_name,
)
from sdm_lightning.data.shards.reading import scan_shard
from sdm_lightning.data.shards.remote import local_path
from sdm_lightning.errors import InputError
from sdm_lightning.files import write_atomically

__all__ = ["index_shards", "write_index"]


def write_index(path: Path, shards: Sequence[dict[str, Any]], *, masks: bool, **more: Any) -> None:
    """Write an ``index.json``, whole or not at all."""
    content = {
        "format": INDEX_FORMAT,
        "version": INDEX_VERSION,
        "samples": sum(shard["samples"] for shard in shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "masks": masks,
        **more,
        "shards": list(shards),
    }
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def _scan(url: str) -> tuple[dict[str, Any], bool]:
    samples, size, sha256 = scan_shard(url)
    if not samples:
        raise InputError(f"{url}: no sample with an image in it; remove it from the set")
    entry = {"name": Path(url).name, "samples": len(samples), "bytes": size, "sha256": sha256}
    return entry, all(sample.mask is not None for sample in samples)


def index_shards(shards: str, *, num_workers: int | None = None, overwrite: bool = False) -> None:
    """Write the index for WebDataset shards that something else packed.

    Every shard is read to its end once. Each sample must have one image; a member
    ``key.mask.png`` is taken for its mask. The index is written beside the shards.

    Args:
        shards: Folder with tar files, all of which belong to one data set.
        num_workers: Processes; default one per core, 0 reads in this process.
        overwrite: Replace an index that is there already.

    Raises:
        InputError: If there are no shards, an index exists, or a shard cannot be read.
    """
    folder = Path(local_path(shards) or "")
    if not folder.is_dir():
        raise InputError(f"{shards}: not a local folder; give the folder that holds the tar files")
    paths = sorted(str(path) for path in folder.iterdir() if is_tar_name(path.name))
    if not paths:
        raise InputError(f"{shards}: no tar files in it")
    target = folder / INDEX_NAME
    if target.exists() and not overwrite:
        raise InputError(f"{target}: exists; set --overwrite true to write it again")
    results = run_all(_scan, paths, [1] * len(paths), num_workers, "index", unit="shard")
    entries = [entry for entry, _ in results]
    write_index(target, entries, masks=all(masked for _, masked in results))
    index = ShardIndex.load(folder)
    print(f"{target}: {index.num_samples} samples in {len(index.shards)} shards")
