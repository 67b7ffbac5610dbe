"""Free-form masks: rectangles, boxes and brush strokes, drawn from a seed.

A mask is ``uint8 (size, size)``, **1 = known, 0 = hole**. Two families are built in, both
written from their published parameters:

* :class:`RectanglesAndStrokes` - the generator of CoModGAN and MAT, in which many rectangles and
  zigzag brush strokes lie over each other;
* :class:`StrokesOrBoxes` - the generator of LaMa, in which a mask is either a bundle of straight
  strokes or a few boxes.

Both families give some lengths in pixels, so the share of an image that a preset removes would
depend on its size. Here a preset has a *nominal* size, and a mask of another size is the same
drawing scaled, with the same statistics; ``scale_lengths=False`` keeps the published pixel
lengths instead.

Every random number is a function of ``(preset, seed)`` through PCG64, whose stream is the same on
every platform, and every coordinate is rounded to an integer before anything is drawn.

Source: the paper trains and tests on "rectangles and brush strokes" (Sec. 4.1); its own mask
parameters are not given.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from sdm_lightning.errors import InputError

__all__ = [
    "MASK_PRESETS",
    "MaskPreset",
    "RectanglesAndStrokes",
    "StrokesOrBoxes",
    "check_mask",
    "free_form_mask",
    "get_preset",
    "hole_ratio",
]

UInt8Array = npt.NDArray[np.uint8]

_HOLE = 0
_MAX_DRAWS = 10_000


@dataclass(frozen=True, kw_only=True)
class MaskPreset(ABC):
    """What every family of masks has in common.

    Attributes:
        size: nominal side in pixels; lengths given in pixels hold at this size.
        hole_range: a mask is drawn again unless its hole ratio lies strictly between these two.
        variants: the same setting published for other nominal sizes; the one nearest to the
            requested size (in ratio) is drawn.
    """

    size: int
    hole_range: tuple[float, float] = (0.0, 1.0)
    variants: tuple[MaskPreset, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        low, high = self.hole_range
        if self.size < 1:
            raise InputError(f"mask preset: size must be at least 1, got {self.size}")
        if not 0.0 <= low < high <= 1.0:
            raise InputError(
                f"mask preset: hole_range must satisfy 0 <= low < high <= 1, got {self.hole_range}"
            )

    def for_size(self, size: int) -> MaskPreset:
        """Return this preset or the variant of it whose nominal size is nearest in ratio."""
        return min((self, *self.variants), key=lambda p: abs(math.log(p.size / size)))

    @abstractmethod
    def draw(self, canvas: UInt8Array, scale: float, rng: np.random.Generator) -> None:
        """Draw the holes of one mask as zeros.

        Args:
            canvas: ``(S, S)`` of ones, drawn on in place.
            scale: factor on every length that the preset gives in pixels.
            rng: source of all randomness.
        """


@dataclass(frozen=True, kw_only=True)
class RectanglesAndStrokes(MaskPreset):
    """The CoModGAN and MAT family: rectangles and brush strokes over each other.

    Each count is uniform on ``0 .. n - 1`` after ``n`` was multiplied by the sum of
    ``hole_range`` where that is below 1, so that a narrow range does not reject every draw.
    Rectangle sides are uniform from 0 to half the mask side (``small_rectangles``) or the whole
    side (``large_rectangles``); a rectangle may hang over the edge by half its side. A brush
    stroke starts anywhere and zigzags: its headings alternate around +-``mean_angle``, its
    segments are normal around an eighth of the diagonal (standard deviation one sixteenth,
    clipped to [0, a quarter]), its joints stay inside the mask. All strokes are mirrored together
    at random, horizontally and vertically.

    Attributes:
        small_rectangles: exclusive bound on the number of rectangles up to half the side.
        large_rectangles: exclusive bound on the number of rectangles up to the whole side.
        strokes: exclusive bound on the number of brush strokes.
        joints: least (inclusive) and greatest (exclusive) number of segments of a stroke.
        widths: least (inclusive) and greatest (exclusive) stroke width, in pixels.
        mean_angle: mean heading in radians.
        angle_spread: how far the headings of one stroke may reach from the mean, in radians.
    """

    small_rectangles: int
    large_rectangles: int
    strokes: int
    joints: tuple[int, int] = (4, 18)
    widths: tuple[int, int] = (12, 48)
    mean_angle: float = 2 * math.pi / 5
    angle_spread: float = 2 * math.pi / 15

    def draw(self, canvas: UInt8Array, scale: float, rng: np.random.Generator) -> None:
        """Draw the holes of one mask; see :meth:`MaskPreset.draw`."""
        side = canvas.shape[0]
        share = min(sum(self.hole_range), 1.0)
        for bound, longest in (
            (self.small_rectangles, side // 2),
            (self.large_rectangles, side),
        ):
            for _ in range(_below(rng, int(bound * share))):
                self._rectangle(canvas, longest, rng)
        paths = [
            self._stroke(side, rng) for _ in range(_below(rng, int(self.strokes * share)))
        ]
        mirror_x, mirror_y = rng.random(2) < 0.5
        low, high = self.widths
        for path, u in zip(paths, rng.random(len(paths)), strict=True):
            if mirror_x:
                path[:, 0] = side - path[:, 0]
            if mirror_y:
                path[:, 1] = side - path[:, 1]
            # OpenCV's thick lines include both edges and so come out one pixel wider than asked.
            width = (low + int(u * (high - low))) * scale - 1
            points = np.rint(path).astype(np.int32)
            cv2.polylines(canvas, [points], False, _HOLE, max(1, round(width)))

    @staticmethod
    def _rectangle(canvas: UInt8Array, longest: int, rng: np.random.Generator) -> None:
        side = canvas.shape[0]
        u = rng.random(4)
        width, height = int(u[0] * longest), int(u[1] * longest)
        # Uniform from "left half outside" to "right half outside".
        left = -(width // 2) + int(u[2] * (side - width + 2 * (width // 2)))
        top = -(height // 2) + int(u[3] * (side - height + 2 * (height // 2)))
        canvas[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = _HOLE

    def _stroke(self, side: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        low, high = self.joints
        count = low + _below(rng, high - low)
        u = rng.random(4 + count)
        least = self.mean_angle - u[0] * self.angle_spread
        most = self.mean_angle + u[1] * self.angle_spread
        angles = least + u[4:] * (most - least)
        angles[0::2] *= -1  # alternate headings make the zigzag
        radius = math.sqrt(2) * side / 8
        lengths = np.clip(radius + radius / 2 * rng.standard_normal(count), 0, 2 * radius)
        steps_x = (lengths * np.cos(angles)).tolist()
        steps_y = (lengths * np.sin(angles)).tolist()
        x, y = float(u[2] * side), float(u[3] * side)
        path = [(x, y)]
        for dx, dy in zip(steps_x, steps_y, strict=True):
            x = min(max(x + dx, 0.0), side)
            y = min(max(y + dy, 0.0), side)
            path.append((x, y))
        return np.asarray(path)


@dataclass(frozen=True, kw_only=True)
class StrokesOrBoxes(MaskPreset):
    """The LaMa family: a bundle of straight strokes, or a few boxes, never both.

    A stroke has 1 to 5 segments, each with its own width; the heading of a segment is one of
    ``0, 1, .., num_angles - 1`` radians, negated on every other segment.

    Attributes:
        box_weight: weight of boxes against strokes, which weigh 1.
        strokes: least and greatest number of strokes, inclusive.
        max_length: segments are ``10 .. 10 + max_length - 1`` pixels long.
        max_width: segments are ``5 .. 5 + max_width - 1`` pixels wide.
        num_angles: number of headings.
        boxes: least and greatest number of boxes, inclusive.
        box_sides: least (inclusive) and greatest (exclusive) side of a box, in pixels.
        box_margin: distance that boxes keep from the edge, in pixels.
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
        """Draw the holes of one mask; see :meth:`MaskPreset.draw`."""
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
        angles[:, 0::2] *= -1
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
        longest = min(round(self.box_sides[1] * scale), side - 2 * margin)
        shortest = min(round(self.box_sides[0] * scale), longest - 1)
        low, high = self.boxes
        for _ in range(low + _below(rng, high - low + 1)):
            u = rng.random(4)
            width = shortest + int(u[0] * (longest - shortest))
            height = shortest + int(u[1] * (longest - shortest))
            left = margin + int(u[2] * (side - 2 * margin - width + 1))
            top = margin + int(u[3] * (side - 2 * margin - height + 1))
            canvas[top : top + height, left : left + width] = _HOLE


