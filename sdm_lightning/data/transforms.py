"""Crop, pad and flip on uint8 arrays, and the one conversion between arrays and tensors.

Nothing is resized: images are padded where they are too small, then cropped. Everything here
works on ``(H, W, 3)`` images and, except for the two conversions, on ``(H, W)`` masks too.
Randomness comes only from the ``numpy.random.Generator`` that the caller passes.

Source: paper Sec. 4.1 (random flip, crop and padding for training, central crop for testing).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.errors import InputError


def random_crop(image: UInt8Array, size: int, rng: np.random.Generator) -> UInt8Array:
    """Cut a square at a uniformly random place.

    Args:
        image: ``(H, W, 3)`` or ``(H, W)``, at least ``size`` on both sides.
        size: Side of the crop in pixels.
        rng: Source of the two offsets, which are always drawn, so that the number of draws does
            not depend on the image.

    Returns:
        A contiguous copy ``(size, size, 3)`` or ``(size, size)``.
    """
    top = int(rng.integers(0, image.shape[0] - size + 1))
    left = int(rng.integers(0, image.shape[1] - size + 1))
    return image[top : top + size, left : left + size].copy()


def center_crop(image: UInt8Array, size: int) -> UInt8Array:
    """Cut the central square, at offset ``floor((H - size) / 2)`` and the same for the width.

    Args:
        image: ``(H, W, 3)`` or ``(H, W)``, at least ``size`` on both sides.
        size: Side of the crop in pixels.

    Returns:
        A contiguous copy ``(size, size, 3)`` or ``(size, size)``.
    """
    top = (image.shape[0] - size) // 2
    left = (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size].copy()


def pad_to(image: UInt8Array, size: int) -> UInt8Array:
    """Grow an image to at least ``size`` on both sides by mirroring at the bottom and the right.

    The mirror repeats the edge pixel (numpy ``symmetric``, OpenCV ``BORDER_REFLECT``; torch's
    ``reflect`` does not) and goes back and forth where the padding is larger than the image.

    Args:
        image: ``(H, W, 3)`` or ``(H, W)``.
        size: The least height and width in pixels.

    Returns:
        ``image`` itself if it is large enough, else an array with
        ``max(H, size)`` rows and ``max(W, size)`` columns.
    """
    height, width = image.shape[:2]
    bottom, right = max(size - height, 0), max(size - width, 0)
    if bottom == 0 and right == 0:
        return image
    widths = [(0, bottom), (0, right)] + [(0, 0)] * (image.ndim - 2)
    return np.pad(image, widths, mode="symmetric")


def padded_center_crop(image: UInt8Array, size: int) -> UInt8Array:
    """Cut the central square, after smaller images are mirrored up to it: the test's crop."""
    return center_crop(pad_to(image, size), size)


def padding_share(shape: tuple[int, ...], size: int) -> float:
    """Return the share in [0, 1) of ``padded_center_crop`` of ``(H, W, ...)`` that is mirrored."""
    return 1 - min(shape[0], size) * min(shape[1], size) / size**2


def random_flip(image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Mirror left to right with probability one half.

    Args:
        image: ``(H, W, 3)`` or ``(H, W)``.
        rng: Source of the one draw.

    Returns:
        The image, or a view of it that runs the other way; to copy such a view takes longer than
        all that ``to_tensor`` does with it.
    """
    return image[:, ::-1] if rng.random() < 0.5 else image


def to_tensor(image: UInt8Array) -> Tensor:
    """Turn a uint8 image into the tensor that the networks take.

    Args:
        image: ``(H, W, 3)``, uint8.

    Returns:
        float32 ``(3, H, W)`` in [-1, 1], ``x / 127.5 - 1``.

    Raises:
        InputError: If the array is not uint8 or not ``(H, W, 3)``.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"to_tensor: expected a uint8 array (H, W, 3), got {image.dtype} {tuple(image.shape)}"
        )
    values = image.transpose(2, 0, 1).astype(np.float32, order="C")
    values /= 127.5
    values -= 1.0
    return torch.from_numpy(values)


def to_array(image: Tensor) -> UInt8Array:
    """Turn network-range images back into uint8; the exact inverse of ``to_tensor``.

    Rounds, because truncation loses one level for a quarter of the 256 values.

    Args:
        image: ``(3, H, W)`` or ``(B, 3, H, W)`` of any floating type and device; values outside
            [-1, 1] are clamped.

    Returns:
        uint8 ``(H, W, 3)`` or ``(B, H, W, 3)``.

    Raises:
        InputError: If the third axis from the end does not have three channels.
    """
    if image.ndim not in (3, 4) or image.shape[-3] != 3:
        raise InputError(
            f"to_array: expected a tensor (3, H, W) or (B, 3, H, W), got {tuple(image.shape)}"
        )
    levels = image.detach().to("cpu", torch.float32).mul(127.5).add(127.5)
    levels = levels.round_().clamp_(0.0, 255.0).to(torch.uint8)
    return np.ascontiguousarray(levels.movedim(-3, -1).numpy())
