"""The index of a set of shards: what each of them must hold, so that no loss goes unnoticed.

A truncated tar reads without any error for about 40 % of the places where it can be cut, and a
resumed run can only skip what it can count. So ``index.json`` beside the shards, or elsewhere with
their address as its ``base``, states for each the number of samples, the bytes and the SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import braceexpand

from sdm_lightning.data.shards.remote import (
    join_url,
    local_path,
    open_url,
    path_of,
    require_allowed_scheme,
)
from sdm_lightning.errors import InputError, parse_json

INDEX_NAME = "index.json"
INDEX_FORMAT = "sdm_lightning.shards"
INDEX_VERSION = 1

_MAX_INDEX_BYTES = 64 * 1024 * 1024  # half a million shards

_MOST = 1 << 53  # JSON numbers are exact up to here

_PLAIN_NAME = re.compile(r"(?!\.{1,2}$)[^/\\:\x00-\x1f\x7f\ud800-\udfff]{1,255}")

_COMPRESSED_TAR = re.compile(r"\.(tgz|tar\.(gz|bz2|xz|zst))$")


@dataclass(frozen=True)
class Shard:
    """One tar file and its entry in the index.

    Attributes:
        url: Path or URL.
        samples: Number of images in it.
        bytes: Size of the tar file.
        sha256: Checksum of the tar file, in hexadecimal.
    """

    url: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardIndex:
    """The shards of a data set, in order.

    Attributes:
        shards: Every shard with its sample count, size and checksum.
        has_masks: The samples carry masks.
    """

    shards: tuple[Shard, ...]
    has_masks: bool = False

    @property
    def num_samples(self) -> int:
        """Number of images in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def digest(self) -> str:
        """SHA-256 over the checksums of all shards, in order: the identity of the data."""
        joined = "\n".join(f"{shard.sha256} {shard.samples}" for shard in self.shards)
        return hashlib.sha256(joined.encode()).hexdigest()

    @classmethod
    def load(cls, shards: str | Path | Sequence[str | Path]) -> ShardIndex:
        """Read the index of a set of shards, and check that no local shard is missing.

        Args:
            shards: A folder, local or remote, with an ``index.json``; the index itself; a shard
                or a brace range of shards (``places/{000000..000099}.tar``) with the index
                beside them; or a list of these.

        Raises:
            InputError: If a scheme is not allowed, there is no index, or a shard is not in its
                index, missing, or of the wrong size.
        """
        specs = [shards] if isinstance(shards, (str, Path)) else list(shards)
        urls = [url for spec in specs for url in expand_braces(os.fspath(spec))]
        if not urls:
            raise InputError("no shards given; name a folder with an index.json, or its shards")
        found: list[Shard] = []
        indexes: dict[str, tuple[dict[str, Shard], bool]] = {}
        masks = []
        for url in urls:
            require_allowed_scheme(url)
            single = is_tar_name(path_of(url))
            index_url = _index_url(url, single)
            if index_url not in indexes:
                indexes[index_url] = _read_index(index_url)
            table, has_masks = indexes[index_url]
            masks.append(has_masks)
            if not single:
                found.extend(table.values())
                continue
            name = posixpath.basename(path_of(url))
            if name not in table:
                raise InputError(
                    f"{url}: {index_url} does not list this shard; it lists {len(table)} shards, "
                    f"the first is {next(iter(table), 'none')}"
                )
            found.append(table[name])
        index = cls(tuple(found), has_masks=all(masks))
        index._check(" ".join(os.fspath(spec) for spec in specs))
        return index

    def _check(self, name: str) -> None:
        seen: set[str] = set()
        for shard in self.shards:
            if shard.url in seen:
                raise InputError(f"{shard.url}: named twice; name each shard once")
            seen.add(shard.url)
            path = local_path(shard.url)
            if path is not None:
                check_local_shard(shard, path)
        if self.num_samples == 0:
            raise InputError(f"{name}: the index lists no samples; pack the images again")


