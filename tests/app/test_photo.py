from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sdm_lightning.app.photo import data_url, decode_hole, noted, open_photo, read_hole
from sdm_lightning.errors import InputError
from tests.app.conftest import RNG, painted

LIMIT = 4_000_000


def test_a_large_photo_is_shown_reduced_and_a_hole_is_brought_to_full_size(
    upload: Callable[..., Path],
) -> None:
    photo = open_photo(upload(RNG.integers(0, 256, (1536, 2048, 3), dtype=np.uint8)), LIMIT)
    assert photo.preview.shape == (768, 1024, 3)
    assert photo.picture.shape == (1536, 2048)
    assert photo.name == "photo"
    small = np.zeros((768, 1024), bool)
    small[100:200, 300:500] = True
    hole = photo.hole(painted(small))
    expected = np.zeros((1536, 2048), bool)
    expected[200:400, 600:1000] = True
    # Edges are smooth: corners may be rounded by a pixel.
    assert (hole != expected).sum() <= 4


def test_transparent_pixels_are_the_hole_to_the_pixel_until_painted_over(
    upload: Callable[..., Path],
) -> None:
    array = RNG.integers(0, 256, (1500, 2000, 4), dtype=np.uint8)
    array[:, :, 3] = 255
    array[301:777, 403:1001, 3] = 0
    array[0, 0, 3] = 254
    photo = open_photo(upload(array), LIMIT)
    transparent = array[:, :, 3] < 255
    np.testing.assert_array_equal(photo.given_hole, transparent)
    shown = photo.given_preview()
    np.testing.assert_array_equal(photo.hole(painted(shown)), transparent)
    shown[10:20, 10:20] = True
    shown[250:300, 250:300] = False
    hole = photo.hole(painted(shown))
    assert hole[25:35, 25:35].all()
    assert not hole[500:580, 500:580].any()


def test_nothing_is_left_of_a_given_hole_that_is_erased(upload: Callable[..., Path]) -> None:
    photo = open_photo(upload(np.zeros((1500, 2000), np.uint8)), LIMIT)
    given = np.zeros((1500, 2000), np.uint8)
    cv2.circle(given, (1000, 750), 500, 1, -1)
    photo.given_hole = given > 0
    small = np.zeros((768, 1024), bool)
    small[10:20, 10:20] = True
    assert np.argwhere(photo.hole(painted(small))).max() < 41


def test_an_uploaded_mask_is_kept_to_the_pixel(upload: Callable[..., Path]) -> None:
    photo = open_photo(upload(np.zeros((1200, 1600), np.uint8)), LIMIT)
    known = RNG.random((1200, 1600)) < 0.7
    mask = upload(known.astype(np.uint8) * 255, "mask.png")
    photo.given_hole = read_hole(mask, photo, LIMIT)
    np.testing.assert_array_equal(photo.hole(painted(photo.given_preview())), ~known)


def test_files_that_are_refused(upload: Callable[..., Path]) -> None:
    large = upload(np.zeros((100, 200), np.uint8), "large.png")
    with pytest.raises(InputError, match=r"^large.png: larger than the 0.01 megapixels"):
        open_photo(large, 10_000)
    text = large.with_name("text.jpg")
    text.write_text("no photo")
    with pytest.raises(InputError, match=r"^text.jpg: is no JPEG, PNG"):
        open_photo(text, LIMIT)
    photo = open_photo(large, LIMIT)
    mask = upload(np.zeros((20, 20), np.uint8), "mask.png")
    with pytest.raises(InputError, match=r"^mask.png: 20x20 pixels .* has 200x100"):
        read_hole(mask, photo, LIMIT)
    grey = upload(np.full((100, 200), 128, np.uint8), "grey.png")
    with pytest.raises(InputError, match=r"^grey.png: .* grey: a picture, not a mask$"):
        read_hole(grey, photo, LIMIT)


def test_warnings_are_for_the_page(
    upload: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = upload(np.zeros((20, 30), np.uint8), "deep.png")
    cv2.imwrite(str(deep), np.zeros((20, 30, 3), np.uint16))
    with noted(deep) as notes:
        photo = open_photo(deep, LIMIT)
    assert notes == ["deep.png: 16 bits per colour channel are read as 8"]
    mask = upload(np.zeros((20, 30), np.uint8), "mask.png")
    with noted(mask) as notes:
        read_hole(mask, photo, LIMIT)
    assert notes == [
        "mask.png: 100.0% of the picture is hole; if it is the other way round, press Invert"
    ]
    exif = Image.Exif()
    exif[0x010F] = "maker of the camera"
    damaged = upload(np.zeros((20, 30), np.uint8), "damaged.jpg", exif=exif.tobytes())
    monkeypatch.setattr(Image.Exif, "tobytes", lambda *_: 1 / 0)
    with noted(damaged) as notes:
        open_photo(damaged, LIMIT)
    assert notes == ["damaged.jpg: its EXIF data are damaged and left out"]


@pytest.mark.parametrize(
    "sent",
    ["", "data:image/png;base64,", "data:image/png;base64,AAAA", "data:text/html;base64,AAAA",
     painted(np.ones((4, 5), bool)), painted(np.ones((5, 4), bool)) + "*"],
)  # fmt: skip
def test_what_is_no_painted_hole_of_that_size(sent: str) -> None:
    with pytest.raises(InputError, match="open the photo again"):
        decode_hole(sent, (5, 4))


def test_an_empty_hole_is_told(upload: Callable[..., Path]) -> None:
    photo = open_photo(upload(np.zeros((20, 30), np.uint8)), LIMIT)
    with pytest.raises(InputError, match="nothing is painted yet"):
        photo.hole(painted(np.zeros((20, 30), bool)))


def test_masks_travel_to_the_page_and_back() -> None:
    mask = RNG.random((7, 9)) < 0.5
    np.testing.assert_array_equal(decode_hole(data_url(mask), (7, 9)), mask)
