from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sdm_lightning.errors import InputError
from sdm_lightning.inference.holes import HoleSource, box_hole, grown, painted_hole, transparent
from sdm_lightning.inference.pictures import read_picture

RNG = np.random.default_rng(0)


def test_boxes_add_up_and_are_cut_at_the_edge() -> None:
    hole = box_hole(["2,1,3,2", " 4, 2, 100, 1"], (5, 8))
    expected = np.zeros((5, 8), bool)
    expected[1:3, 2:5] = True
    expected[2, 4:] = True
    np.testing.assert_array_equal(hole, expected)
    corner = box_hole(["-3,-2,5,4"], (5, 8))
    assert corner[:2, :2].all()
    assert corner.sum() == 4


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ("1,2,3", r"box '1,2,3': write X,Y,W,H in whole pixels"),
        ("1,2,3,4.5", "whole pixels"),
        ("a,b,c,d", "whole pixels"),
        ("", "whole pixels"),
        ("1,2,0,4", "width and height must be at least 1"),
        ("8,0,2,2", "lies outside the photo of 8x5 pixels"),
        ("0,-4,2,4", "lies outside"),
    ],
)
def test_boxes_that_are_none(box: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        box_hole([box], (5, 8))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_painted_colour(dtype: type) -> None:
    array = RNG.integers(0, 120, (20, 30, 3)).astype(np.uint8)
    array[5:9, 7:13] = (255, 30, 200)
    array[6, 8] = (230, 10, 232)  # as JPEG changes it: by at most 32
    array[7, 8] = (222, 30, 200)
    scaled = array if dtype is np.uint8 else array.astype(np.uint16) * 257
    hole = painted_hole(read_picture(scaled), "#ff1ec8")
    expected = np.zeros((20, 30), bool)
    expected[5:9, 7:13] = True
    expected[7, 8] = False
    np.testing.assert_array_equal(hole, expected)
    np.testing.assert_array_equal(painted_hole(read_picture(scaled), "FF1EC8"), hole)


@pytest.mark.parametrize(
    ("colour", "says"),
    [("magenta", "six hexadecimal digits"), ("#ff00f", "six hexadecimal digits"),
     ("#00ff00", "no pixel is within 32 levels of mask_color #00ff00")],
)  # fmt: skip
def test_colours_that_are_none_or_nowhere(colour: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        painted_hole(read_picture(np.zeros((4, 4, 3), np.uint8)), colour)


def test_transparency() -> None:
    array = RNG.integers(0, 256, (6, 7, 4), dtype=np.uint8)
    array[:, :, 3] = 255
    array[1, 2:4, 3] = (0, 254)
    assert np.argwhere(transparent(read_picture(array))).tolist() == [[1, 2], [1, 3]]
    assert not transparent(read_picture(array[:, :, :3])).any()


def test_growing_is_a_disk() -> None:
    hole = np.zeros((9, 9), bool)
    hole[4, 4] = True
    rows, columns = np.nonzero(grown(hole, 3))
    assert np.hypot(rows - 4, columns - 4).max() == 3
    assert len(rows) >= 25
    assert grown(hole, 0) is hole


@pytest.mark.parametrize(
    ("options", "most"), [({"quality": 95, "subsampling": 0}, 24), ({"quality": 75}, 40)]
)
def test_a_soft_brush_leaves_no_rim(tmp_path: Path, options: dict[str, int], most: int) -> None:
    """A stroke with a soft edge, saved as JPEG: what stays known has no trace of the paint."""
    photo = Image.new("RGB", (200, 160), (90, 110, 80))
    large = Image.new("L", (800, 640), 0)
    ImageDraw.Draw(large).line([(200, 200), (600, 400)], fill=255, width=80)
    photo.paste((255, 0, 255), mask=large.resize(photo.size, Image.Resampling.LANCZOS))
    photo.save(tmp_path / "a.jpg", **options)
    picture, known = HoleSource(colour="#ff00ff").find(tmp_path / "a.jpg", None)
    difference = np.abs(picture.pixels[known].astype(int) - (90, 110, 80)).max()
    assert difference < most
    assert 0.08 < (~known).mean() < 0.2


def test_everything_given_adds_up(tmp_path: Path) -> None:
    array = RNG.integers(0, 200, (20, 30, 4), dtype=np.uint8)
    array[:, :, 3] = 255
    array[0, 0, 3] = 0
    array[10:12, 10:12, :3] = (255, 0, 255)
    Image.fromarray(array).save(tmp_path / "a.png")
    mask = np.zeros((20, 30), np.uint8)
    mask[19, 29] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    source = HoleSource(("5,5,2,1",), "#ff00ff", True, 0, "hole-white")
    _, known = source.find(tmp_path / "a.png", tmp_path / "m.png")
    expected = {(0, 0), (5, 5), (5, 6), (19, 29), (10, 10), (10, 11), (11, 10), (11, 11)}
    assert {tuple(place) for place in np.argwhere(~known).tolist()} == expected
    with pytest.raises(InputError, match=r"m.png: nothing in it is transparent"):
        HoleSource(alpha=True).find(tmp_path / "m.png", None)
