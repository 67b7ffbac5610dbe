"""Write an index: for shards just packed, or for shards that something else packed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdm_lightning.data.shards.building import run_all
from sdm_lightning.data.shards.index import (
    INDEX_FORMAT,
    INDEX_NAME,
    INDEX_VERSION,
    ShardIndex,
    expand_braces,
    is_tar_name,
)
from sdm_lightning.data.shards.reading import scan_shard
from sdm_lightning.data.shards.remote import join_url, local_path, path_of
from sdm_lightning.errors import InputError
from sdm_lightning.files import write_atomically


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


@dataclass(frozen=True)
class _Scanned:
    """What the index says of a shard, and what is only checked."""

    entry: dict[str, Any]
    keys: list[str]
    masked: bool
    passed_over: list[str]


def _scan(url: str) -> _Scanned:
    samples, passed_over, size, sha256 = scan_shard(url)
    if not samples:
        remedy = _not_read(passed_over) if passed_over else "remove it from the set"
        raise InputError(f"{url}: no sample with an image in it; {remedy}")
    name = Path(path_of(url)).name
    entry = {"name": name, "samples": len(samples), "bytes": size, "sha256": sha256}
    masked = all(has_mask for _, has_mask in samples)
    return _Scanned(entry, [key for key, _ in samples], masked, passed_over)


def _not_read(names: list[str]) -> str:
    return (
        f"{len(names)} images are not read, such as {names[0]}: a sample is KEY.jpg (png, ...), "
        "with KEY.mask.png for its mask and no other dot in KEY"
    )


def refuse_repeated(keys: Iterable[str], place: str) -> None:
    """Refuse a data set in which two samples have one key: results are named by it.

    Raises:
        InputError: If there are any.
    """
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise InputError(
                f"{place}: two samples have the key {key}; pack the images again, under names that "
                "are unique in the whole set"
            )
        seen.add(key)


def _tar_files(shards: str, output: str | None) -> tuple[Path, list[str], dict[str, str]]:
    """Return where the index goes, the shards, and what it says of their place."""
    urls = expand_braces(shards)
    path = local_path(shards)
    if path is not None and output is None and os.path.isdir(path):
        # macOS keeps attributes of x.tar in ._x.tar on foreign disks.
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        files = [os.path.join(path, name) for name in names]
        return Path(path), [file for file in files if is_tar_name(file)], {}
    bases = {join_url(url, "", sibling=True) for url in urls}
    tars = all(is_tar_name(path_of(url)) for url in urls)
    if path is None and output is not None and len(bases) == 1 and tars:
        return Path(output), urls, {"base": bases.pop()}
    if path is not None and output is not None:
        raise InputError(f"{shards}: local shards have their index beside them; leave out --output")
    if len(bases) > 1:
        raise InputError(f"{shards}: shards of several folders; index each by itself")
    raise InputError(
        f"{shards}: neither a local folder of tar files nor, with --output DIR, the address of "
        "some, such as s3://bucket/x-{000..099}.tar"
    )


def index_shards(
    shards: str,
    *,
    output: str | None = None,
    num_workers: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write the index for WebDataset shards that something else packed.

    Every shard is read to its end once. Each sample must have one image; a member
    ``key.mask.png`` is taken for its mask, white = known. The index is written beside the shards,
    or for those in a store that you cannot write to, into a folder that data.train then names
    instead.

    Args:
        shards: Folder with tar files, all of which belong to one data set; with --output, their
            address with a brace range, such as s3://bucket/x-{000..099}.tar.
        output: Local folder for the index of shards at an address.
        num_workers: Processes; default one per core, 0 reads in this process.
        overwrite: Replace an index that is there already.

    Raises:
        InputError: If there are no shards, an index exists, a shard cannot be read, or two
            samples have one key.
    """
    folder, urls, place = _tar_files(shards, output)
    if not urls:
        raise InputError(f"{shards}: no tar files in it")
    target = folder / INDEX_NAME
    if target.exists() and not overwrite:
        raise InputError(f"{target}: exists; set --overwrite true to write it again")
    results = run_all(_scan, urls, [1] * len(urls), num_workers, "index", unit="shard")
    refuse_repeated((key for result in results for key in result.keys), shards)
    passed_over = [name for result in results for name in result.passed_over]
    if passed_over:
        print(f"{shards}: {_not_read(passed_over)}")
    masks = all(result.masked for result in results)
    write_index(target, [result.entry for result in results], masks=masks, **place)
    index = ShardIndex.load(folder)
    plural = "s" * (len(index.shards) > 1)
    print(f"{target}: {index.num_samples} samples in {len(index.shards)} shard{plural}")
