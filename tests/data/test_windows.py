"""Windows of photos and changes of their colours."""

from __future__ import annotations

import numpy as np

from sdm_lightning.data.windows import fixed_window, random_window, recoloured, resized, tinted
from tests.data.shard_tools import photo


def test_first_window_is_the_whole_photo_averaged_down():
    pixels = photo(0, 512, 512)
    window = fixed_window(pixels, 64, 0)
    assert window.shape == (512, 512, 3)
    means = pixels.reshape(64, 8, 64, 8, 3).mean((1, 3))
    assert np.abs(resized(window, 64) - means).max() <= 0.51


def test_fixed_windows_stay_inside_and_cover_the_scales():
    pixels = photo(0, 400, 600)
    sides = []
    for turn in range(60):
        window = fixed_window(pixels, 64, turn)
        assert window.shape[0] == window.shape[1]
        sides.append(len(window))
    assert max(sides) == 400
    assert 100 <= min(sides) < 110
    # Evenly spread over the logarithm of the scale: as many above the geometric mean as below.
    assert 25 <= sum(side > 200 for side in sides) <= 35


def test_random_windows_fit_any_photo():
    rng = np.random.default_rng(0)
    for shape in [(300, 451), (70, 900), (20, 20), (500, 33)]:
        pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
        for _ in range(50):
            assert random_window(pixels, 40, rng).shape == (40, 40, 3)


def test_colour_changes_keep_the_order_of_levels():
    rng = np.random.default_rng(0)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for _ in range(50):
        for out in (tinted(ramp, rng), recoloured(ramp, rng)):
            assert out.dtype == np.uint8
            assert out.shape == ramp.shape
            assert (np.diff(out.astype(int), axis=1) >= 0).all()
            assert out[0, 250].min() > 100  # nothing goes dark


def test_recolouring_permutes_the_channels_of_one_in_eight():
    rng = np.random.default_rng(0)
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 250
    moved = sum(int(recoloured(red, rng).argmax()) != 0 for _ in range(2000))
    # two of three permutations move the first channel
    assert abs(moved - 2000 / 12) < 4 * np.sqrt(2000 / 12 * 11 / 12)
