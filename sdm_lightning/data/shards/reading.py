"""Read shards: every sample of a shard, checked against the index, or one clear error.

WebDataset groups the members by key. Its opener and its ``decode()`` are not used, because both can
run code that comes with the data, nor is its tar iteration, which believes every header.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import logging
import re
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from webdataset.tariterators import group_by_keys

from sdm_lightning.data.archives import READ_ERRORS, tar_files
from sdm_lightning.data.decode import IMAGE_EXTENSIONS
from sdm_lightning.data.shards.index import Shard, check_local_shard
from sdm_lightning.data.shards.remote import Unavailable, cached_copy, local_path, open_url
from sdm_lightning.data.sources import is_image_name
from sdm_lightning.errors import InputError

MASK_MEMBER = "mask.png"
"""A sample ``key.jpg`` carries its mask as ``key.mask.png``, white = known."""

_log = logging.getLogger(__name__)

# Only these members are ever read out of a shard; the rest, pickles included, is passed over.
_READ = re.compile(rf"^(.*/)?[^/.]+\.(mask\.png|{'|'.join(IMAGE_EXTENSIONS)})$", re.IGNORECASE)

_METADATA = re.compile(r"__[^/]*__(/|$)")  # WebDataset's own folders

_READ_ERRORS = (*READ_ERRORS, http.client.HTTPException)

_MAX_KEY_BYTES = 200
"""Longest part of a key, in bytes: with an extension it has to be a file name."""


@dataclass(frozen=True, slots=True)
class RawSample:
    """A sample as it lies in the shard, not yet decoded.

    Attributes:
        key: Its name.
        image: Encoded image.
        mask: Encoded mask, or None.
        origin: The shard or folder it came from, for messages.
    """

    key: str
    image: bytes
    mask: bytes | None
    origin: str


class _Meter:
    """Counts, and on demand hashes, the bytes that pass through a stream, and ends an endless one.

    Args:
        stream: Where the bytes come from.
        checksum: Hash them.
        most: Bytes that there should be; None does not know.
    """

    def __init__(self, stream: IO[bytes], checksum: bool, most: int | None = None) -> None:
        self._stream = stream
        self._most = most
        self.count = 0
        self.digest = hashlib.sha256() if checksum else None

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self.count += len(block)
        if self._most is not None and self.count > self._most:
            raise ValueError(f"more than {self._most} bytes")
        if self.digest is not None:
            self.digest.update(block)
        return block

    def drain(self) -> None:
        while self.read(1 << 20):
            pass


def _wanted(name: str) -> bool:
    return _READ.match(name) is not None and _METADATA.match(name) is None


def _check_key(key: str, url: str) -> None:
    """Refuse a key that could not be, or must not be, the path of a result file."""
    parts = re.split(r"[/\\]", key)
    if key.startswith(("/", "\\")) or ".." in parts:
        raise InputError(f"{url}: key {key!r} leads out of its folder; pack the images again")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in key):
        raise InputError(
            f"{url}: key {key!r} holds control characters or is not UTF-8; pack the images again"
        )
    if max(len(part.encode()) for part in parts) > _MAX_KEY_BYTES or len(parts) > 32:
        raise InputError(
            f"{url}: key {key[:40]!r}... is longer than {_MAX_KEY_BYTES} bytes or lies more than "
            "32 folders deep; pack the images again"
        )


def _members(stream: _Meter, url: str, passed_over: list[str] | None) -> Iterator[dict[str, Any]]:
    def wanted(name: str) -> bool:
        if _wanted(name):
            return True
        if passed_over is not None and is_image_name(name) and not _METADATA.match(name):
            passed_over.append(name)
        return False

    for name, content in tar_files(stream, wanted):
        yield {"fname": name, "data": content.read(), "__url__": url}


def _iterate_tar(
    stream: _Meter, url: str, passed_over: list[str] | None = None
) -> Iterator[RawSample]:
    seen: set[str] = set()
    for sample in group_by_keys(_members(stream, url, passed_over)):
        key = sample["__key__"]
        _check_key(key, url)
        if key in seen:
            raise InputError(
                f"{url}: sample {key} comes twice, with others between; pack the images again"
            )
        seen.add(key)
        names = [name for name in IMAGE_EXTENSIONS if name in sample]
        if len(names) != 1:
            have = ", ".join(names) or "none"
            raise InputError(f"{url}: sample {key} must have one image, it has {have}")
        yield RawSample(key, sample[names[0]], sample.get(MASK_MEMBER), url)


def scan_shard(url: str) -> tuple[list[tuple[str, bool]], list[str], int, str]:
    """Read a shard that has no index yet.

    Returns:
        The key of each sample and whether it has a mask, the names of images that are no sample's
        (``key.other.png``), the shard's size in bytes and its SHA-256.

    Raises:
        InputError: If it cannot be read to its end.
    """
    try:
        with open_url(url) as stream:
            meter = _Meter(stream, checksum=True)
            passed_over: list[str] = []
            samples = [(s.key, s.mask is not None) for s in _iterate_tar(meter, url, passed_over)]
            meter.drain()
    except InputError:
        raise
    except _READ_ERRORS as error:
        raise InputError(f"{url}: {_fault(error, 'copy or pack the shard again')}") from error
    assert meter.digest is not None
    return samples, passed_over, meter.count, meter.digest.hexdigest()


def _fault(error: BaseException, remedy: str) -> str:
    """Say why a shard is not read, and the remedy if it is missing or damaged."""
    # WebDataset appends to the arguments of its own errors; the first one is the message.
    text = getattr(error, "strerror", None) or next(iter(error.args), type(error).__name__)
    if isinstance(error, FileNotFoundError):
        return f"missing ({text}); {remedy}"
    if isinstance(error, OSError):
        return f"cannot be read ({text}); check the connection or disk, and that you may read it"
    return f"truncated or damaged tar ({text}); {remedy}"


@dataclass(frozen=True)
class ShardReader:
    """Reads whole shards and checks each against its index entry.

    A shard is returned only after all of it has been read and checked, so a damaged one never
    contributes a sample. Memory: one encoded shard.

    Attributes:
        cache_dir: Folder on a local disk where shards that are fetched are kept; None fetches
            them on every pass.
        verify_checksums: Check the SHA-256 at every read, not only sizes and counts. Cached shards
            are checked once, when they are fetched, in any case.
        attempts: How often a remote shard is read before its fault is reported.
    """

    cache_dir: str | None = None
    verify_checksums: bool = False
    attempts: int = 3

    def read(self, shard: Shard) -> list[RawSample]:
        """Return all samples of a shard, in order.

        Raises:
            InputError: If the shard is missing, truncated, damaged, or holds another number of
                bytes or samples than its index says.
        """
        path = local_path(shard.url)
        if path is not None:
            check_local_shard(shard, path)
            return self._read(shard, path)
        for attempt in itertools.count(1):
            try:
                return self._fetch(shard)
            except InputError as error:
                # A file that cannot be had stays so; a connection that broke may recover.
                final = isinstance(error, Unavailable) or isinstance(
                    error.__cause__, FileNotFoundError | PermissionError
                )
                if final or attempt >= self.attempts:
                    raise
                _log.warning("%s; reading it again", error)
            time.sleep(2.0**attempt)
        raise AssertionError("unreachable")

    def _fetch(self, shard: Shard) -> list[RawSample]:
        if self.cache_dir is None:
            return self._read(shard, shard.url)
        try:
            path = cached_copy(shard.url, self.cache_dir, size=shard.bytes, sha256=shard.sha256)
        except (OSError, http.client.HTTPException) as error:
            raise InputError(f"{shard.url}: shard cannot be fetched ({error})") from error
        return self._read(shard, path)

    def _read(self, shard: Shard, url: str) -> list[RawSample]:
        try:
            with open_url(url) as stream:
                meter = _Meter(stream, self.verify_checksums, most=shard.bytes)
                samples = list(_iterate_tar(meter, shard.url))
                meter.drain()
        except InputError:
            raise
        except _READ_ERRORS as error:
            remedy = (
                f"its index says {shard.bytes} bytes and {shard.samples} samples: copy it again or "
                "pack the images again"
            )
            raise InputError(f"{shard.url}: {_fault(error, remedy)}") from error
        faults = []
        if meter.count != shard.bytes:
            faults.append(f"{meter.count} bytes, its index says {shard.bytes}")
        if len(samples) != shard.samples:
            faults.append(f"{len(samples)} samples, its index says {shard.samples}")
        if meter.digest is not None and meter.digest.hexdigest() != shard.sha256:
            faults.append(
                f"sha256 {meter.digest.hexdigest()[:12]}..., its index says {shard.sha256[:12]}..."
            )
        if faults:
            raise InputError(
                f"{shard.url}: shard has {' and '.join(faults)}; "
                "copy it again or pack the images again"
            )
        return samples
