"""A perceptual loss without a network: pixel differences at several scales."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from sdm_lightning.errors import InputError
from sdm_lightning.losses.perceptual import (
    Encoded,
    PerceptualLoss,
    Reduction,
    checked_reduction,
    total_distance,
)


class PixelPyramidLoss(PerceptualLoss):
    """Pixel differences at several scales: a stand-in for machines without weights, and for demos.

    It does not capture textures or objects; every key that it is logged under carries its name.

    Args:
        levels: Scales, each half the size of the one before, by averaging 2x2 pixels.
        reduction: Over each level's pixels: ``"mean"`` or ``"sum"``. Levels are added up.
        norm: ``"l1"`` or ``"l2"`` (squared).

    Raises:
        InputError: For an unknown reduction or norm, or fewer than one level.
    """

    name = "pixel-pyramid"

    def __init__(
        self,
        levels: int = 3,
        reduction: Reduction = "mean",
        norm: Literal["l1", "l2"] = "l1",
    ) -> None:
        super().__init__()
        if levels < 1:
            raise InputError(f"perceptual.levels is {levels}; it must be at least 1")
        if norm not in ("l1", "l2"):
            raise InputError(f"perceptual.norm is {norm!r}; choose l1 or l2")
        self.levels = levels
        self.reduction = checked_reduction(reduction)
        self.norm = norm

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the image at full, half, quarter ... size.

        Raises:
            InputError: If the image is too small for that many levels.
        """
        if min(images.shape[-2:]) < 2 ** (self.levels - 1):
            raise InputError(
                f"perceptual.levels is {self.levels}, too many for images of "
                f"{images.shape[-2]}x{images.shape[-1]} pixels"
            )
        pyramid = [images.float()]
        for _ in range(self.levels - 1):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        return pyramid

    def distance(self, prediction: Encoded, target: Encoded) -> Tensor:
        """Return the sum over the levels, ``(B,)``."""
        return total_distance(prediction, target, self.norm, self.reduction)

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"levels={self.levels}, reduction={self.reduction!r}, norm={self.norm!r}"
