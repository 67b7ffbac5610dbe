"""Several perceptual losses as one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdm_lightning.errors import InputError
from sdm_lightning.losses.perceptual import (
    Encoded,
    PerceptualLoss,
    checked_distance,
    checked_encoding,
)


class WeightedPerceptualLoss(PerceptualLoss):
    """A weighted sum of perceptual losses.

    Args:
        losses: The parts.
        weights: One factor each.

    Raises:
        InputError: If there are not as many weights as losses, or none.
    """

    def __init__(self, losses: list[PerceptualLoss], weights: list[float]) -> None:
        super().__init__()
        if not losses or len(losses) != len(weights):
            raise InputError(
                f"perceptual has {len(losses)} losses and {len(weights)} weights; give one weight "
                "for each loss"
            )
        self.losses: Sequence[PerceptualLoss] = nn.ModuleList(losses)  # type: ignore[assignment]
        self.weights = [float(weight) for weight in weights]

    @property
    def name(self) -> str:  # type: ignore[override]
        """All parts with their factors, such as ``efficientnet-lite0+0.5*pixel-pyramid``."""
        pairs = zip(self.weights, self.losses, strict=True)
        return "+".join(loss.name if w == 1 else f"{w:g}*{loss.name}" for w, loss in pairs)

    def prepare(self) -> None:
        """Load the weights of all parts."""
        for loss in self.losses:
            loss.prepare()

    def encode(self, images: Tensor) -> list[Encoded]:
        """Return each part's encoding of images ``(B, 3, H, W)`` in [-1, 1]."""
        return [checked_encoding(loss, images) for loss in self.losses]

    def distance(self, prediction: Encoded, target: Encoded) -> Tensor:
        """Return the weighted sum of the parts' distances, ``(B,)``."""
        parts = zip(self.weights, self.losses, prediction, target, strict=True)
        return torch.stack([w * checked_distance(loss, a, b) for w, loss, a, b in parts]).sum(0)
