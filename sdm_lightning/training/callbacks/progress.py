"""A progress bar that counts images."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Timer, TQDMProgressBar

from sdm_lightning.training.callbacks.budget import ImageBudget

SHORT_NAMES = {
    "train/adversarial": "G",
    "train/discriminator": "D",
    "train/likelihood": "nll",
}


class ImageProgressBar(TQDMProgressBar):
    """Counts images towards the budget, with images per second, time left and the losses.

    A run has one endless epoch, so Lightning's own bar would know neither its length nor, after a
    resume, its speed.

    Args:
        refresh_rate: Batches between two updates.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def on_train_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Set the bar to the images that the run has seen so far, of the budget."""
        super().on_train_start(trainer, *args)
        self._count_images(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Do nothing: Lightning would reset the bar to the epoch's start."""

    def _count_images(self, trainer: pl.Trainer) -> None:
        bar = self.train_progress_bar
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        module: Any = trainer.lightning_module
        budgets = [c.max_images for c in callbacks if isinstance(c, ImageBudget)]
        # A run that a clock will stop has no number of images to count towards.
        timed = any(isinstance(c, Timer) for c in callbacks)
        bar.total = None if timed else min(budgets, default=None)
        bar.unit, bar.unit_scale = " images", True
        seen = module.images_seen - module.images_before
        bar.n = bar.initial = bar.last_print_n = seen  # type: ignore[assignment]
        bar.set_description("Training")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        bar = self.train_progress_bar
        if self._should_update(batch_idx + 1, bar.total):
            bar.n = pl_module.images_seen - pl_module.images_before
            bar.set_postfix(self.get_metrics(trainer, pl_module))

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the figures behind the bar, under short names."""
        found: dict[str, Any] = super().get_metrics(trainer, pl_module)
        hidden = ("v_num", "images_seen")
        return {
            SHORT_NAMES.get(name, name.removeprefix("train/")): value
            for name, value in found.items()
            if name not in hidden
        }
