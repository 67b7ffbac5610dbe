"""A progress bar that counts images."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar

SHOWN = {
    "images_seen": "images",
    "train/adversarial": "G",
    "train/discriminator": "D",
    "train/likelihood": "nll",
}


class ImageProgressBar(TQDMProgressBar):
    """Shows images seen, the generator's terms and the discriminator's loss, in short names.

    Args:
        refresh_rate: Batches between two updates.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The figures behind the bar."""
        found: dict[str, Any] = super().get_metrics(trainer, pl_module)
        shown: dict[str, int | str | float | dict[str, float]] = {}
        for name, value in found.items():
            if name == "v_num":
                continue
            label = SHOWN.get(name, name.removeprefix("train/"))
            shown[label] = f"{int(value):,}" if name == "images_seen" else value
        return shown
