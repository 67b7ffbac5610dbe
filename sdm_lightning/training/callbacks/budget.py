"""Stop by images seen."""

from typing import Any

import lightning.pytorch as pl

from sdm_lightning.errors import InputError


class ImageBudget(pl.Callback):
    """Stops training after a number of images, whatever the batch size and number of devices.

    Args:
        max_images: Over all processes; the paper's models see 20 million, its ablations 6 million.
            Images seen by the starting weights before this run do not count.

    Raises:
        InputError: If ``max_images`` is not positive.
    """

    def __init__(self, max_images: int = 20_000_000) -> None:
        if max_images < 1:
            raise InputError(f"max_images is {max_images}; it must be at least 1")
        self.max_images = max_images

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Stop a resumed run that has spent its budget already."""
        self._stop_if_spent(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Stop when the budget is spent."""
        self._stop_if_spent(trainer, pl_module)

    def _stop_if_spent(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if pl_module.images_seen - pl_module.images_before >= self.max_images:
            trainer.should_stop = True
