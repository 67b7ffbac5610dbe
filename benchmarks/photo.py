"""Filling a photo of 12 megapixels at its full size, beside OpenCV on the same photo."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from skimage.data import coffee

from benchmarks.common import Line, Settings, compared, figure, peak_memory
from sdm_lightning import Inpainter
from sdm_lightning.inference.locating import DEFAULT_WEIGHTS
from sdm_lightning.inference.methods import navier_stokes


def run(settings: Settings) -> Iterator[Line]:
    """Fill a large hole and a wire that leads from it to the corner."""
    width, height = (400, 300) if settings.quick else (4000, 3000)
    photo = cv2.resize(coffee(), (width, height), interpolation=cv2.INTER_CUBIC)
    known = np.full((height, width), 255, np.uint8)
    left, top = round(0.3 * width), round(0.3 * height)
    right, bottom = round(0.65 * width), round(0.633 * height)
    cv2.rectangle(known, (left, top), (right, bottom), 0, -1)
    cv2.line(known, (right, bottom), (width - 1, height - 1), 0, max(width // 333, 2))

    def load_and_fill() -> None:
        Inpainter.from_pretrained()(photo, known, keep_steps=False)

    first = settings.seconds(load_and_fill)
    what = f"{width}x{height}, {DEFAULT_WEIGHTS} weights"
    yield figure("photo", f"{what}: first photo, with loading them", first, "s")
    model = Inpainter.from_pretrained()
    found, limit = [], []
    for _ in range(settings.rounds):
        found.append(settings.seconds(lambda: model(photo, known, keep_steps=False)))
        limit.append(settings.seconds(lambda: navier_stokes(photo, known > 0)))
    yield compared("photo", f"{what}: next photo", "s", found, limit, "OpenCV Navier-Stokes")
    peak, _ = peak_memory(lambda: model(photo, known, keep_steps=False))
    yield figure("photo", f"{what}: peak memory", peak, "MiB")
