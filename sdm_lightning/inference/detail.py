"""Fine detail for a filling of a small network, taken from its surroundings.

What the network draws at its working size, enlarged, is blurred beside a sharp photo, and a small
network blurs texture at its own size too. Each cell of the hole takes the fine detail of a known
cell whose surroundings look alike at the working size; neighbouring cells prefer the detail of
neighbouring cells, and none is taken by many. Colours and coarse structure stay the network's.
"""

import cv2
import numpy as np
import numpy.typing as npt

from sdm_lightning.arrays import BoolArray, FloatArray
from sdm_lightning.inference.regions import enlarge, reduce_to_longer_side

Integers = npt.NDArray[np.intp]

COARSEST = 8.0
"""Most by which the working size is shrunk for what stays the network's."""
TEXTURED = 1024
"""Working size, in pixels, from which a network is taken to draw all texture itself: at 512 what is
finer than 2 pixels is the surroundings', at 128 and below what is finer than 8. Measured with the
packaged weights alone (docs/photos.md)."""
GRID = 32
"""Most cells along the longer side: their size is that of the patches of detail."""
REACH = 3
"""Cells on each side that two places are compared by."""
NEARNESS = 0.02
"""Cost of taking detail from as far away as the cut-out is wide, as a mean squared difference."""
COHERENCE = 0.02
"""What each neighbour that takes detail from the same offset is worth, likewise."""
REPETITION = 0.01
"""Cost of a source for each other cell that takes its detail from it, likewise."""
SWEEPS = 12
SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0))


def add_detail(small: FloatArray, image: FloatArray, known: BoolArray) -> FloatArray:
    """Enlarge a filling and give it the fine detail of known cells.

    Args:
        small: ``(h, w, 3)``, about [-1, 1], the completed picture at the working size; predictions
            are not clamped.
        image: ``(H, W, 3)``, read where ``known`` is True.
        known: ``(H, W)``.

    Returns:
        ``(H, W, 3)``; ``small`` enlarged if no cell with known surroundings is left.

    Source:
        The transfer of residuals follows Yi et al. 2020, "Contextual Residual Aggregation"; the
        coherent choice of sources follows Ashikhmin 2001.
    """
    height, width = known.shape
    # The network's values may leave [-1, 1]; what is compared is what is shown.
    cells = reduce_to_longer_side(small.clip(-1, 1), GRID)
    size = (cells.shape[1], cells.shape[0])
    hole = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA) < 1 - 1e-6
    # Blocks overlap by half a cell: a source needs known neighbours too.
    near = np.ones((3, 3), np.uint8)
    usable = ~cv2.dilate(hole.astype(np.uint8), near).astype(bool)
    if not usable.any() or not hole.any():
        return enlarge(small, height, width)
    targets = np.argwhere(hole)
    offsets = _choose(cells, targets, np.argwhere(usable))
    longest = max(small.shape[:2])
    factor = min(COARSEST, max(1.0, TEXTURED / longest))
    coarse = enlarge(reduce_to_longer_side(small, max(1, round(longest / factor))), height, width)
    return _compose(coarse, image, known, cells.shape[:2], targets, offsets)


def _choose(cells: FloatArray, targets: Integers, sources: Integers) -> Integers:
    """Return for each target ``(N, 2)`` the offset, in cells, to where its detail comes from.

    One target after the other takes the source that costs least beside what the others have taken,
    until none changes (iterated conditional modes, Besag 1986). Taking over neighbours' offsets
    alone, without a look at all sources, leaves grids of one repeated cell in smooth fillings.
    """
    cost = _costs(cells, targets, sources)
    place = np.full(np.array(cells.shape[:2]) + 2, -1)  # a border: neighbours' sources, moved on
    place[tuple(sources.T + 1)] = np.arange(len(sources))
    slot = {tuple(target): index for index, target in enumerate(targets.tolist())}
    neighbours = [
        [(slot[at], side) for side in SIDES if (at := (row + side[0], column + side[1])) in slot]
        for row, column in targets.tolist()
    ]
    chosen = np.full(len(targets), -1)
    used = np.zeros(len(sources), np.float32)
    for _ in range(SWEEPS):
        before = chosen.copy()
        for target, beside in enumerate(neighbours):
            if chosen[target] >= 0:
                used[chosen[target]] -= REPETITION
            price = cost[target] + used
            for other, (down, right) in beside:
                if chosen[other] >= 0:
                    row, column = sources[chosen[other]]
                    agreeing = place[row + 1 - down, column + 1 - right]
                    if agreeing >= 0:
                        price[agreeing] -= COHERENCE
            chosen[target] = price.argmin()
            used[chosen[target]] += REPETITION
        if (chosen == before).all():
            break
    return sources[chosen] - targets