def check_local_shard(shard: Shard, path: str) -> None:
    """Check the size of a local shard against the index.

    Raises:
        InputError: If the shard is missing or has another size.
    """
    try:
        size = os.stat(path).st_size
    except (OSError, ValueError):
        raise InputError(
            f"{shard.url}: shard is missing; the index lists it with {shard.samples} samples: "
            "copy it here or pack the images again"
        ) from None
    if size != shard.bytes:
        fault = "truncated or still being copied" if size < shard.bytes else "not the packed one"
        raise InputError(
            f"{shard.url}: shard has {size} bytes, its index says {shard.bytes}; it is {fault}: "
            "copy it again or pack the images again"
        )


def is_tar_name(name: str) -> bool:
    """Return whether a file name is that of a shard.

    Raises:
        InputError: It is that of a compressed tar.
    """
    if _COMPRESSED_TAR.search(name):
        raise InputError(f"{name}: a compressed tar; unpack it and give the folder or the .tar")
    return name.endswith(".tar")


def expand_braces(spec: str) -> list[str]:
    """List the paths or addresses that a brace range stands for.

    Raises:
        InputError: If a scheme is not allowed, or braces are unbalanced.
    """
    require_allowed_scheme(spec)
    if "{" not in spec or os.path.exists(spec):
        return [spec]
    try:
        return list(braceexpand.braceexpand(spec))
    except ValueError:
        raise InputError(f"{spec}: unbalanced braces; write for instance {{000..099}}") from None


def _index_url(url: str, single: bool) -> str:
    if posixpath.basename(path_of(url)) == INDEX_NAME:
        return url
    return join_url(url, INDEX_NAME, sibling=single)


def _read_index(url: str) -> tuple[dict[str, Shard], bool]:
    try:
        with open_url(url) as stream:
            text = stream.read(_MAX_INDEX_BYTES + 1)
        if len(text) > _MAX_INDEX_BYTES:
            raise ValueError(f"more than {_MAX_INDEX_BYTES} bytes")
        content = parse_json(text)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{url}: no such index; `sdm shards IMAGES OUT` packs images and writes it, "
            "`sdm index SHARDS` writes one for WebDataset shards that exist already"
        ) from None
    except InputError:
        raise
    except (ValueError, HTTPException) as error:
        raise InputError(f"{url}: not a readable index ({error}); write it again") from error
    except OSError as error:
        raise InputError(f"{url}: the index cannot be read ({error})") from error
    return parse_index(content, url)


def parse_index(content: Any, url: str) -> tuple[dict[str, Shard], bool]:
    """Turn the content of an ``index.json`` into shards by name, and whether they have masks.

    Raises:
        InputError: If it is not an index, or of a version that this package cannot read.
    """
    if not isinstance(content, dict) or content.get("format") != INDEX_FORMAT:
        raise InputError(f"{url}: not an index of shards; `sdm index SHARDS` writes one")
    if content.get("version") != INDEX_VERSION:
        raise InputError(
            f"{url}: index version {content.get('version')}, this package reads {INDEX_VERSION}; "
            "use the package version that packed the shards, or pack them again"
        )
    table: dict[str, Shard] = {}
    try:
        base = content.get("base")
        if base is not None:
            require_allowed_scheme(base)
            if local_path(base) is not None:  # else a stranger's index could name any file here
                raise InputError(f"{url}: base {base!r} is no address; write the index again")
        for entry in content["shards"]:
            name = entry["name"]
            # A name is joined to a path and opened, so it must not lead anywhere else.
            if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):
                raise InputError(f"{url}: shard name {name!r} is not a plain file name")
            if name in table:
                raise InputError(f"{url}: lists {name} twice; write the index again")
            samples, size = int(entry["samples"]), int(entry["bytes"])
            if not (0 <= samples <= _MOST and 0 <= size <= _MOST):
                raise InputError(f"{url}: {name} has impossible counts; write the index again")
            link = join_url(url, name, sibling=True) if base is None else join_url(base, name)
            table[name] = Shard(link, samples, size, str(entry["sha256"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{url}: damaged index ({error!r}); write it again") from error
    return table, bool(content.get("masks", False))
