"""Open shards wherever they are: local files, web servers, object stores. Nothing else.

WebDataset's own opener runs ``pipe:`` URLs in a shell and rewrites URLs from an environment
variable. Shard lists come from configs that people share, so the allowed schemes are listed here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import fsspec

from sdm_lightning.errors import InputError, one_line
from sdm_lightning.files import atomic_file

OBJECT_STORES = ("s3", "gs", "gcs", "az", "abfs", "hf", "hdfs")
ALLOWED_SCHEMES = ("", "file", "http", "https", *OBJECT_STORES)

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]+):")
_TIMEOUT_SECONDS = 60.0
_ATTEMPTS = 4


class Unavailable(InputError):
    """A server does not give a file; it has been asked as often as makes sense."""


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, ``""`` for a path; a Windows drive letter is no scheme."""
    match = _SCHEME.match(url)
    return match.group(1).lower() if match else ""


def require_allowed_scheme(url: str) -> None:
    """Refuse everything but files, web servers and object stores.

    Raises:
        InputError: If the scheme is another one, such as ``pipe:``; nothing has been opened.
    """
    scheme = scheme_of(url)
    if scheme not in ALLOWED_SCHEMES or "::" in url:
        allowed = ", ".join(name for name in ALLOWED_SCHEMES if name)
        raise InputError(
            f"{url}: '{scheme}:' addresses are refused; give a local path or one of {allowed}"
        )
    if scheme:
        try:
            urlsplit(url)
        except ValueError as error:
            raise InputError(f"{url}: not an address ({error})") from error


def local_path(url: str) -> str | None:
    """Return the path of a local file, or None for anything that is fetched."""
    scheme = scheme_of(url)
    if scheme == "":
        return url
    return unquote(urlsplit(url).path) if scheme == "file" else None


def path_of(url: str) -> str:
    """Return the path part of an address, without a query; a local path is returned as it is."""
    return url if scheme_of(url) == "" else urlsplit(url).path


def join_url(url: str, name: str, *, sibling: bool = False) -> str:
    """Name a file inside a folder, or beside another file, keeping a query such as a signature."""
    if scheme_of(url) == "":
        return os.path.join(os.path.dirname(url) if sibling else url, name)
    parts = urlsplit(url)
    folder = parts.path.rsplit("/", 1)[0] if sibling else parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=f"{folder}/{name}"))


def _open_http(url: str) -> IO[bytes]:
    for attempt in range(_ATTEMPTS):
        try:
            response: IO[bytes] = urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS)
            return response
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise FileNotFoundError(errno.ENOENT, "not found on the server", url) from error
            if error.code < 500 and error.code != 429:
                raise Unavailable(
                    f"{url}: the server replies {error.code} {error.reason}"
                ) from error
            reason: object = f"{error.code} {error.reason}"
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
        if attempt + 1 < _ATTEMPTS:
            time.sleep(2.0**attempt)
    raise Unavailable(f"{url}: cannot be reached ({reason}); tried {_ATTEMPTS} times")


@contextmanager
def _store_faults(url: str) -> Iterator[None]:
    """Turn whatever the package for an object store raises into ``OSError``."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"{url}: {scheme_of(url)}:// needs a package that is not installed ({error})"
        ) from error
    except OSError:
        raise
    except Exception as error:
        raise OSError(one_line(error)) from error


class _Stored:
    """An object in a store, open for reading."""

    def __init__(self, url: str) -> None:
        self._url = url
        with _store_faults(url):
            self._file = fsspec.open(url, "rb").open()

    def read(self, size: int = -1) -> bytes:
        with _store_faults(self._url):
            block: bytes = self._file.read(size)
            return block

    def __enter__(self) -> _Stored:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def open_url(url: str) -> IO[bytes]:
    """Open a local file, a web address or an object for reading from the start.

    Raises:
        InputError: If the scheme is refused, the server does not reply, or the package for the
            object store is not installed.
        FileNotFoundError: If there is nothing there.
        OSError: If it cannot be read, whatever exception an object store's package has for that.
    """
    require_allowed_scheme(url)
    path = local_path(url)
    if path is not None:
        return open(path, "rb")
    if scheme_of(url) in ("http", "https"):
        return _open_http(url)
    stored: Any = _Stored(url)
    stream: IO[bytes] = stored
    return stream


def cached_copy(url: str, cache_dir: str, *, size: int, sha256: str) -> str:
    """Keep a remote file on the local disk and return its path there.

    The name in the cache is a hash of the whole URL and of the expected content: two shards with
    one base name do not meet, and a shard that was packed anew is fetched anew. Several processes
    may ask at once; each writes a file of its own and the last one stays.

    Args:
        url: Remote address.
        cache_dir: Local folder, made if it is missing; nothing in it is ever deleted.
        size: Expected bytes.
        sha256: Expected checksum.

    Raises:
        InputError: If the content differs from the expected, or the disk is full.
        FileNotFoundError: If there is nothing at the address.
    """
    token = hashlib.sha256(f"{url}\n{sha256}".encode()).hexdigest()[:32]
    target = Path(cache_dir) / f"{token}.tar"
    if target.is_file() and target.stat().st_size == size:
        return str(target)
    digest = hashlib.sha256()
    try:
        with atomic_file(target) as file, open_url(url) as stream:
            # A byte more than there should be is enough to see that it is another file; a server
            # that keeps sending would fill the disk.
            while block := stream.read(min(1 << 20, size + 1 - file.tell())):
                digest.update(block)
                file.write(block)
            if digest.hexdigest() != sha256:
                raise InputError(
                    f"{url}: the {file.tell()} bytes fetched do not match the index "
                    f"({size} bytes, sha256 {sha256[:12]}...); upload the shard again"
                )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"{cache_dir}: no space left for {url} ({size} bytes); free some or set "
                "data.cache_dir to another disk"
            ) from error
        raise
    return str(target)
