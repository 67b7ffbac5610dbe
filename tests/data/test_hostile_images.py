"""Images that are made to harm: bombs, absurd sizes, and formats that are programs."""

import io
import re
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.data import decode
from sdm_lightning.data.decode import MAX_PIXELS, BadImageError, decode_image, decode_mask
from sdm_lightning.data.image_structure import jpeg_scans
from sdm_lightning.errors import InputError
from sdm_lightning.inference import pictures
from sdm_lightning.inference.pictures import open_image, read_mask, read_picture
from tests.data.shard_tools import encoded, photo


def png_of(width: int, height: int) -> bytes:
    """A PNG of a stated size whose pixels are zeros, packed a thousand to one."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("other_library_lifts_the_limit", [False, True])
def test_decompression_bombs(
    tmp_path: Path, monkeypatch, other_library_lifts_the_limit: bool
) -> None:
    if other_library_lifts_the_limit:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    bomb = png_of(60_000, 60_000)
    assert len(bomb) < 2000
    (tmp_path / "bomb.png").write_bytes(bomb)
    for read in (decode_image, decode_mask):
        with pytest.raises(BadImageError, match=f"60000x60000|{MAX_PIXELS}"):
            read(bomb)
    with pytest.raises(InputError, match=rf"bomb\.png: .*({MAX_PIXELS}|60000x60000)"):
        read_picture(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"bomb\.png"):
        read_mask(tmp_path / "bomb.png", (12, 14))


def test_a_jpeg_of_a_thousand_scans() -> None:
    """Each scan costs a pass over all pixels: 270 kB of them took 22 s."""
    data = encoded(photo(0, 64, 64), "JPEG", progressive=True)
    assert jpeg_scans(data) == 10
    assert decode_image(data).shape == (64, 64, 3)
    start = data.rfind(b"\xff\xc4")
    bomb = data[:-2] + data[start:-2] * 1000 + b"\xff\xd9"
    with pytest.raises(BadImageError, match="JPEG of 1010 scans; at most 100 are decoded"):
        decode_image(bomb)
    # What follows the picture, as the film of a phone's moving photo, is not counted.
    assert jpeg_scans(data + b"\xff\xda" * 500) == 10


def run_length_bmp(side: int) -> bytes:
    """A grey BMP in which every pixel is a run of its own: two bytes each."""
    rows = (b"\x01\x07" * side + b"\x00\x00") * side + b"\x00\x01"
    palette = b"".join(bytes((level, level, level, 0)) for level in range(256))
    start = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + header + palette + rows


def test_a_run_length_encoded_bmp_of_many_bytes() -> None:
    """Pillow decodes it in Python: a gigabyte would take eight minutes."""
    assert (decode_image(run_length_bmp(20)) == 7).all()
    with pytest.raises(BadImageError, match="run-length encoded BMP of 18007080 bytes; at most 16"):
        decode_image(run_length_bmp(3000))


def test_postscript_never_reaches_ghostscript(tmp_path: Path, monkeypatch) -> None:
    """Pillow looks at the content, not at the name, and runs ``gs`` for PostScript."""

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    path = tmp_path / "photo.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(InputError, match=r"photo\.png: is no JPEG, PNG"):
        open_image(path)


def test_a_file_that_is_larger_than_any_image(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="has 1099511627776 bytes; at most 1073741824 are read"):
        open_image(path)


def test_damaged_exif_costs_the_exif_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03\xff\xff\xff\xff\xff\xff\xff\xff"
    path.write_bytes(encoded(photo(0), "JPEG", exif=exif))
    picture = read_picture(path)
    assert picture.shape == (12, 14)
    assert np.array_equal(picture.pixels, np.asarray(Image.open(io.BytesIO(path.read_bytes()))))


def jpeg_of_separate_scans(width: int, height: int, scans: int) -> bytes:
    """A JPEG that is not progressive, one component a scan; a scan without data is ten bytes."""
    data = encoded(np.zeros((height, width), np.uint8), "JPEG")
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    after = frame + 2 + int.from_bytes(data[frame + 2 : frame + 4], "big")
    components = b"".join(bytes((index, 0x11, 0)) for index in (1, 2, 3))
    head = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + components
    one = [b"\xff\xda\x00\x08\x01" + bytes((1 + index % 3, 0, 0, 63, 0)) for index in range(scans)]
    return data[:frame] + head + data[after:scan] + b"".join(one) + b"\xff\xd9"


def tiff_of(tags: dict[int, tuple[int, int, int]], content: bytes) -> bytes:
    """A TIFF of tags, each with type, count and value; -1 stands for the place of the content."""
    place = 8 + 2 + 12 * len(tags) + 4
    entries = [
        struct.pack("<HHII", tag, kind, count, place if value == -1 else value)
        for tag, (kind, count, value) in sorted(tags.items())
    ]
    return (
        b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4) + content
    )


def test_scans_of_a_jpeg_that_is_not_progressive() -> None:
    """Ten bytes a scan, of 5 ms for 16 million pixels: a megabyte is 100,000 of them."""
    few, many = jpeg_of_separate_scans(64, 48, 3), jpeg_of_separate_scans(64, 48, 101)
    assert decode_image(few).shape == (48, 64, 3)
    with pytest.raises(BadImageError, match=r"is a JPEG of 101 scans; at most 100 .* 64x48 pixels"):
        decode_image(many)


def test_scans_count_for_the_size_of_the_picture(monkeypatch) -> None:
    """100 scans of 16 million pixels took 2 s; the largest picture has 11 times as many."""
    data = jpeg_of_separate_scans(64, 48, 30)
    monkeypatch.setattr(decode, "MAX_SCANNED_PIXELS", 30 * 64 * 48)
    assert decode_image(data).shape == (48, 64, 3)
    monkeypatch.setattr(decode, "MAX_SCANNED_PIXELS", 30 * 64 * 48 - 1)
    with pytest.raises(BadImageError, match="JPEG of 30 scans; at most 29 "):
        decode_image(data)


@pytest.mark.parametrize("with_length", [True, False])
def test_scans_of_a_jpeg_inside_a_tiff(with_length: bool) -> None:
    def tiff(scans: int, height: int = 48) -> bytes:
        jpeg = jpeg_of_separate_scans(64, height, scans)
        tags = {
            256: (4, 1, 64), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 7), 262: (3, 1, 6),
            273: (4, 1, -1), 277: (3, 1, 3), 278: (4, 1, height),
        }  # fmt: skip
        if with_length:
            tags[279] = (4, 1, len(jpeg))
        return tiff_of(tags, jpeg)

    assert decode_image(tiff(3)).shape == (48, 64, 3)
    with pytest.raises(BadImageError, match="is a JPEG of 101 scans"):
        decode_image(tiff(101))


def test_tags_that_share_their_values(tmp_path: Path) -> None:
    """Pillow keeps a copy for each: a file of one megabyte took 4 GB and 11 s."""
    size = 1 << 16
    tags = {
        256: (4, 1, 1), 257: (4, 1, 1), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
        273: (4, 1, -1), 278: (4, 1, 1), 279: (4, 1, 1), 40000: (7, size, -1),
    }  # fmt: skip
    assert decode_image(tiff_of(tags, bytes(size))).shape == (1, 1, 3)
    shared = {**tags, **{40000 + index: (7, size, -1) for index in range(50)}}
    inside = {**tags, 0x8769: (4, 1, 8), 50000: (7, size, -1)}  # a directory that holds itself
    assert decode_image(tiff_of(inside, bytes(size))).shape == (1, 1, 3)
    with pytest.raises(BadImageError, match=r"tags of 32768\d\d bytes in a file of 66\d\d\d"):
        decode_image(tiff_of(shared, bytes(size)))


def test_exif_larger_than_a_camera_writes(tmp_path: Path) -> None:
    """Its tags, too, can share their values."""
    size = 1 << 16
    exif = tiff_of({40000 + index: (7, size, -1) for index in range(50)}, bytes(size))
    turned = tiff_of({0x0112: (3, 1, 6)}, b"")
    for kind in ("PNG", "WEBP"):
        path = tmp_path / f"x.{kind}"
        path.write_bytes(encoded(photo(0), kind, exif=turned))
        assert read_picture(path).shape == (14, 12)
        path.write_bytes(encoded(photo(0), kind, exif=exif))
        assert "exif" not in read_picture(path).info
        assert decode_image(path.read_bytes()).shape == (12, 14, 3)
    segment = b"\xff\xe1" + struct.pack(">H", 65000) + b"Exif\0\0" + bytes(65000 - 8)
    data = encoded(photo(0), "JPEG")
    assert decode_image(data[:2] + segment + data[2:]).shape == (12, 14, 3)
    with pytest.raises(BadImageError, match="has 130000 bytes of EXIF data; at most 65536"):
        decode_image(data[:2] + 2 * segment + data[2:])


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_that_does_not_hold_its_pixels(tmp_path: Path, compression: str | None) -> None:
    """Pillow would leave them black: 600 bytes were a picture of 136 million pixels."""
    data = encoded(photo(0), "TIFF", compression=compression)
    assert decode_image(data).shape == (12, 14, 3)
    rows = struct.pack("<HHII", 257, 4, 1, 97000)
    high = re.sub(rb"\x01\x01[\x03\x04]\x00\x01\x00{3}\x0c\x00{3}", rows, data)
    assert high != data
    path = tmp_path / "x.tif"
    path.write_bytes(high)
    reason = "holds 0.0% of its pixels" if compression is None else "cannot be decoded"
    for read in (decode_image, decode_mask):
        with pytest.raises(BadImageError, match=reason):
            read(high)
    with pytest.raises(InputError, match=rf"x\.tif: {reason}"):
        read_picture(path)


def test_rows_per_strip_that_are_a_fraction() -> None:
    tags = {
        256: (4, 1, 2), 257: (4, 1, 3), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
        273: (4, 1, -1), 278: (5, 1, -1), 279: (4, 1, 6),
    }  # fmt: skip
    with pytest.raises(BadImageError, match=r"holds 83\.3% of its pixels"):
        decode_image(tiff_of(tags, struct.pack("<II", 5, 2)))


def test_a_mask_of_another_size_is_refused_before_its_levels_are_worked_out(
    tmp_path: Path, monkeypatch
) -> None:
    """136 million pixels of 16 bits cost 2 s."""
    path = tmp_path / "m.png"
    path.write_bytes(encoded(np.zeros((5, 7), np.uint16)))
    monkeypatch.setattr(pictures, "_mask_levels", None)
    with pytest.raises(InputError, match=r"7x5 pixels .* its image has 4x4"):
        read_mask(path, (4, 4))
