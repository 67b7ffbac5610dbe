"""Exponential moving average of the generator, measured in images (Karras et al. 2018; Sec. 4.2).

Lightning's own weight averaging covers the whole module, discriminator and all, and counts
optimizer steps; here only the generator is averaged, and the half-life is in images seen, so that
it means the same for every batch size and number of devices.
"""

import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class AverageSettings:
    """How slowly the average follows.

    Attributes:
        half_life_images: Half-life of old weights, in images. The paper does not state its value;
            its predecessors' 512x512 recipes use 10,000.
        ramp_up: If given, the half-life is at most ``ramp_up * images_seen``, so that the average
            forgets the random start (0.05 in StyleGAN2-ADA).
    """

    half_life_images: float = 10_000.0
    ramp_up: float | None = None

    def decay(self, images_seen: int, batch_images: int) -> float:
        """Return the weight of the old average after ``batch_images`` more images."""
        half_life = self.half_life_images
        if self.ramp_up is not None:
            half_life = min(half_life, self.ramp_up * images_seen)
        return float(0.5 ** (batch_images / max(half_life, 1e-8)))


def averaged_copy(module: ModuleT) -> ModuleT:
    """Return a frozen copy in evaluation mode, which ``update_average`` then moves."""
    return copy.deepcopy(module).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move each averaged parameter towards the live one; copy buffers.

    Args:
        average: What ``averaged_copy`` returned.
        module: The live module.
        decay: Weight of the old average, in [0, 1].
    """
    old: list[torch.Tensor] = list(average.parameters())
    torch._foreach_lerp_(old, [p.detach() for p in module.parameters()], 1.0 - decay)
    for target, source in zip(average.buffers(), module.buffers(), strict=True):
        target.copy_(source)
