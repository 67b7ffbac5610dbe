import re
import struct
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdm_lightning.errors import InputError
from sdm_lightning.inference.pictures import read_mask, read_picture

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_map_to_minus_one_and_one_and_back(shape: tuple[int, ...], dtype: type) -> None:
    array = RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    picture = read_picture(array)
    values = picture.normalised()
    colour = array.reshape(5, 7, -1)[:, :, : 1 if len(shape) == 2 or shape[2] < 3 else 3]
    expected = colour.astype(np.float64) / np.iinfo(dtype).max * 2 - 1
    np.testing.assert_allclose(values, np.broadcast_to(expected, values.shape), atol=1e-6)
    # Hole or known, transparency or not: the same values give the same picture.
    again = picture.filled(values, np.zeros((5, 7), bool))
    assert again.dtype == dtype
    assert again.shape == shape
    np.testing.assert_array_equal(again, array)


def test_known_pixels_keep_their_bits_and_alpha_is_never_touched() -> None:
    array = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    known = RNG.random((6, 9)) < 0.5
    filled = read_picture(array).filled(np.full((6, 9, 3), 1.0, np.float32), known)
    np.testing.assert_array_equal(filled[known], array[known])
    np.testing.assert_array_equal(filled[~known][:, :3], 255)
    np.testing.assert_array_equal(filled[:, :, 3], array[:, :, 3])


def test_grey_is_filled_with_luma() -> None:
    values = np.broadcast_to(np.array([1.0, -1.0, -1.0], np.float32), (2, 2, 3))
    filled = read_picture(np.zeros((2, 2), np.uint8)).filled(values, np.zeros((2, 2), bool))
    np.testing.assert_array_equal(filled, round(0.299 * 255))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_no_picture_can_show(value: float) -> None:
    picture = read_picture(np.zeros((2, 3), np.uint8))
    values, known = picture.normalised(), np.ones((2, 3), bool)
    values[1, 2] = value
    assert not picture.filled(values, known).any()
    known[1, 2] = False
    with pytest.raises(InputError, match=r"the image array: the network's output .* holds NaN"):
        picture.filled(values, known)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("1", "L"), ("L", "L"), ("P", "RGB"), ("RGBA", "RGBA"), ("LA", "LA"), ("CMYK", "RGB"),
     ("I;16", "I;16"), ("I", "I;16"), ("HSV", "RGB")],
)  # fmt: skip
def test_pil_modes(mode: str, expected: str) -> None:
    colour = Image.fromarray(RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8))
    if mode == "I;16":
        image = Image.fromarray(RNG.integers(0, 65536, (8, 6), dtype=np.uint16))
    else:
        image = colour.convert(mode)
    picture = read_picture(image)
    result = picture.to_pil(picture.filled(picture.normalised(), np.ones((8, 6), bool)))
    assert (result.mode, result.size) == (expected, (6, 8))
    if mode == expected:
        np.testing.assert_array_equal(np.asarray(result), np.asarray(image))


