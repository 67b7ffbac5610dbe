"""The two families of free-form masks: what a preset is made of, and how it is drawn.

Both are written from their published parameters: ``RectanglesAndStrokes`` after CoModGAN and
MAT, ``StrokesOrBoxes`` after LaMa. Every coordinate is rounded to an integer before anything
is drawn, so that a mask does not depend on the last bit of a cosine.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import cv2
import numpy as np

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.errors import InputError

_HOLE = 0


@dataclass(frozen=True, kw_only=True)
class MaskPreset(ABC):
    """What every family of masks has in common.

    Attributes:
        size: Nominal side in pixels; lengths given in pixels hold at this size.
        variants: The same setting published for other nominal sizes; the one nearest to the
            requested size (in ratio) is drawn.
    """

    size: int
    variants: tuple[MaskPreset, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"mask preset: size must be at least 1, got {self.size}")

    def for_size(self, size: int) -> MaskPreset:
        """Return this preset or the variant of it whose nominal size is nearest in ratio."""
        return min((self, *self.variants), key=lambda p: abs(math.log(p.size / size)))

    @abstractmethod
    def draw(self, canvas: UInt8Array, scale: float, rng: np.random.Generator) -> None:
        """Draw the holes of one mask as zeros.

        Args:
            canvas: ``(S, S)`` of ones, drawn on in place.
            scale: Factor on every length that the preset gives in pixels.
            rng: Source of all randomness.
        """


@dataclass(frozen=True, kw_only=True)
class RectanglesAndStrokes(MaskPreset):
    """The CoModGAN and MAT family: rectangles and brush strokes over each other.

    Each count is uniform on ``0 .. n - 1``. Rectangle sides are uniform from 0 to half the mask
    side (``small_rectangles``) or the whole side (``large_rectangles``); a rectangle may hang over
    the edge by half its side. A brush stroke starts anywhere and zigzags: its headings alternate
    around +-``mean_angle``, its segments are normal around an eighth of the diagonal (standard
    deviation one sixteenth, clipped to [0, a quarter]), its joints stay inside the mask. All
    strokes are mirrored together at random, horizontally and vertically.

    Attributes:
        small_rectangles: Exclusive bound on the number of rectangles up to half the side.
        large_rectangles: Exclusive bound on the number of rectangles up to the whole side.
        strokes: Exclusive bound on the number of brush strokes.
        joints: Least (inclusive) and greatest (exclusive) number of segments of a stroke.
        widths: Least (inclusive) and greatest (exclusive) stroke width, in pixels.
        mean_angle: Mean heading in radians.
        angle_spread: How far the headings of one stroke may reach from the mean, in radians.
    """

    small_rectangles: int
    large_rectangles: int
    strokes: int
    joints: tuple[int, int] = (4, 18)
    widths: tuple[int, int] = (12, 48)
    mean_angle: float = 2 * math.pi / 5
    angle_spread: float = 2 * math.pi / 15

    def draw(self, canvas: UInt8Array, scale: float, rng: np.random.Generator) -> None:
        """Draw the holes of one mask; see ``MaskPreset.draw``."""
        side = canvas.shape[0]
        for bound, longest in (
            (self.small_rectangles, side // 2),
            (self.large_rectangles, side),
        ):
            for _ in range(_below(rng, bound)):
                self._rectangle(canvas, longest, rng)
        paths = [self._stroke(side, rng) for _ in range(_below(rng, self.strokes))]
        mirror_x, mirror_y = rng.random(2) < 0.5
        widths = rng.random(len(paths)).tolist()
        if not paths:
            return
        points = np.array([point for path in paths for point in path])
        if mirror_x:
            points[:, 0] = side - points[:, 0]
        if mirror_y:
            points[:, 1] = side - points[:, 1]
        points = np.rint(points).astype(np.int32)
        low, high = self.widths
        first = 0
        for path, u in zip(paths, widths, strict=True):
            # OpenCV's thick lines include both edges and so are one pixel wider than requested.
            width = (low + int(u * (high - low))) * scale - 1
            stroke = points[first : first + len(path)]
            cv2.polylines(canvas, [stroke], False, _HOLE, max(1, round(width)))
            first += len(path)

    @staticmethod
    def _rectangle(canvas: UInt8Array, longest: int, rng: np.random.Generator) -> None:
        side = canvas.shape[0]
        u = rng.random(4)
        width, height = int(u[0] * longest), int(u[1] * longest)
        # Uniform from "left half outside" to "right half outside".
        left = -(width // 2) + int(u[2] * (side - width + 2 * (width // 2)))
        top = -(height // 2) + int(u[3] * (side - height + 2 * (height // 2)))
        canvas[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = _HOLE

    def _stroke(self, side: int, rng: np.random.Generator) -> list[tuple[float, float]]:
        # Plain numbers: for about ten joints, each call of NumPy costs more than its arithmetic.
        low, high = self.joints
        count = low + _below(rng, high - low)
        u = rng.random(4 + count).tolist()
        least = self.mean_angle - u[0] * self.angle_spread
        most = self.mean_angle + u[1] * self.angle_spread
        radius = math.sqrt(2) * side / 8
        x, y = u[2] * side, u[3] * side
        path = [(x, y)]
        heading = -1  # alternate headings make the zigzag
        for share, normal in zip(u[4:], rng.standard_normal(count).tolist(), strict=True):
            angle = heading * (least + share * (most - least))
            length = _clip(radius + radius / 2 * normal, 2 * radius)
            x = _clip(x + length * math.cos(angle), side)
            y = _clip(y + length * math.sin(angle), side)
            path.append((x, y))
            heading = -heading
        return path


@dataclass(frozen=True, kw_only=True)
class StrokesOrBoxes(MaskPreset):
    """The LaMa family: a bundle of straight strokes, or a few boxes, never both.

    A stroke has 1 to 5 segments, each with its own width; the heading of a segment is one of
    ``0, 1, .., num_angles - 1`` radians, negated for every other stroke.

    Attributes:
        box_weight: Weight of boxes against strokes, which weigh 1.
        strokes: Least and greatest number of strokes, inclusive.
        max_length: Segments are ``10 .. 10 + max_length - 1`` pixels long.
        max_width: Segments are ``5 .. 5 + max_width - 1`` pixels wide.
        num_angles: Number of headings.
        boxes: Least and greatest number of boxes, inclusive.
        box_sides: Least and greatest side of a box, in pixels, inclusive.
        box_margin: Distance that boxes keep from the edge, in pixels.
    """

    box_weight: float
    strokes: tuple[int, int]
    max_length: int
    max_width: int
    num_angles: int = 4
    boxes: tuple[int, int] = (1, 3)
    box_sides: tuple[int, int] = (30, 150)
    box_margin: int = 10

    def draw(self, canvas: UInt8Array, scale: float, rng: np.random.Generator) -> None:
        """Draw the holes of one mask; see ``MaskPreset.draw``."""
        if rng.random() * (1.0 + self.box_weight) < 1.0:
            self._strokes(canvas, scale, rng)
        else:
            self._boxes(canvas, scale, rng)

    def _strokes(self, canvas: UInt8Array, scale: float, rng: np.random.Generator) -> None:
        side = canvas.shape[0]
        low, high = self.strokes
        count = low + _below(rng, high - low + 1)
        start = (rng.random((count, 2)) * side).astype(int).tolist()
        segments = (1 + rng.random(count) * 5).astype(int).tolist()
        u = rng.random((count, 5, 3))
        angles = np.floor(u[..., 0] * self.num_angles) + 0.01
        angles[0::2] *= -1  # every other stroke runs the other way
        lengths = (10 + np.floor(u[..., 1] * self.max_length)) * scale
        steps = np.stack([lengths * np.sin(angles), lengths * np.cos(angles)], -1).tolist()
        widths = (5 + np.floor(u[..., 2] * self.max_width)) * scale
        thickness = np.maximum(np.rint(widths), 1).astype(int).tolist()
        for stroke, (x, y) in enumerate(start):
            for segment in range(segments[stroke]):
                dx, dy = steps[stroke][segment]
                end_x = min(max(int(x + dx), 0), side)
                end_y = min(max(int(y + dy), 0), side)
                cv2.line(canvas, (x, y), (end_x, end_y), _HOLE, thickness[stroke][segment])
                x, y = end_x, end_y

    def _boxes(self, canvas: UInt8Array, scale: float, rng: np.random.Generator) -> None:
        side = canvas.shape[0]
        margin = min(round(self.box_margin * scale), (side - 1) // 2)
        longest = min(round((self.box_sides[1] + 1) * scale), side - 2 * margin)
        shortest = min(round(self.box_sides[0] * scale), longest - 1)
        low, high = self.boxes
        for _ in range(low + _below(rng, high - low + 1)):
            u = rng.random(4)
            width = shortest + int(u[0] * (longest - shortest))
            height = shortest + int(u[1] * (longest - shortest))
            left = margin + int(u[2] * (side - 2 * margin - width + 1))
            top = margin + int(u[3] * (side - 2 * margin - height + 1))
            canvas[top : top + height, left : left + width] = _HOLE


def _clip(value: float, most: float) -> float:
    """Return the nearest number in ``0 .. most``; the builtin functions cost three times that."""
    return 0.0 if value < 0 else most if value > most else value


def _below(rng: np.random.Generator, bound: int) -> int:
    """Return a uniform integer in ``0 .. bound - 1``, 0 where the bound is below 1."""
    return int(rng.random() * bound)
