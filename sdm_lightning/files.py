"""Files that are written whole or not at all, lines likewise, and checksums of files."""

import hashlib
import io
import itertools
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from sdm_lightning.errors import InputError
from sdm_lightning.locking import lock

_EARLY = 8 << 20


class _EarlyFile(io.FileIO):
    """A file that asks for its bytes to be written to the disk while more of them are made.

    Otherwise the kernel keeps them until fsync, and the disk waits while a checkpoint's tensors are
    copied and summed up, then the process while the disk writes.
    """

    _asked = 0

    def write(self, content: Any) -> int | None:
        written = super().write(content)
        end = self.tell()
        if end - self._asked >= _EARLY and hasattr(os, "posix_fadvise"):
            # Linux starts writing pages that are not on the disk yet, and returns at once.
            with suppress(OSError):
                os.posix_fadvise(self.fileno(), self._asked, 0, os.POSIX_FADV_DONTNEED)
            self._asked = end
        return written


@contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces ``path`` when the block ends without an error.

    What is written goes to a hidden file beside ``path`` (its folder is created if missing), is
    flushed to the disk and then renamed: a crash leaves the old file or none, never half of one.

    Args:
        path: The file to write.

    Yields:
        The open temporary file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Cut off, since a name that is as long as a file system takes would be too long with these.
    temporary = target.with_name(f".{target.name[:48]}.{secrets.token_hex(4)}.partial")
    try:
        with io.BufferedWriter(_EarlyFile(temporary, "xb")) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        hidden = (None, temporary, str(temporary))
        if isinstance(error, OSError) and error.errno and error.filename in hidden:
            # A failing write does not know where it went, and the user not of a hidden file.
            error.filename = str(target)
        raise
    if sys.platform == "win32":
        return  # where no folder can be opened
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, survives a power failure
    finally:
        os.close(folder)


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write a file whole or not at all; see ``atomic_file``.

    Args:
        path: The file to write.
        content: Bytes, or text to encode as UTF-8; what it cannot encode, as in names of files that
            are not UTF-8, is escaped.
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    with atomic_file(path) as file:
        file.write(content)


def append_lines(path: str | Path, lines: bytes) -> None:
    """Append whole lines to a file, all of them or none; its folder is created if missing.

    Several processes may append at once. A line that a crash cut short is ended first, so that it
    does not corrupt the new ones.

    Args:
        path: The file.
        lines: With a newline at the end.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without O_BINARY, which other systems lack, Windows writes \r\n.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    descriptor = os.open(file, flags, 0o644)
    try:
        lock(descriptor, wait=True)
        size = os.fstat(descriptor).st_size
        if size:
            os.lseek(descriptor, size - 1, os.SEEK_SET)
            if os.read(descriptor, 1) != b"\n":
                lines = b"\n" + lines
        try:
            while lines:
                lines = lines[os.write(descriptor, lines) :]
            os.fsync(descriptor)
        except OSError as error:  # the disk is full: no half line either
            os.ftruncate(descriptor, size)
            error.filename = str(file)
            raise
    finally:
        os.close(descriptor)


def free_path(numbered: Callable[[int], Path]) -> Path:
    """Return the first of ``numbered(1)``, ``numbered(2)``, ... that does not exist."""
    return next(path for path in map(numbered, itertools.count(1)) if not path.exists())


def check_writable(path: str | Path) -> None:
    """Refuse a place where no file can be written, before hours of work and not after.

    Nothing is left behind. A folder that is missing counts as writable where it can be created.

    Raises:
        InputError: If it is a folder or cannot be written.
    """
    file = Path(path)
    try:
        if file.exists():
            file.open("ab").close()
        else:
            folder = next((parent for parent in file.parents if parent.exists()), file.parent)
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror}); name another") from error


def sha256_of_file(path: str | Path) -> str:
    """Compute the SHA-256 of a file.

    Args:
        path: The file, read in blocks.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