def test_16_bit_colour_becomes_8_bit_in_pil() -> None:
    array = RNG.integers(0, 65536, (8, 6, 3), dtype=np.uint16)
    picture = read_picture(array)
    result = picture.to_pil(picture.filled(picture.normalised(), np.ones((8, 6), bool)))
    np.testing.assert_array_equal(np.asarray(result), array // 256)


def ink_profile() -> bytes:
    """A colour profile by which every ink alone is black, and no ink is white."""
    ramp, no_ink = bytes(range(256)), bytes([255, 128, 128])  # of L, a and b
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    table += struct.pack(">9i", *(np.eye(3, dtype=int) * 65536).ravel())
    table += 4 * ramp + no_ink + 15 * bytes([0, 128, 128]) + 3 * ramp
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table
    header = struct.pack(">I4xI4s4s4s12x4s28x3i", 128 + len(tags), 0x02400000, b"prtr", b"CMYK",
                         b"Lab ", b"acsp", 63190, 65536, 54061)  # fmt: skip
    return header.ljust(128, b"\0") + tags


def test_inks_are_converted_by_their_profile_which_is_then_gone() -> None:
    image = Image.new("CMYK", (6, 8))
    image.paste((255, 0, 0, 0), (0, 0, 3, 8))
    image.info["icc_profile"] = ink_profile()
    picture = read_picture(image)
    assert (picture.pixels[:, :3] <= 2).all()
    assert (picture.pixels[:, 3:] >= 253).all()
    assert "icc_profile" not in picture.info


@pytest.mark.parametrize("profile", [b"no profile", None])
def test_inks_without_a_profile_are_told(profile: bytes | None) -> None:
    image = Image.new("CMYK", (6, 8), (255, 0, 0, 0))
    image.info["icc_profile"] = profile
    with pytest.warns(UserWarning, match=r"^the image: CMYK without a .* its colours change"):
        picture = read_picture(image)
    assert (picture.pixels == (0, 255, 255)).all()
    assert "icc_profile" not in picture.info


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_transparent_colour_of_a_png_file(mode: str, tmp_path: Path) -> None:
    colours = RNG.integers(0, 200, (8, 6, 3) if mode == "RGB" else (8, 6), dtype=np.uint8)
    colours[2:5, 1:4] = 255
    transparent = (255, 255, 255) if mode == "RGB" else 255
    Image.fromarray(colours).save(tmp_path / "a.png", transparency=transparent)
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels.squeeze(), colours)
    assert picture.alpha is not None
    assert (picture.alpha[2:5, 1:4] == 0).all()
    assert (picture.alpha == 0).sum() == 9


def test_exif_orientation_is_applied_and_then_gone(tmp_path: Path) -> None:
    array = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    exif[0x010E] = "a caption"
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif, icc_profile=b"profile")
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, np.rot90(array, -1))
    kept = Image.Exif()
    kept.load(picture.info["exif"])
    assert 0x0112 not in kept
    assert kept[0x010E] == "a caption"
    assert picture.info["icc_profile"] == b"profile"


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 4), np.float32), "float32"),
        (np.zeros((4, 4, 5), np.uint8), "channels"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
    ],
)
def test_arrays_that_are_no_pictures(array: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_picture(array)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (torch.zeros(3, 4, 6), "Tensor"),
        (None, "NoneType"),
        ([[0]], "list"),
        (BytesIO(b"x"), "BytesIO"),
    ],
)
def test_types_that_are_no_pictures(value: Any, kind: str) -> None:
    says = f"the image: {kind}; give a path, a file's bytes, a PIL image or a uint8 array (H, W, 3)"
    with pytest.raises(InputError, match=f"^{re.escape(says)}$"):
        read_picture(value)
    with pytest.raises(InputError, match=rf"^the mask: {kind}; give .* or an array \(H, W\)$"):
        read_mask(value, (4, 6))


def test_files_that_cannot_be_decoded(tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not a picture")
    for name in ("cut.jpg", "text.png", "missing.png"):
        with pytest.raises(InputError, match=name):
            read_picture(tmp_path / name)


def test_uploads_that_cannot_be_decoded() -> None:
    buffer = BytesIO()
    Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, "JPEG")
    whole = buffer.getvalue()
    cut = whole[:-200]
    assert np.array_equal(read_picture(whole).pixels, np.asarray(Image.open(buffer)))
    with pytest.raises(InputError, match=r"^the image: .*truncated"):
        read_picture(Image.open(BytesIO(cut)))
    with pytest.raises(InputError, match=r"^the mask: .*truncated"):
        read_mask(Image.open(BytesIO(cut)), (40, 40))
    for data in (cut, b"not a picture", b""):
        with pytest.raises(InputError, match=r"^the image: "):
            read_picture(data)
        with pytest.raises(InputError, match=r"^the mask: "):
            read_mask(data, (40, 40))


HALF = np.zeros((4, 6), bool)
HALF[:, 3:] = True


