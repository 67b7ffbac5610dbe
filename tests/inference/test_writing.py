import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from sdm_lightning.errors import InputError
from sdm_lightning.inference.pictures import read_picture
from sdm_lightning.inference.results import InpaintingSample
from sdm_lightning.inference.writing import COMPARE_SIDE, side_by_side

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(40, 30, 3), (30, 40, 4), (30, 30), (20, 50, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_before_and_after(shape: tuple[int, ...], dtype: type) -> None:
    if dtype is np.uint16 and len(shape) == 2:
        shape = (*shape, 1)
    before = RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    if len(shape) == 3 and shape[2] == 4:
        before[:, :, 3] = np.iinfo(dtype).max
    after = before.copy()
    after[5:9, 7:12] = 0
    picture = read_picture(before)
    sample = InpaintingSample(after, np.zeros(shape[:2], np.float32), picture, [], 0)
    both = np.asarray(side_by_side(sample).convert("RGB")).astype(int)
    height, width = shape[:2]
    if width > height:
        halves = both[:height], both[-height:]
    else:
        halves = both[:, :width], both[:, -width:]
    for half, array in zip(halves, (before, after), strict=True):
        levels = array if dtype is np.uint8 else array >> 8
        colours = levels.reshape(height, width, -1)[:, :, :3]
        np.testing.assert_array_equal(half, np.broadcast_to(colours, half.shape))


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
@pytest.mark.parametrize("channels", [2, 4])
def test_what_is_transparent_is_laid_over_white(tmp_path: Path, suffix: str, channels: int) -> None:
    array = np.full((16, 16, channels), 100, np.uint8)
    array[:8, :, -1], array[8:, :, -1] = 0, 255
    picture = read_picture(array)
    picture.info["dpi"] = (72, 72)
    path = tmp_path / f"a{suffix}"
    sample = InpaintingSample(array, np.zeros((16, 16), np.float32), picture, [], 0)
    sample.save(path)
    assert sample.encode(suffix) == path.read_bytes()
    with Image.open(path) as image:
        assert round(image.info["dpi"][0]) == 72
        shown = np.asarray(image).astype(int)
    assert shown.shape == ((16, 16) if channels == 2 else (16, 16, 3))
    assert abs(shown[:8] - 255).max() <= 1
    assert abs(shown[8:] - 100).max() <= 1


def test_large_ones_are_reduced() -> None:
    array = np.zeros((30, 4000, 3), np.uint8)
    sample = InpaintingSample(array, np.zeros((30, 4000), np.float32), read_picture(array), [], 0)
    both = side_by_side(sample)
    assert isinstance(both, Image.Image)
    assert both.width == COMPARE_SIDE


@pytest.mark.parametrize("resolution", [(2**32 - 1, 1), (0, 0), (5, 0), (70000, 1)])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_a_resolution_that_no_file_can_state_is_left_out(
    tmp_path: Path, resolution: tuple[int, int], suffix: str
) -> None:
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "TIFF", dpi=(72, 72))
    stated = struct.pack("<II", 72, 1)
    content = buffer.getvalue().replace(stated, struct.pack("<II", *resolution), 1)
    (tmp_path / "a.tif").write_bytes(content)
    picture = read_picture(tmp_path / "a.tif")
    array = picture.filled(picture.normalised(), np.zeros((8, 8), bool))
    sample = InpaintingSample(array, np.zeros((8, 8), np.float32), picture, [], 0)
    sample.save(tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert image.size == (8, 8)
        assert 282 not in image.getexif()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_saving_keeps_what_the_photo_has_beside_its_pixels(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[271] = "a maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = Image.new("RGB", (16, 16))
    photo.save(tmp_path / "a.jpg", exif=exif, icc_profile=profile, dpi=(300, 300))
    picture = read_picture(tmp_path / "a.jpg")
    sample = InpaintingSample(picture.pixels, np.zeros((16, 16), np.float32), picture, [], 0)
    sample.save(str(tmp_path / f"out{suffix}"))
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert image.getexif()[271] == "a maker"
        assert image.info["icc_profile"] == profile
        assert suffix == ".webp" or round(image.info["dpi"][0]) == 300
    with pytest.raises(InputError, match=r"out: cannot write that format; choose \.png, \.tif or"):
        sample.save(tmp_path / "out")


@pytest.mark.parametrize(
    ("quality", "subsampling", "mode"),
    [(75, 2, "RGB"), (95, 0, "RGB"), (60, 1, "RGB"), (80, 0, "L")],
)
def test_a_jpeg_photo_keeps_its_quality(
    tmp_path: Path, quality: int, subsampling: int, mode: str
) -> None:
    coarse = RNG.integers(80, 180, (6, 8, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC).convert(mode)
    photo.save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling)
    picture = read_picture(tmp_path / "a.jpg")
    array = picture.pixels.copy()
    array[16:32, 16:48] = 0
    InpaintingSample(array, np.zeros((64, 96), np.float32), picture, [], 0).save(
        tmp_path / "out.jpg"
    )
    again = read_picture(tmp_path / "out.jpg")
    assert again.info["jpeg"] == picture.info["jpeg"]
    changed = (again.pixels != picture.pixels)[:, 64:]  # whole blocks away from what is filled
    assert changed.mean() < 0.15


def test_a_turned_jpeg_photo_is_written_at_95(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.new("RGB", (40, 24))
    photo.save(tmp_path / "a.jpg", quality=50, exif=exif)
    photo.save(tmp_path / "95.jpg", quality=95)
    picture = read_picture(tmp_path / "a.jpg")
    sample = InpaintingSample(picture.pixels, np.zeros((40, 24), np.float32), picture, [], 0)
    sample.save(tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as found, Image.open(tmp_path / "95.jpg") as expected:
        assert found.quantization == expected.quantization
