"""Images of every kind become the RGB that a viewer shows; damaged ones are named as such."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageFile

from sdm_lightning.data import decode
from sdm_lightning.data.decode import BadImageError, decode_image, decode_mask, probe_image
from tests.data.shard_tools import encoded, photo


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_rgb_is_kept_exactly():
    array = photo(0)
    assert np.array_equal(decode_image(encoded(array)), array)


def test_grey_becomes_three_equal_channels():
    grey = photo(0)[..., 0]
    assert np.array_equal(decode_image(encoded(grey)), np.repeat(grey[..., None], 3, 2))


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    values = np.array([[0, 257, 128 * 257, 65535, 300]], np.uint16)
    expected = np.array([0, 1, 128, 255, 1], np.uint8)
    assert np.array_equal(decode_image(encoded(values))[0, :, 0], expected)


def test_palette_and_one_bit_and_cmyk():
    array = np.zeros((4, 4, 3), np.uint8)
    array[:2] = (250, 10, 20)
    palette = Image.fromarray(array).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(decode_image(saved(palette)), array)
    bits = Image.fromarray(array[..., 0]).convert("1")
    assert set(np.unique(decode_image(saved(bits)))) == {0, 255}
    cmyk = Image.fromarray(array).convert("CMYK")
    decoded = decode_image(saved(cmyk, "JPEG", quality=100)).astype(int)
    assert decoded.shape == (4, 4, 3)
    assert abs(decoded[0, 0] - (250, 10, 20)).max() <= 6


def test_transparency_is_laid_over_white():
    array = np.zeros((1, 3, 4), np.uint8)
    array[0, 0] = (10, 20, 30, 255)
    array[0, 1] = (10, 20, 30, 0)
    array[0, 2] = (0, 0, 0, 51)  # one fifth black
    expected = np.array([[10, 20, 30], [255, 255, 255], [204, 204, 204]])
    assert np.array_equal(decode_image(encoded(array))[0], expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int):
    upright = photo(3, 6, 9)
    undo = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1), 7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation](upright))
    assert np.array_equal(decode_image(encoded(stored, exif=exif.tobytes())), upright)


@pytest.mark.parametrize(
    "data",
    [
        b"<html>404</html>",
        b"%PDF-1.4",
        encoded(photo(0, 64, 64), "GIF"),
        encoded(photo(0, 64, 64), "JPEG2000"),
    ],
)
def test_other_formats_are_refused_with_what_would_be_right(data: bytes):
    says = "is no JPEG, PNG, WebP, BMP or TIFF that can be read; save it as PNG or JPEG"
    with pytest.raises(BadImageError, match=f"^{says}$"):
        decode_image(data)


def test_an_empty_file_is_refused():
    with pytest.raises(BadImageError, match="the file is empty"):
        decode_image(b"")


def test_damaged_exif_costs_nothing():
    data = encoded(photo(0), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\x00\x00\xff\xff\x00\x01")
    assert decode_image(data).shape == (12, 14, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated_images_are_refused_whatever_another_library_set(kind, monkeypatch):
    data = encoded(photo(0, 64, 64), kind)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(BadImageError, match="cannot be decoded"):
        decode_image(data[: len(data) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def verdict(data: bytes) -> np.ndarray | None:
    try:
        return decode_image(data)
    except BadImageError:
        return None


class TestFastJpegs:
    """``simplejpeg``, where it is installed, changes neither a pixel nor a verdict."""

    pytestmark = pytest.mark.skipif(decode.simplejpeg is None, reason="simplejpeg is not installed")

    images = [
        saved(Image.fromarray(photo(number, 75, 90)), "JPEG", quality=quality, **options)
        for number, (quality, options) in enumerate(
            [(90, {}), (60, {"progressive": True}), (75, {"subsampling": 0}),
             (95, {"keep_rgb": True}), (80, {"optimize": True})]
        )
    ] + [saved(Image.fromarray(photo(5, 40, 41)[..., 0]), "JPEG")]  # fmt: skip

    @pytest.mark.parametrize("data", images)
    def test_whole_images(self, data: bytes, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(decode, "load_pixels", None)  # Pillow decodes nothing here
            fast = decode_image(data)
        monkeypatch.setattr(decode, "simplejpeg", None)
        assert np.array_equal(fast, decode_image(data))

    def test_damaged_images(self, monkeypatch):
        rng = random.Random(0)
        kept = 0
        for number in range(600):
            data = bytearray(rng.choice(self.images))
            place = rng.randrange(2, len(data) - 2)
            if number % 3 == 0:
                data[place] ^= 1 << rng.randrange(8)
            elif number % 3 == 1:
                del data[place : place + rng.randrange(1, 60)]
            else:
                del data[place:]
            fast = verdict(bytes(data))
            with monkeypatch.context() as patch:
                patch.setattr(decode, "simplejpeg", None)
                slow = verdict(bytes(data))
            assert (fast is None) == (slow is None)
            kept += fast is not None
            assert fast is None or np.array_equal(fast, slow)
        assert 100 < kept < 500


def test_floating_point_images_are_refused():
    image = Image.fromarray(np.ones((2, 2), np.float32))
    with pytest.raises(BadImageError, match="floating-point"):
        decode_image(saved(image, "TIFF"))


@pytest.mark.parametrize(
    ("kind", "extension"),
    [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tif")],
)
def test_probe_tells_the_true_format(kind: str, extension: str):
    assert probe_image(encoded(photo(0), kind)) == (extension, (12, 14))


@pytest.mark.parametrize("make", ["grey", "rgb", "rgba", "bits", "palette", "ones"])
def test_masks_of_every_kind(make: str):
    known = np.array([[1, 0, 1], [0, 0, 1]], np.uint8)
    white = known * 255
    image = {
        "grey": Image.fromarray(white),
        "rgb": Image.fromarray(np.repeat(white[..., None], 3, 2)),
        "rgba": Image.fromarray(np.dstack([white] * 3 + [np.zeros_like(white)])),
        "bits": Image.fromarray(white).convert("1"),
        "palette": Image.fromarray(np.repeat(white[..., None], 3, 2)).convert("P"),
        "ones": Image.fromarray(known),
    }[make]
    assert np.array_equal(decode_mask(saved(image)), known)
    assert np.array_equal(decode_mask(saved(image), "hole-white"), 1 - known)


def test_lab_has_no_alpha():
    image = Image.new("LAB", (2, 2), (255, 128, 128))
    assert decode_image(saved(image, "TIFF")).min() > 250
    with pytest.raises(BadImageError, match="cannot be converted from mode LAB"):
        decode_mask(saved(image, "TIFF"))


def test_mask_threshold_is_half_of_full_scale():
    values = np.array([[0, 127, 128, 255]], np.uint8)
    assert decode_mask(encoded(values)).tolist() == [[0, 0, 1, 1]]
