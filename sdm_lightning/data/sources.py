"""Images in a folder, a zip or a tar, read file by file.

A source lists its images once and can be sent to other processes, which read them at random.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from sdm_lightning.data.archives import READ_ERRORS, checked_tar
from sdm_lightning.data.decode import IMAGE_EXTENSIONS, MAX_ENCODED_BYTES
from sdm_lightning.errors import InputError

_OF_SYSTEM = {"__MACOSX", "lost+found", "System Volume Information", "$RECYCLE.BIN"}


@dataclass(frozen=True)
class Entry:
    """One image file of a source.

    Attributes:
        name: Path inside the source, with forward slashes.
        size: Encoded bytes.
        modified: Time, in seconds, of the last change to the file, or to its archive.
        offset: Where the bytes begin in a tar archive, else -1.
    """

    name: str
    size: int
    modified: float
    offset: int = -1


_ZIP_ERRORS = (
    zipfile.BadZipFile,
    RuntimeError,  # encrypted, or a method that this Python lacks
    EOFError,
    zlib.error,
    ValueError,
    LookupError,
    struct.error,
)
"""What ``zipfile`` raises for damaged archives, beside ``OSError``."""


def is_image_name(name: str) -> bool:
    """Return whether a path looks like an image, not like a file of an operating system."""
    path = PurePosixPath(name)
    return path.suffix[1:].lower() in IMAGE_EXTENSIONS and not _is_of_system(path)


def _is_of_system(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") and part not in (".", "..") for part in path.parts)
    return hidden or not _OF_SYSTEM.isdisjoint(path.parts)


def other_formats(names: Iterable[str]) -> str:
    """Say which files are no images, as in ``"2 files of other formats (.gif, .heic)"``.

    Hidden files are not counted: those of an operating system lie in every folder.

    Returns:
        Nothing where all are images; of more than eight formats, the first.
    """
    others = [
        path
        for path in map(PurePosixPath, names)
        if path.suffix[1:].lower() not in IMAGE_EXTENSIONS and not _is_of_system(path)
    ]
    if not others:
        return ""
    formats = sorted({path.suffix.lower() or path.name for path in others})
    shown = ", ".join([*formats[:8], *["..."] * (len(formats) > 8)])
    return f"{len(others)} file{'s' * (len(others) > 1)} of other formats ({shown})"


def _links(names: Sequence[str]) -> str:
    if not names:
        return ""
    shown = ", ".join([*names[:3], *["..."] * (len(names) > 3)])
    kind = "link to a folder" if len(names) == 1 else "links to folders"
    return f"{len(names)} {kind} ({shown})"


@dataclass
class ImageSource(ABC):
    """Where images come from; subclasses list and read them.

    Attributes:
        path: The folder or archive.
        left_out: What lies beside the images and is not read, in words, once listed.
        linked: Links to folders, which are not followed, once listed.
    """

    path: str
    left_out: str = field(default="", init=False, repr=False, compare=False)
    linked: tuple[str, ...] = field(default=(), init=False, repr=False, compare=False)

    def entries(self) -> list[Entry]:
        """List the images, sorted by name.

        Raises:
            InputError: If there are none, or the archive is damaged.
        """
        files = sorted(self._list(), key=lambda entry: entry.name)
        others = other_formats(entry.name for entry in files)
        self.left_out = " and ".join(filter(None, (others, _links(self.linked))))
        entries = [entry for entry in files if is_image_name(entry.name)]
        if not entries:
            kinds = ", ".join(IMAGE_EXTENSIONS)
            found = f"; found {self.left_out}" if self.left_out else ""
            raise InputError(
                f"{self.path}: no images in it; expected files ending in {kinds}{found}"
            )
        return entries

    @abstractmethod
    def _list(self) -> Iterable[Entry]:
        """List the files, images or not, in any order."""

    def read(self, entry: Entry) -> bytes:
        """Return the encoded bytes of one image.

        Raises:
            OSError: If it cannot be read, or is larger than any image that would be decoded.
        """
        if entry.size > MAX_ENCODED_BYTES:
            raise OSError(f"has {entry.size} bytes; at most {MAX_ENCODED_BYTES} are read")
        return self._read(entry)

    @abstractmethod
    def _read(self, entry: Entry) -> bytes:
        """Return the bytes of an image of sane size."""


@dataclass
class FolderSource(ImageSource):
    """A folder of images, searched recursively."""

    def _list(self) -> Iterable[Entry]:
        # Links to files count, links to folders do not: they may lead in circles.
        linked = []
        for folder, folders, files in os.walk(self.path, onerror=_refuse):
            folders[:] = [name for name in folders if not _is_of_system(PurePosixPath(name))]
            paths = [Path(folder) / name for name in sorted(folders)]
            linked += [p.relative_to(self.path).as_posix() for p in paths if p.is_symlink()]
            for file in files:
                full = Path(folder) / file
                if full.is_file():
                    name, state = full.relative_to(self.path).as_posix(), full.stat()
                    yield Entry(name, state.st_size, state.st_mtime)
        self.linked = tuple(linked)

    def _read(self, entry: Entry) -> bytes:
        return (Path(self.path) / entry.name).read_bytes()


def _refuse(error: OSError) -> None:
    raise InputError(
        f"{error.filename}: cannot be listed ({error.strerror}); make it readable or move it away"
    ) from error


@dataclass
class TarSource(ImageSource):
    """An uncompressed tar archive, read by offset, so that any process can start anywhere."""

    def _list(self) -> Iterable[Entry]:
        found = {}  # of two members with one name the last counts
        try:
            with open(self.path, "rb") as file, checked_tar(file, "r:") as archive:
                modified = os.fstat(file.fileno()).st_mtime
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # they pile up
                    if member.isreg() and not member.issparse():
                        name = PurePosixPath(member.name).as_posix()
                        found[name] = Entry(name, member.size, modified, member.offset_data)
        except READ_ERRORS as error:
            raise InputError(f"{self.path}: not a readable tar archive ({error})") from error
        return found.values()

    def _read(self, entry: Entry) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(entry.offset)
            return file.read(entry.size)


@dataclass
class ZipSource(ImageSource):
    """A zip archive; each process opens it once."""

    _archive: zipfile.ZipFile | None = field(default=None, repr=False, compare=False)
    _owner: int = field(default=-1, repr=False, compare=False)

    def _open(self) -> zipfile.ZipFile:
        # A file position shared with a parent process would mix up two readers.
        if self._archive is None or self._owner != os.getpid():
            try:
                self._archive, self._owner = zipfile.ZipFile(self.path), os.getpid()
            except _ZIP_ERRORS as error:
                raise InputError(f"{self.path}: not a readable zip archive ({error})") from error
        return self._archive

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_archive": None, "_owner": -1}

    def _list(self) -> Iterable[Entry]:
        infos = self._open().infolist()
        # Members that share their bytes make a small file unpack without end.
        if sum(info.compress_size for info in infos) > os.path.getsize(self.path):
            raise InputError(f"{self.path}: members of this zip overlap; unpack it another way")
        modified = os.stat(self.path).st_mtime
        found = {
            info.filename: Entry(info.filename, info.file_size, modified)
            for info in infos
            if info.filename and not info.is_dir()  # is_dir fails on an empty name
        }
        return found.values()

    def _read(self, entry: Entry) -> bytes:
        try:
            archive = self._open()
            kind = archive.getinfo(entry.name).compress_type
            # zipfile unpacks others in steps of any size: 4 kB of bzip2 can be gigabytes.
            if kind not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                name = zipfile.compressor_names.get(kind, kind)  # type: ignore[attr-defined]
                raise OSError(f"is compressed by {name}; images are stored or deflated")
            return archive.read(entry.name)
        except _ZIP_ERRORS as error:
            raise OSError(f"cannot be unpacked ({error})") from error


def open_source(path: str | Path) -> ImageSource:
    """Open a folder, a zip or an uncompressed tar of images.

    Raises:
        InputError: If the path does not exist or is something else.
    """
    text = os.fspath(path)
    if os.path.isdir(text):
        return FolderSource(text)
    if not os.path.exists(text):
        raise InputError(f"{text}: does not exist; give a folder, a tar or a zip of images")
    if zipfile.is_zipfile(text):
        return ZipSource(text)
    try:
        with open(text, "rb") as file, checked_tar(file, "r:"):
            return TarSource(text)
    except READ_ERRORS:
        raise InputError(
            f"{text}: neither a folder nor a readable tar or zip of images; "
            "unpack it and give the folder or the .tar"
        ) from None
