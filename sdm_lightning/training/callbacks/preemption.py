"""Stop cleanly when a cluster reclaims its machine, or a user presses Ctrl-C."""

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities import rank_zero_info

from sdm_lightning.errors import PREEMPTED
from sdm_lightning.inference.checkpoints import CHECKPOINTS
from sdm_lightning.signals import STOP_SIGNALS, handled


class Preemption(pl.Callback):
    """On SIGTERM, SIGUSR1 or Ctrl-C: finish the batch, save on all ranks together, stop.

    Lightning's own handlers save inside the signal handler, in the middle of a step (a checkpoint
    whose generator has stepped and whose discriminator has not), and wait for each other forever
    when the signal reaches all ranks, as SLURM's does.

    A validation that is running is cut short and gives no score, and early stopping does not see
    it. Ctrl-C once more stops at once, without saving.

    Args:
        every_n_batches: Batches between two checks whether any process received a signal; each
            check waits for the GPUs. A single process checks after every batch.
    """

    def __init__(self, every_n_batches: int = 10) -> None:
        self.every_n_batches = every_n_batches
        self.requested = False
        self._received = 0
        self._handlers = ExitStack()

    @property
    def status(self) -> int:
        """Status that the process should end with; 130 where a user stopped the run."""
        return 130 if self._received == signal.SIGINT else PREEMPTED

    @property
    def signalled(self) -> bool:
        """Whether this process has been asked to stop."""
        return self._received != 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep Lightning's handlers from being installed, and cut validations from counting."""
        connector = getattr(trainer, "_signal_connector", None)
        if stage == "fit" and connector is not None:
            connector.register_signal_handlers = lambda: None
        for callback in trainer.callbacks if stage == "fit" else ():  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping):
                ignore_cut_validations(callback)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handlers, until training ends."""
        self._handlers.enter_context(handled((*STOP_SIGNALS, signal.SIGINT), self._remember))

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # No files and no collectives inside a handler.
        if number == signal.SIGINT:
            if self._received == signal.SIGINT:
                raise KeyboardInterrupt
            os.write(2, b"\nstopping after this batch; Ctrl-C again stops without saving\n")
        self._received = number

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """End a validation inside a fit; the next training batch then saves and stops.

        Raises:
            StopIteration: By which Lightning's evaluation loop knows that there is no more.
        """
        if self.signalled and trainer.state.fn == "fit":
            raise StopIteration

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Agree among all ranks, save together and stop."""
        # Counted over epochs: an epoch may have fewer batches than that.
        if self.requested or (
            trainer.world_size > 1 and trainer.global_step % self.every_n_batches
        ):
            return
        if not on_any_process(trainer, self.signalled):
            return
        self.requested = True
        path = Path(trainer.default_root_dir) / CHECKPOINTS / "preempted.ckpt"
        trainer.save_checkpoint(path, weights_only=False)
        rank_zero_info(f"Stopped by a signal; continue with --ckpt_path {path}")
        trainer.should_stop = True
        trainer.limit_val_batches = 0

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the previous handlers."""
        if self.signalled and not self.requested:
            rank_zero_info("The signal came after the last batch: only a validation was cut short")
        self._handlers.close()

    def on_exception(self, *args: Any) -> None:
        """Restore the previous handlers."""
        self._handlers.close()


def ignore_cut_validations(stopping: EarlyStopping) -> None:
    """Let early stopping pass over a validation that was cut short: it gave no score."""
    # What both of its hooks call, after a validation and at the end of an epoch.
    original = stopping._run_early_stopping_check
    if getattr(original, "ignores_cut_validations", False):
        return

    def check(trainer: pl.Trainer) -> None:
        if not validation_cut_short(trainer):
            original(trainer)

    check.ignores_cut_validations = True  # type: ignore[attr-defined]
    stopping._run_early_stopping_check = check  # type: ignore[method-assign]


def on_any_process(trainer: pl.Trainer, flag: bool) -> bool:
    """Say whether a flag is raised on any process; all have to ask."""
    if trainer.world_size == 1:
        return flag  # without a GPU's answer to wait for
    value = torch.tensor(float(flag), device=trainer.strategy.root_device)
    return float(trainer.strategy.reduce(value, reduce_op="sum")) > 0


def validation_cut_short(trainer: pl.Trainer) -> bool:
    """Say whether the validation that has just ended was cut short; all processes have to ask."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    preemptions = [c for c in callbacks if isinstance(c, Preemption)]
    if not preemptions or trainer.state.fn != "fit":
        return False
    return on_any_process(trainer, any(c.signalled for c in preemptions))