def _costs(cells: FloatArray, targets: Integers, sources: Integers) -> FloatArray:
    """Return ``(N, M)``: mean squared difference of the surroundings, and distance."""
    side = 2 * REACH + 1
    padded = np.pad(cells, ((REACH, REACH), (REACH, REACH), (0, 0)), mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    first = views[tuple(targets.T)].reshape(len(targets), -1)
    second = views[tuple(sources.T)].reshape(len(sources), -1)
    squares = (first**2).mean(axis=1)[:, None] + (second**2).mean(axis=1)[None]
    difference = squares - 2 * first @ second.T / first.shape[1]
    scale = np.float32(max(cells.shape[:2]))
    apart = [(targets[:, k, None] - sources[None, :, k]) / scale for k in (0, 1)]
    distance = (apart[0] ** 2 + apart[1] ** 2).astype(np.float32)
    return np.asarray(difference + np.float32(NEARNESS) * distance, np.float32)


def _compose(
    filling: FloatArray,
    image: FloatArray,
    known: BoolArray,
    shape: tuple[int, ...],
    targets: Integers,
    offsets: Integers,
) -> FloatArray:
    """Add the detail of each target's source, blended where blocks overlap.

    What a block reads beyond the picture is the reflected inside: a block that ended there would
    leave a straight edge in the hole.
    """
    height, width = known.shape
    rows = np.rint(np.arange(shape[0] + 1) * height / shape[0]).astype(int)
    columns = np.rint(np.arange(shape[1] + 1) * width / shape[1]).astype(int)
    overlap = max(1, round(height / shape[0] / 2))
    margin = overlap + 1  # cells differ by a pixel in size

    def padded(values: FloatArray) -> FloatArray:
        sides = margin, margin, margin, margin
        return np.asarray(cv2.copyMakeBorder(values, *sides, cv2.BORDER_REFLECT), np.float32)

    residual = padded(np.where(known[:, :, None], image - filling, 0).astype(np.float32))
    readable = padded(known.astype(np.float32))
    total, weight = np.zeros_like(residual), np.zeros_like(readable)
    for (row, column), (down, right) in zip(targets, offsets, strict=True):
        shift = rows[row + down] - rows[row], columns[column + right] - columns[column]
        vertical, rise = _span(rows[row] + margin, rows[row + 1] + margin, overlap)
        horizontal, run = _span(columns[column] + margin, columns[column + 1] + margin, overlap)
        here = vertical, horizontal
        there = tuple(
            slice(part.start + by, part.stop + by) for part, by in zip(here, shift, strict=True)
        )
        window = np.outer(rise, run).astype(np.float32) * readable[there]
        total[here] += window[:, :, None] * residual[there]
        weight[here] += window
    detail = (total / np.maximum(weight, 1e-6)[:, :, None])[margin:-margin, margin:-margin]
    return np.where(known[:, :, None], filling, filling + detail)


def _span(start: int, stop: int, overlap: int) -> tuple[slice, npt.NDArray[np.float64]]:
    """Widen [start, stop) by the overlap, with weights that rise and fall over two overlaps."""
    ramp = np.arange(1, stop - start + 2 * overlap + 1)
    weights = np.minimum(np.minimum(ramp, ramp[::-1]) / (2 * overlap), 1)
    return slice(start - overlap, stop + overlap), weights
