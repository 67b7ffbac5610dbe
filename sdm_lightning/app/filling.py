"""Running the inpainter for the page: in the background, step by step, with reduced pictures."""

import queue
import threading
from collections.abc import Generator
from dataclasses import dataclass, field

import cv2
import numpy as np

from sdm_lightning.app.photo import PAGE_SIDE, shrink_mask
from sdm_lightning.arrays import BoolArray, FloatArray, UInt8Array
from sdm_lightning.inference.inpainter import Inpainter, Precision
from sdm_lightning.inference.pictures import Picture, eight_bits
from sdm_lightning.inference.regions import reduce_to_longer_side
from sdm_lightning.inference.results import Inpainting, RegionStep, heat_map

MISSING = np.array([128, 128, 128], np.uint8)


class Stopped(Exception):
    """The person who waits has stopped the run, or closed the page."""


@dataclass
class Frames:
    """Reduced pictures of one sample, one for each iteration, while cut-outs are filled.

    Args:
        preview: ``(h, w, 3)``, the reduced photo.
        hole: ``(H, W)``, True = fill.
        num_iterations: Iterations that will be made.
    """

    preview: UInt8Array
    hole: BoolArray
    num_iterations: int
    pictures: list[UInt8Array] = field(init=False)
    latest: UInt8Array = field(init=False)

    def __post_init__(self) -> None:
        self.small_hole = shrink_mask(self.hole, self.preview)
        empty = self.preview.copy()
        empty[self.small_hole] = MISSING
        self.pictures = [empty.copy() for _ in range(self.num_iterations)]
        self.latest = empty

    def put(self, step: RegionStep) -> None:
        """Show the pixels that are kept so far in a cut-out; the rest of its hole stays grey."""
        box, (height, width) = step.region.box, self.preview.shape[:2]
        down, across = height / self.hole.shape[0], width / self.hole.shape[1]
        top, left = int(box.top * down), int(box.left * across)
        bottom = min(height, max(top + 1, round(box.bottom * down)))
        right = min(width, max(left + 1, round(box.right * across)))
        size = (right - left, bottom - top)
        colours = np.rint((step.completed + 1) * 127.5).clip(0, 255).astype(np.uint8)
        colours = cv2.resize(colours, size, interpolation=cv2.INTER_LINEAR)
        nearest = cv2.INTER_NEAREST
        kept = cv2.resize(step.mask.astype(np.uint8), size, interpolation=nearest) > 0
        own = cv2.resize(step.region.target.astype(np.uint8), size, interpolation=nearest) > 0
        part = slice(top, bottom), slice(left, right)
        inside = self.small_hole[part] & own
        shown = np.where(kept[:, :, None], colours, MISSING)
        for picture in (self.pictures[step.iteration - 1], self.latest):
            picture[part][inside] = shown[inside]


def overlay(result: UInt8Array, uncertainty: FloatArray, hole: BoolArray) -> UInt8Array:
    """Lay the uncertainty over a reduced result, ``(h, w, 3)``, in the hole alone.

    Args:
        result: ``(h, w, 3)``, reduced.
        uncertainty: ``(H, W)`` in [0, 1].
        hole: ``(h, w)``, True = filled.
    """
    height, width = result.shape[:2]
    small = cv2.resize(uncertainty, (width, height), interpolation=cv2.INTER_AREA)
    colours = np.asarray(heat_map(np.asarray(small, dtype=np.float32)))
    mixed = np.rint(0.35 * result + 0.65 * colours).astype(np.uint8)
    return np.where(hole[:, :, None], mixed, result)


def reduced_result(picture: Picture, array: np.ndarray) -> UInt8Array:
    """Reduce a completed picture, in the caller's shape and type, to ``(h, w, 3)`` for the page."""
    return reduce_to_longer_side(
        np.asarray(picture.to_pil(eight_bits(array)).convert("RGB")), PAGE_SIDE
    )


def run(
    inpainter: Inpainter,
    picture: Picture,
    hole: BoolArray,
    stop: threading.Event,
    *,
    num_iterations: int,
    num_samples: int,
    seed: int,
    precision: Precision,
) -> Generator[RegionStep | Inpainting, None, None]:
    """Fill in a thread of its own.

    Yields:
        Each iteration of each cut-out as it is made, and the result.

    Raises:
        Stopped: Soon after ``stop`` is set.
        Exception: What the inpainter raises.
    """
    events: queue.SimpleQueue[RegionStep | Inpainting | BaseException] = queue.SimpleQueue()

    def report(step: RegionStep) -> None:
        if stop.is_set():
            raise Stopped
        events.put(step)

    def work() -> None:
        try:
            done = inpainter(
                picture,
                ~hole,
                num_iterations=num_iterations,
                num_samples=num_samples,
                seed=seed,
                precision=precision,
                keep_steps=False,
                on_step=report,
            )
            events.put(done)
        except BaseException as error:  # the thread that waits raises it
            events.put(error)

    # No daemon: ending the interpreter in the middle of an iteration would abort the process.
    threading.Thread(target=work, name="fill").start()
    try:
        while True:
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, Inpainting):
                return
    finally:
        stop.set()
