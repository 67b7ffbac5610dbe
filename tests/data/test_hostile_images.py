"""Images that are made to harm: bombs, absurd sizes, and formats that are programs."""

import io
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.data import decode
from sdm_lightning.data.decode import MAX_PIXELS, BadImageError, decode_image, decode_mask
from sdm_lightning.errors import InputError
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
    assert decode.jpeg_scans(data) == 10
    assert decode_image(data).shape == (64, 64, 3)
    start = data.rfind(b"\xff\xc4")
    bomb = data[:-2] + data[start:-2] * 1000 + b"\xff\xd9"
    with pytest.raises(BadImageError, match="JPEG of more than 100 scans"):
        decode_image(bomb)
    # What follows the picture, as the film of a phone's moving photo, is not counted.
    assert decode.jpeg_scans(data + b"\xff\xda" * 500) == 10


def test_postscript_never_reaches_ghostscript(tmp_path: Path, monkeypatch) -> None:
    """Pillow looks at the content, not at the name, and runs ``gs`` for PostScript."""

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    path = tmp_path / "photo.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(InputError, match=r"photo\.png: cannot be decoded"):
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
    assert picture.size == (12, 14)
    assert np.array_equal(picture.pixels, np.asarray(Image.open(io.BytesIO(path.read_bytes()))))
