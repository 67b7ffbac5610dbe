"""Starting a new run from trained weights instead of random ones."""

from typing import Any

import lightning.pytorch as pl
from torch import nn

from sdm_lightning.errors import InputError
from sdm_lightning.inference.weights import load_discriminator_state, load_generator


class StartingWeights(pl.Callback):
    """Loads trained weights into generator and average before the first batch of a new run.

    For fine-tuning released weights on one's own photos. A resumed run is left alone: its own
    checkpoint counts. Optimizers start anew; ``images_seen`` goes on from the weights' own count.

    Args:
        weights: Name of bundled weights, ``.safetensors`` file, or ``.ckpt`` of another run.
        discriminator: Load the discriminator too, where the file holds one.

    Raises:
        InputError: If the weights cannot be read.
    """

    def __init__(self, weights: str, discriminator: bool = True) -> None:
        self.weights = weights
        self.network, self.info = load_generator(weights)
        self.discriminator_state = load_discriminator_state(weights) if discriminator else None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Fills the networks, on every process alike."""
        if trainer.ckpt_path is not None:
            return
        state = self.network.state_dict()
        _load(pl_module.generator, state, self.weights, "model.generator")
        _load(pl_module.generator_ema, state, self.weights, "model.generator")
        if self.discriminator_state is not None:
            other = self.discriminator_state
            _load(pl_module.discriminator, other, self.weights, "model.discriminator")
        pl_module.images_seen = self.info.images_seen or 0


def _load(module: nn.Module, state: dict[str, Any], weights: str, key: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"{weights}: its weights do not fit {key} as configured: {lines[-1]}"
        ) from error
