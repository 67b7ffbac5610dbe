"""Joining a filling to its surroundings without a visible edge; only hole pixels change."""

import cv2
import numpy as np

from sdm_lightning.arrays import BoolArray, FloatArray

DAMPING = 0.5
"""Weight of each coarser level of the interpolation relative to the finer one."""
SIGMA = 1.0
"""Standard deviation, in pixels, of the averages along the rim."""


def close_seams(filling: FloatArray, image: FloatArray, known: BoolArray) -> FloatArray:
    """Add a smooth offset by which the filling meets the known pixels around it.

    At the hole's rim the offset is the difference between the known pixels just outside and the
    filled ones just inside, both averaged over about a pixel; from there it is interpolated into
    the hole. That is the membrane of gradient-domain cloning with the gradient across the seam set
    to zero, computed on an image pyramid, so in time linear in the pixels.

    Args:
        filling: ``(H, W, 3)``, read where ``known`` is False.
        image: ``(H, W, 3)``, read where ``known`` is True.
        known: ``(H, W)``.

    Returns:
        ``(H, W, 3)``, the image where known.

    Source:
        Farbman et al. 2011, "Convolution Pyramids": membranes by normalised pyramid filters.
    """
    if known.all() or not known.any():
        return np.where(known[:, :, None], image, filling)
    # Only the hole and what is averaged around it take part.
    margin = round(4 * SIGMA) + 2
    (rows, columns) = (np.flatnonzero(~known.all(axis=axis)) for axis in (1, 0))
    tight = tuple(
        slice(max(int(found[0]) - margin, 0), int(found[-1]) + 1 + margin)
        for found in (rows, columns)
    )
    result = np.where(known[:, :, None], image, filling)
    result[tight] = _joined(filling[tight], image[tight], known[tight])
    return np.asarray(result, np.float32)


def _joined(filling: FloatArray, image: FloatArray, known: BoolArray) -> FloatArray:
    hole = ~known
    near = np.ones((3, 3), np.uint8)
    inside = (hole & cv2.dilate(known.astype(np.uint8), near).astype(bool)).astype(np.float32)
    outside = (known & cv2.dilate(hole.astype(np.uint8), near).astype(bool)).astype(np.float32)
    step = _average(image, outside) - _average(filling, inside)
    offset = spread(step, inside)
    return np.where(known[:, :, None], image, filling + offset).astype(np.float32)


def spread(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Interpolate values that are given at some pixels to all pixels, smoothly.

    Args:
        values: ``(H, W, C)``.
        weights: ``(H, W)``, 0 where no value is given.

    Returns:
        ``(H, W, C)``; close to a given value near its pixel, an average of many far from all.
    """
    levels = [(values * weights[:, :, None], weights)]
    while max(levels[-1][1].shape) > 2:
        total, weight = levels[-1]
        levels.append((_halved(total), _halved(weight)))
    total, weight = levels.pop()
    for finer_total, finer_weight in reversed(levels):
        size = (finer_weight.shape[1], finer_weight.shape[0])
        total = finer_total + DAMPING * _doubled(total, size)
        weight = finer_weight + DAMPING * _doubled(weight, size)
    return np.asarray(total / np.maximum(weight, 1e-12)[:, :, None], np.float32)


def _average(values: FloatArray, weights: FloatArray) -> FloatArray:
    chosen = np.where(weights[:, :, None] > 0, values, np.float32(0))
    total = cv2.GaussianBlur(chosen, (0, 0), SIGMA)
    weight = cv2.GaussianBlur(weights, (0, 0), SIGMA)
    return np.asarray(total / np.maximum(weight, 1e-6)[:, :, None], np.float32)


def _halved(values: FloatArray) -> FloatArray:
    return np.asarray(cv2.pyrDown(values), np.float32)


def _doubled(values: FloatArray, size: tuple[int, int]) -> FloatArray:
    return np.asarray(cv2.pyrUp(values, dstsize=size), np.float32)
