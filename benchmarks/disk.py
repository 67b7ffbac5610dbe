"""Checkpoints beside the disk: a plain write and a plain read of as many bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.common import Line, Settings, compared, interleaved
from sdm_lightning.training.checkpointing import AtomicCheckpointIO


def run(settings: Settings) -> Iterator[Line]:
    """Save and load a checkpoint of 64 tensors; wall-clock time, since the disk works meanwhile."""
    each = 2**12 if settings.quick else 2**20
    tensors = {f"layer{number}": torch.randn(each) for number in range(64)}
    path, plain = settings.folder / "one.ckpt", settings.folder / "plain"
    io, checkpoint = AtomicCheckpointIO(), {"images_seen": 1, "state_dict": tensors}
    io.save_checkpoint(checkpoint, path)
    content = path.read_bytes()

    def write() -> None:
        with plain.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def wall(work: Callable[[], Any]) -> Callable[[], float]:
        def measure() -> float:
            start = time.perf_counter()
            work()
            return time.perf_counter() - start

        return measure

    size = f"{len(content) / 2**20:.0f} MiB"
    for name, work, limit, limit_name in (
        ("save", lambda: io.save_checkpoint(checkpoint, path), write, "write and fsync"),
        ("load", lambda: io.load_checkpoint(path), plain.read_bytes, "read"),
    ):
        found, limits = interleaved([wall(work), wall(limit)], settings.rounds)
        yield compared("checkpoint", f"{name}, {size}", "s", found, limits, limit_name)
