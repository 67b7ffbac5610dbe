import numpy as np

from sdm_lightning.inference.detail import add_detail
from sdm_lightning.inference.regions import enlarge, shrink


def two_textures() -> tuple[np.ndarray, np.ndarray]:
    """Dark with fine stripes on the left, bright and smooth on the right; a hole in both."""
    image = np.full((160, 320, 3), 0.5, np.float32)
    image[:, :160] = -0.5
    image[:, 0:160:2] += 0.3
    known = np.ones((160, 320), bool)
    known[60:100, 100:220] = False
    return image, known


def test_each_part_takes_the_detail_of_its_like() -> None:
    image, known = two_textures()
    small, _ = shrink(image, np.ones_like(known), 40)  # a network that guesses right
    filling = enlarge(small, 160, 320)
    result = add_detail(small, np.where(known[:, :, None], image, np.nan), known)
    striped, smooth = (slice(64, 96), slice(108, 148)), (slice(64, 96), slice(176, 212))
    assert filling[striped][:, :, 0].std(axis=1).mean() < 0.02
    steps = np.abs(np.diff(result[striped][:, :, 0], axis=1))
    assert abs(np.median(steps) - 0.3) < 0.03, "the stripes go on in step"
    assert result[smooth].std() < 0.02


def test_the_same_every_time_and_nothing_without_a_source() -> None:
    image, known = two_textures()
    small, _ = shrink(image, known, 40)
    filling = enlarge(small, 160, 320)
    first, second = (add_detail(small, image, known) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    nothing = np.zeros_like(known)
    np.testing.assert_array_equal(add_detail(small, image, nothing), filling)
