"""A perceptual loss without a network: pixel differences at several scales."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sdm_lightning.errors import InputError
from sdm_lightning.losses.perceptual import Encoded, PerceptualLoss


class PixelPyramidLoss(PerceptualLoss):
    """Absolute pixel differences at several scales: for machines without weights, and for demos.

    It does not capture textures or objects; every key that it is logged under carries its name.

    Args:
        levels: Scales, each half the size of the one before, by averaging 2x2 pixels.

    Raises:
        InputError: For fewer than one level.
    """

    name = "pixel-pyramid"

    def __init__(self, levels: int = 3) -> None:
        super().__init__()
        if levels < 1:
            raise InputError(f"perceptual.levels is {levels}; it must be at least 1")
        self.levels = levels

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
        """Return each level's mean difference, summed over the levels, ``(B,)``."""
        means = [(a - b).flatten(1).abs().mean(1) for a, b in zip(prediction, target, strict=True)]
        return torch.stack(means).sum(0)

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"levels={self.levels}"
