"""Random latent code of the style: 8 fully connected layers from Gaussian noise (supplement A)."""

import torch
from torch import Tensor, nn

from sdm_lightning.models.layers import EqualizedLinear, widen

AVERAGE_DECAY = 0.995
"""Decay per update of the running average, as in StyleGAN2."""


class MappingNetwork(nn.Module):
    """Maps Gaussian noise z to the latent code w and keeps a running average of w.

    The buffer ``average`` is the code used when none is given. Callers reduce the batch mean over
    all processes before `update_average`, since buffers are not synchronised.

    Args:
        latent_dim: Width of z and w.
        num_layers: Fully connected layers.
        lr_multiplier: Learning-rate factor of these layers (StyleGAN2: 0.01).

    Source:
        Supplement A; Karras et al. 2019 (StyleGAN), Sec. 2, with StyleGAN2's settings.
    """

    average: Tensor

    def __init__(
        self,
        latent_dim: int = 512,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.layers = nn.Sequential(
            *(
                EqualizedLinear(latent_dim, latent_dim, True, lr_multiplier=lr_multiplier)
                for _ in range(num_layers)
            )
        )
        self.register_buffer("average", torch.zeros(latent_dim))

    def forward(self, z: Tensor) -> Tensor:
        """Map noise ``(B, latent_dim)`` to codes ``(B, latent_dim)``."""
        z = widen(z)
        z = z * torch.rsqrt(z.square().mean(dim=-1, keepdim=True) + 1e-8)
        return self.layers(z)

    @torch.no_grad()
    def update_average(self, batch_mean: Tensor) -> None:
        """Move the running average towards the mean code ``(latent_dim,)`` of a batch."""
        self.average.lerp_(batch_mean.detach().to(self.average), 1.0 - AVERAGE_DECAY)
