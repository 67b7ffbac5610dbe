"""Tar archives from outside, read within stated limits.

``tarfile`` trusts what headers say: a sparse member of a few bytes reads as terabytes, a negative
size makes releases of Python without the fix of CVE-2025-8194 loop for ever, and a damaged header
in the middle ends an archive silently. Compressed tars are not read.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any

from sdm_lightning.data.decode import MAX_ENCODED_BYTES

MAX_EXTENDED_HEADER = 8192
"""Most bytes of a header with a long name or pax records; paths have 4096 bytes at most."""

READ_ERRORS = (
    tarfile.TarError,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    OSError,
)
"""What ``tarfile`` raises for damaged archives."""

_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class CheckedMember(tarfile.TarInfo):
    """A header that is refused where ``tarfile`` would read on by what it says."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> CheckedMember:
        """Parse a header of 512 bytes.

        Raises:
            tarfile.ReadError: It is damaged, sparse, or of an impossible size.
        """
        try:
            member = super().frombuf(buf, encoding, errors)
        except (tarfile.EmptyHeaderError, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
            raise
        except (tarfile.HeaderError, ValueError) as error:
            raise tarfile.ReadError(str(error)) from error
        if member.size < 0:
            raise tarfile.ReadError(f"a header states {member.size} bytes")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(f"sparse member {member.name}")
        if member.type in _EXTENDED and member.size > MAX_EXTENDED_HEADER:
            raise tarfile.ReadError(f"an extended header of {member.size} bytes")
        return member

    def _block(self, count: int) -> int:
        # A pax record may replace the size behind frombuf's back.
        if count < 0:
            raise tarfile.ReadError(f"a header states {count} bytes")
        return super()._block(count)  # type: ignore[misc, no-any-return]


def checked_tar(file: Any, mode: str) -> tarfile.TarFile:
    """Open a tar file object with ``mode`` ``"r:"`` (random access) or ``"r|"`` (forwards only).

    Raises:
        tarfile.TarError: It is no tar.
    """
    return tarfile.open(fileobj=file, mode=mode, tarinfo=CheckedMember)  # type: ignore[call-overload, no-any-return]


def tar_files(stream: Any, wanted: Callable[[str], bool]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and the content of the wanted regular files of a tar stream, in order.

    Args:
        stream: Gives the bytes of the tar from its start.
        wanted: Says by its name whether a file is read at all.

    Raises:
        tarfile.ReadError: The tar is damaged, or holds a sparse or an oversized wanted file.
    """
    with checked_tar(stream, "r|") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else every header stays in memory
            if not member.isreg() or not wanted(member.name):
                continue
            if member.issparse():
                raise tarfile.ReadError(f"sparse member {member.name}")
            if member.size > MAX_ENCODED_BYTES:
                raise tarfile.ReadError(
                    f"{member.name} has {member.size} bytes; at most {MAX_ENCODED_BYTES} are read"
                )
            content = archive.extractfile(member)
            assert content is not None
            yield member.name, content