@pytest.mark.parametrize(
    "mask",
    [
        HALF,
        HALF.astype(np.uint8),
        HALF.astype(np.uint8) * 255,
        HALF.astype(np.float32),
        HALF.astype(np.uint8)[:, :, None] * 255,
        np.repeat(HALF.astype(np.uint8)[:, :, None] * 255, 3, axis=2),
        Image.fromarray(HALF),
        Image.fromarray(HALF.astype(np.uint8)),
        Image.fromarray(HALF.astype(np.uint8) * 255).convert("RGB"),
        Image.fromarray(HALF.astype(np.uint8) * 255).convert("RGBA"),
        Image.fromarray(HALF.astype(np.uint8) * 255).convert("P"),
        Image.fromarray(HALF.astype(np.uint16)),
        Image.fromarray(HALF.astype(np.uint16) * 255),
        Image.fromarray(HALF.astype(np.uint16) * 65535),
    ],
)
def test_mask_forms_and_conventions(mask: np.ndarray | Image.Image) -> None:
    np.testing.assert_array_equal(read_mask(mask, (4, 6)), HALF)
    np.testing.assert_array_equal(read_mask(mask, (4, 6), "hole-white"), ~HALF)


def test_a_mask_is_turned_as_its_picture_is() -> None:
    mask = Image.fromarray(np.ascontiguousarray(np.rot90(HALF)).astype(np.uint8) * 255)
    mask.getexif()[0x0112] = 6  # to be turned clockwise by 90 degrees
    np.testing.assert_array_equal(read_mask(mask, (4, 6)), HALF)


def test_all_known_and_all_hole_masks() -> None:
    with pytest.warns(UserWarning, match=r" 0\.0% .* set --mask_convention hole-white"):
        assert read_mask(np.full((4, 4), 255, np.uint8), (4, 4)).all()
    with pytest.warns(UserWarning, match=r"100\.0% .* set --mask_convention hole-white"):
        assert not read_mask(np.zeros((4, 4), np.uint8), (4, 4)).any()


def test_polarity_guard() -> None:
    strokes = np.zeros((50, 50), np.uint8)
    strokes[10:30, 10:30] = 255  # what a person paints to be removed
    with pytest.warns(UserWarning, match=r"84\.0% .* set --mask_convention hole-white"):
        read_mask(strokes, (50, 50))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_mask(strokes, (50, 50), "hole-white")
        frame = np.zeros((50, 50), np.uint8)
        frame[2:-2, 2:-2] = 255  # an extended picture: the rim is hole, the most is not
        read_mask(frame, (50, 50))
    with pytest.raises(InputError, match="known-white or hole-white"):
        read_mask(strokes, (50, 50), "white")  # type: ignore[arg-type]


def test_grey_masks_are_cut_at_128_with_a_warning() -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8), [400, *[1] * 254, 400])
    mask = np.repeat(levels[None], 4, axis=0)
    with pytest.warns(UserWarning, match="grey"):
        known = read_mask(mask, mask.shape)
    np.testing.assert_array_equal(known[0], levels >= 128)


def test_a_small_mask_with_a_soft_edge_is_no_picture() -> None:
    rows, columns = np.mgrid[:64, :64] - 31.5
    mask = ((np.hypot(rows, columns) - 16) / 8 * 255 + 128).clip(0, 255).astype(np.uint8)
    with pytest.warns(UserWarning, match="grey"):
        assert 700 < (~read_mask(mask, (64, 64))).sum() < 900


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.ones((6, 4), bool), "4x6 pixels .* but its image has 6x4; .* turned"),
        (np.ones((4, 5), bool), "5x4 pixels"),
        (np.full((4, 6), -1.0), "values from -1"),
        (np.full((4, 6), "x"), "the mask array: type <U1; masks are bool"),
        (np.dstack([HALF, HALF, ~HALF]), "differing channels"),
        (Image.new("RGBA", (6, 4), (255, 255, 255, 100)), "; --mask alpha fills what is transp"),
        (
            Image.new("RGB", (6, 4), (9, 99, 199)),
            "mask: 100.0% .* grey: a picture, .* --mask_color",
        ),
    ],
)
def test_masks_that_cannot_be_used(mask: np.ndarray | Image.Image, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_mask(mask, (4, 6))
