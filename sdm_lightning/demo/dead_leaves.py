"""Dead leaves: images of occluding shapes with the statistics of natural photos.

Shapes whose radii follow a power law, laid over each other until nothing is left bare, have the
scale invariance, the sharp edges and the occlusions of natural images. Each shape here is filled
with a piece of a real photo at a random scale, so that colours and textures are natural too. It
makes an endless supply of training images out of a dozen photos.

Source: A. B. Lee, D. Mumford, J. Huang, "Occlusion models for natural images", IJCV 2001.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.errors import InputError

_SUPERSAMPLING = 2
# A leaf a few pixels wide that showed a whole photo would be a speck of noise.
_MAX_REDUCTION = 5.0
_RADII = (1 / 20, 2 / 3)  # least and greatest, as a share of the image's side
# Share of the leaves that are faded towards their mean colour, as smooth surfaces are in photos.
_FLATNESS = 0.5


def dead_leaves_image(
    size: int,
    textures: Sequence[UInt8Array],
    rng: np.random.Generator,
    *,
    num_leaves: int = 60,
    exponent: float = 3.0,
) -> UInt8Array:
    """Draw one dead-leaves image.

    Args:
        size: Side in pixels.
        textures: Photos ``(H, W, 3)``, uint8, of any sizes; one image takes its pieces from at
            most three of them, so that its colours belong together.
        rng: Source of all randomness.
        num_leaves: Number of shapes, drawn back to front over a first piece that fills the
            image.
        exponent: Radii have density ``r ** -exponent``, above 1; 3 is the scale-invariant one.

    Returns:
        uint8 ``(size, size, 3)``; edges are antialiased.

    Raises:
        InputError: If there are no textures.
    """
    if not textures:
        raise InputError("dead_leaves_image: textures is empty, pass at least one photo")
    # Shapes are drawn hard on a larger canvas and averaged down, which antialiases their edges.
    side = size * _SUPERSAMPLING
    chosen = [textures[int(i)] for i in rng.integers(0, len(textures), size=3)]
    canvas = _piece(chosen[0], side, side, rng, flat=False)
    low, high = (r * side for r in _RADII)
    for _ in range(num_leaves):
        radius = _power_law(rng.random(), low, high, exponent)
        centre = rng.random(2) * (side + radius) - radius / 2
        outline = _outline(radius, centre, rng)
        left, top, width, height = cv2.boundingRect(outline)
        right, bottom = min(left + width, side), min(top + height, side)
        left, top = max(left, 0), max(top, 0)
        if right <= left or bottom <= top:
            continue
        inside = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(inside, [outline - np.array([left, top], np.int32)], 1)
        texture = chosen[int(rng.integers(len(chosen)))]
        fill = _piece(texture, bottom - top, right - left, rng, flat=rng.random() < _FLATNESS)
        np.copyto(canvas[top:bottom, left:right], fill, where=inside[..., None].astype(bool))
    return np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def _power_law(u: float, low: float, high: float, exponent: float) -> float:
    """Map a uniform number to the density ``r ** -exponent`` on ``[low, high]``."""
    power = 1.0 - exponent
    return float((low**power + u * (high**power - low**power)) ** (1.0 / power))


def _outline(
    radius: float, centre: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """Return the corners ``(N, 1, 2)`` of a disc (stretched) or a polygon (3 to 6 corners)."""
    disc = rng.random() < 0.5
    count = 24 if disc else int(rng.integers(3, 7))
    angles = np.arange(count) * (2 * math.pi / count)
    lengths = np.full(count, radius)
    if not disc:
        angles = angles + rng.uniform(-0.35, 0.35, count) * (2 * math.pi / count)
        lengths = lengths * rng.uniform(0.7, 1.3, count)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None]
    points[:, 1] *= rng.uniform(0.35, 1.0)
    turn = rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(turn), math.sin(turn)
    points = points @ np.array([[cos, sin], [-sin, cos]]) + centre
    return np.rint(points).astype(np.int32)[:, None, :]


def _piece(
    photo: UInt8Array, height: int, width: int, rng: np.random.Generator, *, flat: bool
) -> UInt8Array:
    """Cut a random window out of a photo, at a random scale, and resample it to a size."""
    rows, columns = photo.shape[:2]
    # Never a smaller window than the piece: magnified photos are blurred.
    longest = min(rows / height, columns / width, _MAX_REDUCTION)
    scale = longest ** rng.random() if longest > 1 else longest
    window_h = max(1, min(rows, round(height * scale)))
    window_w = max(1, min(columns, round(width * scale)))
    top = int(rng.integers(0, rows - window_h + 1))
    left = int(rng.integers(0, columns - window_w + 1))
    window = photo[top : top + window_h, left : left + window_w]
    piece = cv2.resize(
        np.ascontiguousarray(window),
        (width, height),
        interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR,
    )
    contrast = rng.uniform(0.0, 0.4) if flat else 1.0
    shade = rng.uniform(0.75, 1.25)
    mean = cv2.mean(piece)[:3]
    offset = np.asarray(mean, np.float32) * np.float32(shade * (1.0 - contrast))
    levels = piece * np.float32(contrast * shade) + offset
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)
