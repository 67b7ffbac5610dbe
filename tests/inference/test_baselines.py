import numpy as np
import pytest

from sdm_lightning.inference import BASELINES, mean_fill

RNG = np.random.default_rng(0)


def test_mean_fill_is_the_mean_of_known_pixels() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[0] = [10, 20, 30]
    image[1] = [20, 40, 61]
    image[2:] = 255
    known = np.ones((4, 4), bool)
    known[2:] = False
    np.testing.assert_array_equal(mean_fill(image, known)[3, 3], [15, 30, 46])
    np.testing.assert_array_equal(mean_fill(image, np.zeros((4, 4), bool))[0, 0], [128] * 3)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_fill_the_hole_from_the_known_alone(name: str) -> None:
    image = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    known = np.ones((24, 32), bool)
    known[6:18, 8:20] = False
    other = image.copy()
    other[~known] = 255 - other[~known]
    result = BASELINES[name](image, known)
    np.testing.assert_array_equal(result[known], image[known])
    np.testing.assert_array_equal(result[~known], BASELINES[name](other, known)[~known])
    flat = np.full_like(image, 77)
    # OpenCV's Telea strays by two levels even here.
    np.testing.assert_allclose(BASELINES[name](flat, known), flat, atol=2)
    assert BASELINES[name](image, np.zeros_like(known)).shape == image.shape
