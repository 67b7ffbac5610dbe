"""Windows cut out of photos at any scale, and changes of their colours.

For the training images of the demo and of fine-tuning. What is random comes from the generator that
is passed; windows are averaged down by area, so that no detail aliases.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from sdm_lightning.arrays import UInt8Array


def random_window(photo: UInt8Array, side: int, rng: np.random.Generator) -> UInt8Array:
    """Cut a window of random scale and aspect ratio and average it down to ``(side, side, 3)``."""
    height, width = photo.shape[:2]
    longest = min(height, width)
    window = side * (longest / side) ** rng.random() if longest > side else float(longest)
    stretch = 1.25 ** (rng.uniform(-1, 1) / 2)
    window_h = min(max(round(window * stretch), min(side, height)), height)
    window_w = min(max(round(window / stretch), min(side, width)), width)
    top = int(rng.integers(0, height - window_h + 1))
    left = int(rng.integers(0, width - window_w + 1))
    return resized(photo[top : top + window_h, left : left + window_w], side)


def reduce_to_shorter_side(photo: UInt8Array, shorter: int) -> UInt8Array:
    """Average a photo down so that its shorter side has ``shorter`` pixels; never enlarge it."""
    height, width = photo.shape[:2]
    factor = shorter / min(height, width)
    if factor >= 1:
        return photo
    size = (round(width * factor), round(height * factor))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)


def resized(window: UInt8Array, side: int) -> UInt8Array:
    """Resample a window to ``(side, side, 3)``: by area downwards, bicubic upwards."""
    shrinks = min(window.shape[:2]) >= side
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    pixels = cv2.resize(np.ascontiguousarray(window), (side, side), interpolation=interpolation)
    return np.asarray(pixels, np.uint8)


def is_grey(image: UInt8Array) -> bool:
    """Tell whether the three channels are equal everywhere."""
    return bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())


def tinted(image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Give a grey image the colours of one material: a curve of its own for each channel."""
    levels = np.linspace(0.0, 1.0, 256)[:, None]
    curves = levels ** rng.uniform(0.75, 1.35, 3) * rng.uniform(0.75, 1.0, 3)
    return _apply(image, curves)


def recoloured(image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Change brightness, contrast and colour balance; permute the channels of one in eight."""
    gamma = math.exp(rng.uniform(-0.35, 0.35)) * np.exp(rng.normal(0.0, 0.08, 3))
    contrast = rng.uniform(0.8, 1.15)
    levels = (np.linspace(0.0, 1.0, 256)[:, None] - 0.5) * contrast + 0.5
    order = rng.permutation(3) if rng.random() < 1 / 8 else np.arange(3)
    return _apply(image[..., order], np.clip(levels, 0.0, 1.0) ** gamma)


def _apply(image: UInt8Array, curves: npt.NDArray[np.float64]) -> UInt8Array:
    """Map each channel through its curve ``(256, 3)`` of values in [0, 1]."""
    table = np.rint(np.clip(curves, 0.0, 1.0) * 255).astype(np.uint8)
    return np.stack([cv2.LUT(image[..., c], table[:, c]) for c in range(3)], axis=-1)


def fixed_window(photo: UInt8Array, side: int, turn: int, least: float = 0.25) -> UInt8Array:
    """Cut the ``turn``-th square window of a photo, the same one every time.

    Args:
        photo: uint8 ``(H, W, 3)``.
        side: The least side of a window in pixels, unless the photo itself is smaller.
        turn: 0 is the central square of the whole shorter side; the others cover scales and
            places evenly.
        least: Side of the smallest window as a share of the shorter side.

    Returns:
        uint8 ``(S, S, 3)``, not resampled.
    """
    height, width = photo.shape[:2]
    longest = min(height, width)
    # Multiples of irrational numbers cover the unit cube evenly without a random number.
    shrink, down, right = np.modf(turn * np.array([0.8191725, 0.6710436, 0.5497005]))[0]
    smallest = max(longest * least, min(side, longest))
    window = round(longest * (smallest / longest) ** shrink)
    top = round(((down + 0.5) % 1.0) * (height - window))
    left = round(((right + 0.5) % 1.0) * (width - window))
    return photo[top : top + window, left : left + window]
