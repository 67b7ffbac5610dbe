"""Stop cleanly when a cluster reclaims its machine."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info


class Preemption(pl.Callback):
    """On SIGTERM or SIGUSR1: finish the batch, save on all ranks together, stop.

    Lightning's own handlers save inside the signal handler, in the middle of a step (a checkpoint
    whose generator has stepped and whose discriminator has not), and wait for each other forever
    when the signal reaches all ranks, as SLURM's does.

    Args:
        path: Checkpoint to write; relative to the trainer's root directory.
        every_n_batches: How often the ranks check whether one of them received a signal.
        signals: Names of the signals.
        exit_code: Status that the process should end with, for the launch script to requeue by;
            the command line reads it from ``requested``.
    """

    def __init__(
        self,
        path: str = "checkpoints/preempted.ckpt",
        every_n_batches: int = 1,
        signals: tuple[str, ...] = ("SIGTERM", "SIGUSR1"),
        exit_code: int = 75,
    ) -> None:
        self.path = path
        self.every_n_batches = every_n_batches
        self.signals = signals
        self.exit_code = exit_code
        self.requested = False
        self._received = 0
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handlers, after Lightning has installed its own."""
        for name in self.signals:
            number = getattr(signal, name)
            self._previous[number] = signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received = number  # nothing else: no files and no collectives inside a handler

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, i: int
    ) -> None:
        """Agree among all ranks, save together and stop."""
        if self.requested or (i + 1) % self.every_n_batches:
            return
        flag = torch.tensor(float(self._received != 0), device=pl_module.device)
        total = trainer.strategy.reduce(flag, reduce_op="sum")
        if float(total) == 0:
            return
        self.requested = True
        path = Path(trainer.default_root_dir) / self.path
        trainer.save_checkpoint(path, weights_only=False)
        rank_zero_info(f"Stopped by a signal; continue with --ckpt_path {path}")
        trainer.should_stop = True
        trainer.limit_val_batches = 0

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the previous handlers."""
        self._restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Restore the previous handlers."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
