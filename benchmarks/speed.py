"""Images per second of a training that runs, for ``benchmarks/gpu.py``."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import lightning.pytorch as pl

WINDOW = 50  # batches


class Speed(pl.Callback):
    """Logs ``train/images_per_second`` over the last batches, start-up left out."""

    def __init__(self) -> None:
        self.ends: deque[tuple[float, int]] = deque(maxlen=WINDOW + 1)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Note the time, and how many images there were since the oldest one noted."""
        self.ends.append((time.perf_counter(), pl_module.images_seen))
        (start, before), (end, after) = self.ends[0], self.ends[-1]
        if end > start:
            pl_module.log("train/images_per_second", (after - before) / (end - start))
