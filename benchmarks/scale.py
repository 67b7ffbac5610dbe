"""Bytes that processes exchange in a training step, counted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.utils.data import DataLoader

from benchmarks.common import Line, Settings, figure
from benchmarks.training import INTERVAL, build
from sdm_lightning.training import SDMModule, distributed

BATCHES = INTERVAL  # one of them with R1
BUCKET_MB = 0.05
"""As small against this model as DDP's 25 MB are against the full-size one. A bucket with
parameters of both networks is reduced in the phases of both."""


class Count:
    """Bytes handed to all-reduce so far."""

    total = 0


class Report(pl.Callback):
    """Counts what is reduced, and writes down the sums after each batch."""

    def __init__(self, path: Path) -> None:
        self.count, self.path = Count(), path
        self.per_batch: list[int] = []

    def on_train_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Count each bucket that is reduced."""

        def counted(group: Any, bucket: torch.distributed.GradBucket) -> Any:
            self.count.total += bucket.buffer().nbytes
            return allreduce_hook(group, bucket)

        distributed.allreduce_hook = counted  # type: ignore[assignment]

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Take the difference."""
        self.per_batch.append(self.count.total)
        if trainer.is_global_zero:
            self.path.write_text(json.dumps(self.per_batch))


def run(settings: Settings) -> Iterator[Line]:
    """Train a tiny model with 2 and 4 gloo processes on this machine."""
    for processes in (2,) if settings.quick else (2, 4):
        module = build(32, 2, quick=True, kind=SDMModule)
        parts = (module.generator, module.discriminator)
        size = 4 * sum(p.numel() for part in parts for p in part.parameters())
        path = settings.folder / f"bytes{processes}.json"
        samples = [
            {"image": torch.rand(3, 32, 32), "mask": torch.ones(1, 32, 32), "key": str(number)}
            for number in range(BATCHES * 2 * processes)
        ]
        pl.Trainer(
            max_steps=BATCHES,
            accelerator="cpu",
            devices=processes,
            strategy=DDPStrategy(
                start_method="spawn", process_group_backend="gloo", bucket_cap_mb=BUCKET_MB,
            ),
            callbacks=[Report(path)],
            logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, DataLoader(samples, batch_size=2))  # fmt: skip
        total = json.loads(path.read_text())
        for name, batches in (
            ("a step", total[1] - total[0]),
            ("a step with R1", total[3] - total[2]),
        ):
            yield figure(
                "scale", f"bytes all-reduced in {name}, {processes} processes", batches / 1e6, "MB"
            ) | {
                "limit": round(size / 1e6, 3), "limit_name": "gradients of both networks",
                "ratio": round(batches / size, 3),
            }  # fmt: skip
