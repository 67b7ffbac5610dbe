"""Read the files inside a Qt resource archive (``.rcc``), as GCompris ships its pictures."""

import struct
import zlib
from pathlib import Path

_FOLDER, _COMPRESSED, _ZSTD = 2, 1, 4


def read_rcc(path: Path) -> dict[str, bytes]:
    """Return every file in the archive: path inside it -> content.

    Files compressed with Zstandard are left out (pictures never are).

    Raises:
        ValueError: If it is no resource archive.
    """
    data = path.read_bytes()
    if data[:4] != b"qres":
        raise ValueError(f"{path}: not a Qt resource archive")
    version, tree, contents, names = struct.unpack(">4i", data[4:20])
    entry_size = 14 if version < 2 else 22
    files: dict[str, bytes] = {}

    def walk(number: int, parent: str) -> None:
        entry = tree + number * entry_size
        name_offset, flags = struct.unpack(">IH", data[entry : entry + 6])
        name = parent
        if number:
            start = names + name_offset
            length = struct.unpack(">H", data[start : start + 2])[0]
            own = data[start + 6 : start + 6 + 2 * length].decode("utf-16-be")
            name = f"{parent}/{own}" if parent else own
        if flags & _FOLDER:
            count, first = struct.unpack(">II", data[entry + 6 : entry + 14])
            for child in range(first, first + count):
                walk(child, name)
        elif not flags & _ZSTD:
            (offset,) = struct.unpack(">I", data[entry + 10 : entry + 14])
            start = contents + offset
            (length,) = struct.unpack(">I", data[start : start + 4])
            content = data[start + 4 : start + 4 + length]
            files[name] = zlib.decompress(content[4:]) if flags & _COMPRESSED else content

    walk(0, "")
    return files