def _below(rng: np.random.Generator, bound: int) -> int:
    """Return a uniform integer in ``0 .. bound - 1``, 0 where the bound is below 1."""
    return int(rng.random() * bound)


_LAMA_THICK_512 = StrokesOrBoxes(
    size=512, box_weight=0.3, strokes=(1, 5), max_length=450, max_width=250,
    boxes=(1, 4), box_sides=(30, 300), box_margin=10,
)  # fmt: skip
_LAMA_MEDIUM_512 = StrokesOrBoxes(
    size=512, box_weight=0.3, strokes=(4, 10), max_length=200, max_width=100,
    boxes=(1, 5), box_sides=(30, 150), box_margin=0,
)  # fmt: skip
_LAMA_THIN_512 = StrokesOrBoxes(
    size=512, box_weight=0.0, strokes=(4, 70), max_length=100, max_width=20
)

MASK_PRESETS: Mapping[str, MaskPreset] = MappingProxyType(
    {
        "mat512_large": RectanglesAndStrokes(
            size=512, small_rectangles=5, large_rectangles=3, strokes=9
        ),
        "mat512_small": RectanglesAndStrokes(
            size=512, small_rectangles=3, large_rectangles=2, strokes=4
        ),
        "mat256_large": RectanglesAndStrokes(
            size=256, small_rectangles=4, large_rectangles=2, strokes=8
        ),
        "mat256_small": RectanglesAndStrokes(
            size=256, small_rectangles=2, large_rectangles=2, strokes=3
        ),
        "comodgan512": RectanglesAndStrokes(
            size=512, small_rectangles=10, large_rectangles=5, strokes=20
        ),
        "comodgan256": RectanglesAndStrokes(
            size=256, small_rectangles=10, large_rectangles=5, strokes=20
        ),
        "lama_train": StrokesOrBoxes(
            size=256, box_weight=1.0, strokes=(1, 5), max_length=200, max_width=100,
            boxes=(1, 4), box_sides=(30, 150), box_margin=10,
        ),
        "lama_thick": StrokesOrBoxes(
            size=256, box_weight=0.3, strokes=(1, 5), max_length=200, max_width=100,
            boxes=(1, 3), box_sides=(30, 150), box_margin=10, variants=(_LAMA_THICK_512,),
        ),
        "lama_medium": StrokesOrBoxes(
            size=256, box_weight=0.3, strokes=(4, 5), max_length=100, max_width=50,
            boxes=(1, 5), box_sides=(10, 50), box_margin=0, variants=(_LAMA_MEDIUM_512,),
        ),
        "lama_thin": StrokesOrBoxes(
            size=256, box_weight=0.0, strokes=(4, 50), max_length=40, max_width=10,
            variants=(_LAMA_THIN_512,),
        ),
    }
)  # fmt: skip
"""The built-in presets by name; the numbers are the published settings of each family."""


