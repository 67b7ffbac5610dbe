import numpy as np
import pytest

from sdm_lightning.inference.seams import close_seams, spread


@pytest.fixture
def known() -> np.ndarray:
    known = np.ones((64, 96), bool)
    known[16:48, 20:70] = False
    return known


def test_a_cast_is_taken_out_and_known_pixels_stay(known: np.ndarray) -> None:
    ramp = np.linspace(-0.5, 0.5, 96, dtype=np.float32)
    image = np.repeat(np.tile(ramp, (64, 1))[:, :, None], 3, axis=2)
    filling = image + np.float32([0.3, -0.2, 0.1])
    result = close_seams(filling, image, known)
    np.testing.assert_array_equal(result[known], image[known])
    np.testing.assert_allclose(result, image, atol=0.02)


def test_neither_is_read_where_the_other_counts(known: np.ndarray) -> None:
    image, filling = np.zeros((64, 96, 3), np.float32), np.ones((64, 96, 3), np.float32)
    expected = close_seams(filling, image, known)
    image[~known] = np.nan
    filling[known] = np.nan
    np.testing.assert_array_equal(close_seams(filling, image, known), expected)


def test_a_step_at_one_side_fades_into_the_hole(known: np.ndarray) -> None:
    image = np.zeros((64, 96, 3), np.float32)
    image[:, :20] = 1.0
    result = close_seams(np.zeros_like(image), image, known)[32, 20:70, 0]
    assert result[0] > 0.8
    assert abs(result[-1]) < 0.05
    assert (np.diff(result) < 0.02).all(), "it only falls"


def test_texture_that_meets_its_like_is_left_alone(known: np.ndarray) -> None:
    image = np.random.default_rng(0).normal(0, 0.2, (64, 96, 3)).astype(np.float32)
    result = close_seams(image, image, known)
    middle = (slice(24, 40), slice(30, 60))
    assert np.abs(result - image)[middle].mean() < 0.04
    assert np.abs(result - image).max() < 0.5, "pixels at the rim are averaged"


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_nothing_or_everything_known(fill: float) -> None:
    image, filling = np.zeros((9, 7, 3), np.float32), np.ones((9, 7, 3), np.float32)
    mask = np.full((9, 7), bool(fill))
    np.testing.assert_array_equal(close_seams(filling, image, mask), image if fill else filling)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 9), (33, 65)])
def test_spreading_keeps_a_constant(size: tuple[int, int]) -> None:
    weights = np.zeros(size, np.float32)
    weights[0, 0] = 1
    values = np.full((*size, 3), 0.25, np.float32)
    np.testing.assert_allclose(spread(values, weights), 0.25, atol=1e-4)
