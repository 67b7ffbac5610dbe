"""What an image file says of its own structure, read before a decoder works through it.

A few bytes can ask a decoder for minutes of work or gigabytes of memory without a large picture:
a JPEG by many scans, a TIFF by tags that share their values, a TIFF by strips that it does not
hold. The numbers here are compared with limits in ``sdm_lightning.data.decode``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import zip_longest

from PIL import Image

_JPEG_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])")
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_START_OF_SCAN = 0xDA

_VALUE_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
    17: 8, 18: 8,
}  # fmt: skip
_DIRECTORY_TAGS = (0x8769, 0x8825, 0xA005)  # EXIF, GPS, interoperability
_STRIPS, _TILES = (273, 279), (324, 325)  # tags of offsets and of lengths


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers of a JPEG's first picture with the first ten bytes behind each."""
    place = 2
    while match := _JPEG_MARKER.search(data, place):
        marker = match[1][0]
        if marker == 0xD9:  # the end; thumbnails and what follows do not count
            break
        head = data[match.end() : match.end() + 10]
        yield marker, head
        # Every segment states its length, so a marker inside of it is not taken for one.
        place = match.end() + max(int.from_bytes(head[:2], "big"), 2)


def jpeg_scans(data: bytes) -> int:
    """Count the scans of a JPEG's first picture: a decoder goes over all pixels for each.

    A picture that is not progressive and has all components in its first scan has only that one.
    """
    scans, components, progressive = 0, 0, False
    for marker, head in _jpeg_segments(data):
        if marker in _START_OF_FRAME:
            progressive, components = marker in _PROGRESSIVE, int.from_bytes(head[7:8], "big")
        elif marker == _START_OF_SCAN:
            scans += 1
            if not progressive and int.from_bytes(head[2:3], "big") == components:
                break
    return scans


def jpeg_exif_bytes(data: bytes) -> int:
    """Add up the EXIF segments of a JPEG; cameras write one, of at most 64 KiB."""
    total = 0
    for marker, head in _jpeg_segments(data):
        if marker == _START_OF_SCAN:
            break
        if marker == 0xE1 and head[2:8] == b"Exif\x00\x00":
            total += int.from_bytes(head[:2], "big")
    return total


def tiff_value_bytes(data: bytes) -> int:
    """Add up the values of a TIFF's first directory and of those in it, each as often as named.

    Pillow keeps a copy for every tag: 5,000 tags that share one megabyte would take 5 GB.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"\x2b\x00", b"\x00\x2b")
    number = struct.Struct(order + ("Q" if big else "H"))
    entry = struct.Struct(order + ("HHQQ" if big else "HHII"))
    inline = 8 if big else 4
    first = data[8:16] if big else data[4:8]
    waiting = [int.from_bytes(first, "little" if order == "<" else "big")]
    seen: set[int] = set()
    total = 0
    while waiting and len(seen) < 16:
        place = waiting.pop()
        if place in seen or place + number.size > len(data):
            continue
        seen.add(place)
        (entries,) = number.unpack_from(data, place)
        start = place + number.size
        end = start + min(entries, (len(data) - start) // entry.size) * entry.size
        for tag, kind, count, value in entry.iter_unpack(data[start:end]):
            size = count * _VALUE_BYTES.get(kind, 0)
            if size > inline and value + size <= len(data):
                total += size
            if tag in _DIRECTORY_TAGS:
                waiting.append(value)
    return total


def _tags(image: Image.Image, tag: int) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, ())  # type: ignore[attr-defined]
    return value if isinstance(value, tuple) else (value,)


def tiff_jpeg_scans(image: Image.Image, data: bytes) -> int:
    """Count the scans of the strip or tile of a TIFF that has most of them; 0 if none is JPEG.

    Raises:
        ValueError: If strips or tiles overlap: each could be the whole file.
    """
    if image.info.get("compression") not in ("jpeg", "tiff_jpeg"):
        return 0
    places = {
        place
        for offsets, lengths in (_STRIPS, _TILES)
        for place in zip_longest(_tags(image, offsets), _tags(image, lengths), fillvalue=len(data))
    }
    if sum(min(length, max(len(data) - offset, 0)) for offset, length in places) > 2 * len(data):
        raise ValueError("its strips overlap")
    return max((jpeg_scans(data[start : start + length]) for start, length in places), default=0)


def covered_share(image: Image.Image) -> float:
    """Share of an opened TIFF's pixels for which it holds strips or tiles, 1 for all of them.

    Pillow leaves the others black: 600 bytes would be a picture of 130 million pixels.
    """
    tiles = image.tile  # type: ignore[attr-defined]
    layers = {tile[3][0] for tile in tiles}  # separate planes have strips of their own
    covered = sum((x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), *_ in tiles)
    return float(covered / max(1, image.width * image.height * len(layers)))
