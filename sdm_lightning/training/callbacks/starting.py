"""Starting a new run from trained weights instead of random ones."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from sdm_lightning.errors import InputError
from sdm_lightning.inference.discriminators import load_discriminator
from sdm_lightning.inference.weights import find_weights, read_weights


class StartingWeights(pl.Callback):
    """Loads trained weights into the networks before the first batch of a new run.

    For fine-tuning released weights on one's own photos; ``sdm fit --start_from WEIGHTS`` adds it.
    A resumed run is left alone: its own checkpoint counts. Optimizers start anew. ``images_seen``
    continues from the weights' own count, of which ``budget.max_images`` takes no notice.

    Args:
        weights: Name of packaged weights, ``.safetensors`` file, ``.ckpt`` of another run, or its
            directory, which stands for its newest checkpoint. A discriminator that belongs to
            them is loaded too.

    Raises:
        InputError: If the weights cannot be read, or hold NaN or infinity.
    """

    def __init__(self, weights: str) -> None:
        path = find_weights(weights)
        self.weights = str(path)
        self.state, self.info = read_weights(path)
        self.discriminator_state, _ = load_discriminator(path)
        for state in (self.state, self.discriminator_state or {}):
            for name, tensor in state.items():
                if not bool(tensor.isfinite().all()):
                    raise InputError(
                        f"{path}: {name} holds NaN or infinity; start from another checkpoint"
                    )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Fill the networks, on every process alike."""
        if trainer.ckpt_path is not None:
            return
        _load(pl_module.generator, self.state, self.weights, "model.generator")
        _load(pl_module.generator_ema, self.state, self.weights, "model.generator")
        also = ""
        if self.discriminator_state is not None:
            try:
                other = self.discriminator_state
                _load(pl_module.discriminator, other, self.weights, "model.discriminator")
                also = "and discriminator "
            except InputError as error:
                # It is built for one size, while the generator runs at any: no reason to stop.
                rank_zero_warn(f"{error}; the discriminator starts from random weights")
        pl_module.images_seen = pl_module.images_before = self.info.images_seen or 0
        rank_zero_info(
            f"Starting from {self.weights}: generator {also}after {pl_module.images_seen:,} images"
        )


def _load(module: nn.Module, state: dict[str, Any], weights: str, key: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"{weights}: its weights do not fit {key} as configured: {lines[-1]}"
        ) from error