def get_preset(name: str) -> MaskPreset:
    """Look a built-in preset up.

    Raises:
        InputError: there is no preset of that name; the message names the nearest one.
    """
    if name in MASK_PRESETS:
        return MASK_PRESETS[name]
    near = difflib.get_close_matches(name, MASK_PRESETS, n=1, cutoff=0.0)[0]
    raise InputError(
        f"mask preset {name!r} is unknown; the nearest is {near!r} "
        f"(known: {', '.join(MASK_PRESETS)})"
    )


def free_form_mask(
    preset: str | MaskPreset, size: int, seed: int, *, scale_lengths: bool = True
) -> UInt8Array:
    """Draw one mask; the same arguments give the same mask in any process.

    Args:
        preset: name in :data:`MASK_PRESETS`, or a preset of one's own.
        size: side of the mask in pixels.
        seed: any non-negative integer.
        scale_lengths: at another size than the preset's nominal one, scale the whole drawing, so
            that the hole-ratio statistics stay those of the preset: a smaller mask is the nominal
            one sampled down, a larger one is drawn with all lengths multiplied. ``False`` keeps
            lengths in pixels as published (MAT and CoModGAN do: stroke widths of 12-47 px at any
            size), so that smaller masks have larger holes.

    Returns:
        uint8 ``(size, size)``, 1 = known, 0 = hole; never all of one kind.

    Raises:
        InputError: unknown preset, size or seed out of range, or a preset that cannot reach its
            own hole range at this size.
    """
    chosen = get_preset(preset) if isinstance(preset, str) else preset
    if size < 2:
        raise InputError(f"free_form_mask: size must be at least 2, got {size}")
    if seed < 0:
        raise InputError(f"free_form_mask: seed must not be negative, got {seed}")
    chosen = chosen.for_size(size)
    rng = np.random.Generator(np.random.PCG64(seed))
    side = max(size, chosen.size) if scale_lengths else size
    scale = side / chosen.size if scale_lengths else 1.0
    # Centres of the `size` cells of the larger drawing: thin strokes keep their share of the area
    # that drawing at a few pixels' width would round away.
    cells = None if side == size else ((np.arange(size) + 0.5) * side / size).astype(np.intp)
    low, high = chosen.hole_range
    for _ in range(_MAX_DRAWS):
        mask = np.ones((side, side), np.uint8)
        chosen.draw(mask, scale, rng)
        if cells is not None:
            mask = mask[np.ix_(cells, cells)]
        if low < hole_ratio(mask) < high:
            return mask
    raise InputError(
        f"free_form_mask: none of {_MAX_DRAWS} draws of size {size} had a hole ratio between "
        f"{low} and {high}; widen hole_range or choose another preset"
    )


def hole_ratio(mask: npt.NDArray[np.generic]) -> float:
    """Return the share of pixels that are hole, in [0, 1], of a mask with 1 = known."""
    return 1.0 - np.count_nonzero(mask) / mask.size


def check_mask(mask: npt.NDArray[np.generic], name: str = "mask") -> None:
    """Assert that a mask is two-dimensional, not empty, and holds nothing but 0 and 1.

    Args:
        mask: array of any dtype.
        name: how the message calls it, for instance a file name.

    Raises:
        InputError: it is not.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise InputError(f"{name}: a mask must be (H, W), got {mask.shape}")
    if not np.logical_or(mask == 0, mask == 1).all():
        raise InputError(
            f"{name}: a mask must hold only 0 (hole) and 1 (known), got values from "
            f"{mask.min()} to {mask.max()}"
        )
