"""Where in a picture the network works, and how pixels get there and back.

A network trained at 64 or 512 pixels is applied to photos thousands of pixels wide. Each group of
holes is cut out with its surroundings; a cut-out larger than the working size is shrunk for the
network, and what comes back is enlarged. Only hole pixels are taken from it.
"""

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from sdm_lightning.arrays import BoolArray, FloatArray

Labels = npt.NDArray[np.int32]
Values = TypeVar("Values", FloatArray, npt.NDArray[np.uint8])


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, right and bottom exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.left

    @property
    def side(self) -> int:
        """The longer of height and width."""
        return max(self.height, self.width)

    @property
    def slices(self) -> tuple[slice, slice]:
        """For indexing the first two axes of an array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class Region:
    """One cut-out and what is to be filled in it.

    Attributes:
        box: Where it lies in the picture.
        target: ``(box.height, box.width)``, True at the hole pixels that are taken from this
            cut-out; other holes in it belong to other regions.
    """

    box: Box
    target: BoolArray


def hole_regions(known: BoolArray, context: float, minimum: int | None) -> list[Region]:
    """Cut out the holes; together the targets cover every hole pixel once.

    Parts of a hole that nearly touch are one hole. Long thin parts (scratches, lettering, the wire
    that a lamp hangs from) are cut into pieces, since each has surroundings enough of its own.
    Small holes that lie well inside the cut-out of one of their size are filled along with it.

    Args:
        known: ``(H, W)``.
        context: Width of the context on each side, as a multiple of the hole's longer side.
        minimum: Smallest side of a box, where the picture is that large; None: the whole picture
            is the one box.

    Returns:
        The largest hole first; empty if there is no hole.
    """
    height, width = known.shape
    if known.all():
        return []
    if minimum is None:
        return [Region(Box(0, 0, height, width), ~known)]
    labels = _hole_groups(~known)
    _split_thin(labels, minimum)
    holes = _bounding_boxes(labels)
    boxes = {
        hole: _surround(tight, height, width, context, minimum) for hole, tight in holes.items()
    }
    order = sorted(holes, key=lambda hole: (-boxes[hole].side, hole))
    regions = []
    while order:
        box = boxes[order[0]]
        # Filling a small hole in a large one's cut-out would shrink it with that.
        members = {
            hole
            for hole in order
            if hole == order[0]
            or (boxes[hole].side >= box.side / 2 and _inside(holes[hole], box, height, width))
        }
        regions.append(Region(box, np.isin(labels[box.slices], list(members))))
        order = [hole for hole in order if hole not in members]
    return regions


def _hole_groups(hole: BoolArray) -> Labels:
    """Label holes ``(H, W)``, 0 elsewhere; parts whose bounding boxes nearly touch are one."""
    covered = hole.astype(np.uint8)
    height, width = hole.shape
    drawn = np.zeros(hole.shape, np.int32)
    widen, area_before = True, -1
    while (area := int(covered.sum())) != area_before:
        # Boxes that overlap become the box around both, until nothing changes.
        area_before = area
        _, drawn, stats, _ = cv2.connectedComponentsWithStats(covered, connectivity=8)
        for left, top, box_width, box_height, _ in stats[1:]:
            gap = max(2, max(box_width, box_height) // 16) if widen else 0
            covered[
                max(top - gap, 0) : min(top + box_height + gap, height),
                max(left - gap, 0) : min(left + box_width + gap, width),
            ] = 1
        widen = False
    return np.where(hole, drawn, 0).astype(np.int32)


def _split_thin(labels: Labels, minimum: int) -> None:
    """Give thin parts of holes labels of their own, cut along a grid; in place.

    A part is thin at a width if no disc of that width fits into it, and it is cut off where it is
    much longer than wide: first what is thin at a quarter of the smallest cut-out, then at twice
    that, and so on. So a wire is filled near full size, whatever hangs at its end.
    """
    last = int(labels.max())
    for hole, box in _bounding_boxes(labels).items():
        part = labels[box.slices]
        rest = part == hole
        width, before = max(minimum / 4, 1.0), last
        cell = max(minimum // 2, 1)
        longest = cell
        while box.side > longest:
            thin = _long_parts(rest & ~_opened(rest, width / 2), longest)
            if thin.any():
                rows, columns = np.nonzero(thin)
                numbers = 1 + rows // cell * (box.width // cell + 1) + columns // cell
                part[rows, columns] = last + numbers
                last += int(numbers.max())
                rest &= ~thin
            width *= 2
            cell, longest = max(cell, round(width)), round(4 * width)
        if last > before:
            # What is left may lie at both ends of a wire.
            count, apart = cv2.connectedComponents(rest.astype(np.uint8), connectivity=8)
            part[rest] = last + apart[rest]
            last += count


def _opened(hole: BoolArray, radius: float) -> BoolArray:
    """Return the pixels that a disc reaches which lies in the hole whole (with a pixel's slack)."""
    # The picture's edge counts as known: a hole that fills the picture has nothing else.
    depth = cv2.distanceTransform(np.pad(hole.astype(np.uint8), 1), cv2.DIST_L2, 5)
    away = cv2.distanceTransform((depth <= radius).astype(np.uint8), cv2.DIST_L2, 5)
    reached = (away <= radius + 1) if (depth > radius).any() else np.zeros(depth.shape, bool)
    return np.asarray(reached[1:-1, 1:-1] & hole)


def _long_parts(thin: BoolArray, longest: int) -> BoolArray:
    """Return the connected parts whose bounding box is longer than ``longest``."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(thin.astype(np.uint8), connectivity=8)
    is_long = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]) > longest
    is_long[0] = False
    return np.asarray(is_long[parts])


def _bounding_boxes(labels: Labels) -> dict[int, Box]:
    from scipy.ndimage import find_objects  # here, since it slows the import of `Inpainter` down

    return {
        label: Box(rows.start, columns.start, rows.stop, columns.stop)
        for label, found in enumerate(find_objects(labels), start=1)
        if found is not None
        for rows, columns in [found]
    }


def _inside(hole: Box, box: Box, height: int, width: int) -> bool:
    """Return whether a hole lies in a box with a margin (none at the picture's edge)."""
    margin = box.side // 8
    return (
        hole.top >= box.top + (margin if box.top > 0 else 0)
        and hole.left >= box.left + (margin if box.left > 0 else 0)
        and hole.bottom <= box.bottom - (margin if box.bottom < height else 0)
        and hole.right <= box.right - (margin if box.right < width else 0)
    )


def _surround(box: Box, height: int, width: int, context: float, minimum: int) -> Box:
    side = max(box.height, box.width)
    side = max(minimum, round(side * (1 + 2 * context)))
    top, bottom = _stretch(box.top, box.bottom, side, height)
    left, right = _stretch(box.left, box.right, side, width)
    return Box(top, left, bottom, right)


def _stretch(low: int, high: int, side: int, limit: int) -> tuple[int, int]:
    """Widen [low, high) to ``side`` about its middle, moved to lie inside [0, limit)."""
    side = min(side, limit)
    start = min(max((low + high - side) // 2, 0), limit - side)
    return start, start + side


def shrink(
    image: FloatArray, known: BoolArray, work_size: int | None
) -> tuple[FloatArray, BoolArray]:
    """Scale a cut-out down to the working size; smaller ones stay as they are.

    Colours are averaged over known pixels only, so that nothing of the hole leaks into them.

    Args:
        image: ``(H, W, 3)``.
        known: ``(H, W)``.
        work_size: Longest side of the result; None: no limit.
    """
    height, width = known.shape
    if work_size is None or max(height, width) <= work_size:
        return np.where(known[:, :, None], image, np.float32(0)), known
    scale = work_size / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    weight = known.astype(np.float32)
    share = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    # where() and not a product: the hole may hold anything, NaN included.
    colours = np.where(known[:, :, None], image, np.float32(0))
    total = cv2.resize(colours, size, interpolation=cv2.INTER_AREA)
    small = total / np.maximum(share, 1e-6)[:, :, None]
    small_known = share >= 0.5
    return np.where(small_known[:, :, None], small, np.float32(0)), small_known


def reduce_to_longer_side(values: Values, longest: int) -> Values:
    """Average ``(H, W, C)`` to at most ``longest`` pixels along the longer side."""
    scale = longest / max(values.shape[:2])
    if scale >= 1:
        return values
    height, width = (max(1, round(side * scale)) for side in values.shape[:2])
    smaller = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(smaller, dtype=values.dtype)


def enlarge(values: FloatArray, height: int, width: int, smooth: bool = True) -> FloatArray:
    """Scale ``(h, w)`` or ``(h, w, C)`` values up to the cut-out's size."""
    if values.shape[:2] == (height, width):
        return values
    method = cv2.INTER_CUBIC if values.ndim == 3 else cv2.INTER_LINEAR
    method = method if smooth else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(values, (width, height), interpolation=method), dtype=np.float32)


def pad_to_stride(values: npt.NDArray[np.generic], stride: int) -> npt.NDArray[np.generic]:
    """Mirror the bottom and right edges until both sides are multiples of the stride."""
    height, width = values.shape[:2]
    pad = [(0, -height % stride), (0, -width % stride)] + [(0, 0)] * (values.ndim - 2)
    return np.pad(values, pad, mode="symmetric")
