"""Crops, padding, flips and the uint8-tensor round trip, against exact values."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from sdm_lightning.data.transforms import (
    center_crop,
    pad_to,
    random_crop,
    random_flip,
    to_array,
    to_tensor,
)
from sdm_lightning.errors import InputError


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are: channel 0 = row, channel 1 = column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], -1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "size"), [(9, 12, 4), (8, 8, 8), (11, 7, 6)])
def test_center_crop_starts_at_the_floor_of_half_the_rest(height: int, width: int, size: int):
    crop = center_crop(coordinates(height, width), size)
    assert crop.shape == (size, size, 3)
    assert crop[0, 0, 0] == (height - size) // 2
    assert crop[0, 0, 1] == (width - size) // 2
    assert crop[-1, -1, 0] == (height - size) // 2 + size - 1


def test_random_crop_is_uniform_over_all_offsets():
    rng = np.random.default_rng(0)
    image = coordinates(6, 5)
    draws = 4000
    counts = np.zeros((3, 2), int)
    for _ in range(draws):
        crop = random_crop(image, 4, rng)
        assert (crop[1:, :, 0] - crop[:-1, :, 0] == 1).all()
        counts[crop[0, 0, 0], crop[0, 0, 1]] += 1
    expected = draws / counts.size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 20.5  # 99.9 % quantile at 5 degrees of freedom


def test_same_generator_state_cuts_image_and_mask_alike():
    image = coordinates(40, 30)
    crop = random_crop(image, 16, np.random.default_rng(3))
    mask = random_crop(image[..., 0], 16, np.random.default_rng(3))
    np.testing.assert_array_equal(crop[..., 0], mask)


def test_crops_own_their_pixels():
    image = coordinates(8, 8)
    for crop in (center_crop(image, 4), random_crop(image, 4, np.random.default_rng(0))):
        crop[:] = 255
    assert image.max() == 7


def test_pad_equals_opencv_border_reflect():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    expected = cv2.copyMakeBorder(image, 0, 4, 0, 2, cv2.BORDER_REFLECT)
    np.testing.assert_array_equal(pad_to(image, 9), expected)


def test_pad_larger_than_the_image_goes_back_and_forth():
    padded = pad_to(coordinates(3, 2), 11)
    np.testing.assert_array_equal(padded[:, 0, 0], [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1])
    np.testing.assert_array_equal(padded[0, :, 1], [0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1])


def test_pad_touches_only_the_side_that_is_short():
    image = coordinates(20, 6)
    padded = pad_to(image, 8)
    assert padded.shape == (20, 8, 3)
    np.testing.assert_array_equal(padded[:, :6], image)
    assert pad_to(image, 6) is image
    assert pad_to(image[..., 0], 8).shape == (20, 8)


def test_flip_mirrors_columns_half_of_the_time():
    rng = np.random.default_rng(0)
    image = coordinates(3, 5)
    flipped = 0
    for _ in range(2000):
        out = random_flip(image, rng)
        if out[0, 0, 1] == 4:
            flipped += 1
            np.testing.assert_array_equal(out, image[:, ::-1])
        else:
            np.testing.assert_array_equal(out, image)
    assert abs(flipped - 1000) < 4 * np.sqrt(500)


def test_tensor_round_trip_is_exact_for_every_level():
    image = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3).astype(np.uint8)
    tensor = to_tensor(image)
    assert tensor.shape == (3, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor.min() == -1.0
    assert tensor.max() == 1.0
    expected = image.transpose(2, 0, 1).astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-7)
    np.testing.assert_array_equal(to_array(tensor), image)
    np.testing.assert_array_equal(to_array(torch.stack([tensor, -tensor]))[0], image)
    np.testing.assert_array_equal(to_array(-tensor), 255 - image)


def test_to_array_clamps_and_rounds():
    values = torch.tensor([-7.0, 3.0, 0.0, 0.001, 0.005]).expand(3, 1, 5)
    # 0 is 127.5, which rounds to the even 128; 0.005 is 128.1375
    np.testing.assert_array_equal(to_array(values)[0, :, 0], [0, 255, 128, 128, 128])


def test_conversions_refuse_other_shapes_and_types():
    with pytest.raises(InputError, match="float64"):
        to_tensor(np.zeros((4, 4, 3)))
    with pytest.raises(InputError, match=r"\(4, 4\)"):
        to_tensor(np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"\(1, 4, 4\)"):
        to_array(torch.zeros(1, 4, 4))


def test_read_only_arrays_are_copied():
    image = coordinates(4, 4)
    image.flags.writeable = False
    tensor = to_tensor(image)
    tensor.zero_()
    assert image[3, 3, 0] == 3
