"""Damage as people meet it, for the demo's whole photos: scratches, lettering, things, a corner."""

import cv2
import numpy as np

from sdm_lightning.arrays import UInt8Array

DAMAGE = {
    "astronaut": "an old print's scratches and dust",
    "chelsea": "lettering over the picture",
    "coffee": "a spoon to be removed",
    "flower": "a large piece torn out",
}
"""Photo -> what is wrong with it, in words."""


def photo_mask(name: str, height: int, width: int) -> UInt8Array:
    """Draw a mask for one of the held-out photos, the same every time.

    Args:
        name: Name of the photo.
        height: Height of the photo.
        width: Width of the photo.

    Returns:
        ``(height, width)``, 255 = known, 0 = hole.
    """
    mask = np.full((height, width), 255, np.uint8)
    unit = min(height, width)
    if name == "astronaut":
        _scratches(mask, unit)
    elif name == "chelsea":
        _lettering(mask, unit)
    elif name == "coffee":
        _spoon(mask, width / 600)
    else:
        _torn(mask, unit)
    # Lettering is drawn with soft edges.
    return np.where(mask >= 128, np.uint8(255), np.uint8(0))


def _scratches(mask: UInt8Array, unit: int) -> None:
    height, width = mask.shape
    rng = np.random.default_rng(7)
    for _ in range(14):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        angle = rng.normal(np.pi / 2, 0.35)
        points = [(x, y)]
        for _ in range(int(rng.integers(4, 12))):
            angle += rng.normal(0, 0.12)
            x, y = x + 0.07 * unit * np.cos(angle), y + 0.07 * unit * np.sin(angle)
            points.append((x, y))
        line = np.rint(points).astype(np.int32)[:, None]
        cv2.polylines(mask, [line], False, 0, max(1, round(unit * rng.uniform(0.003, 0.009))))
    for _ in range(40):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.circle(mask, centre, max(1, round(unit * rng.uniform(0.003, 0.011))), 0, -1)


def _lettering(mask: UInt8Array, unit: int) -> None:
    height, width = mask.shape
    font, scale, thick = cv2.FONT_HERSHEY_SIMPLEX, unit / 170, max(2, round(unit / 55))
    for row in range(1, 4):
        place = (round(width * (0.04 + 0.05 * (row % 2))), round(height * row / 3.6))
        cv2.putText(mask, "SAMPLE  SAMPLE", place, font, scale, 0, thick)


def _spoon(mask: UInt8Array, scale: float) -> None:
    def at(x: int, y: int) -> tuple[int, int]:
        return round(x * scale), round(y * scale)

    cv2.ellipse(mask, at(366, 284), at(48, 50), 0, 0, 360, 0, -1)
    handle = np.array([at(375, 245), at(392, 205), at(403, 150), at(414, 78)], np.int32)
    cv2.polylines(mask, [handle[:, None]], False, 0, round(28 * scale))


def _torn(mask: UInt8Array, unit: int) -> None:
    height, width = mask.shape
    rng = np.random.default_rng(5)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = 0.24 * unit * (1 + 0.08 * rng.standard_normal(40))
    points = np.stack(
        [0.62 * width + radius * np.cos(angles), 0.42 * height + radius * np.sin(angles)], axis=1
    )
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)[:, None]], 0)
