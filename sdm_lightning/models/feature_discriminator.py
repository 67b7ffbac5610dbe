"""A discriminator on a pretrained network's feature maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from sdm_lightning.errors import InputError
from sdm_lightning.features.frozen import UsesFrozenNetwork
from sdm_lightning.features.networks import PretrainedNetwork, stage_channels
from sdm_lightning.features.reuse import stage_maps
from sdm_lightning.models.layers import LEAKY_SLOPE, full_precision

_GRID = 4
_GAIN = 4.0


class FeatureDiscriminator(UsesFrozenNetwork):
    """Classify image regions by a frozen network's feature maps, with one small head a stage.

    The frozen network knows textures and objects before the first batch, where the paper's
    discriminator has to learn them from the data. For small models and short trainings; it is not
    the paper's discriminator.

    Args:
        network: ``efficientnet-lite0``, ``-lite1``, ``-lite2`` (weights from Python packages), or
            an architecture of timm with weights in its hub or in ``weights``.
        weights: A weights file instead of the network's own.
        sha256: First digits of that file's SHA-256.
        stages: Stages whose outputs are classified, counted from 0.
        width: Channels of each head.
        min_size: Images with a shorter side below it are enlarged to it, bicubically.

    Raises:
        InputError: If the network is unknown or has no such stage; on first use, if its weights
            cannot be loaded.

    Source:
        Sauer et al. 2021 (Projected GANs), Sec. 3, without its random projections.
    """

    def __init__(
        self,
        network: str = "efficientnet-lite0",
        weights: str | None = None,
        sha256: str | None = None,
        stages: tuple[int, ...] = (1, 2, 3),
        width: int = 64,
        min_size: int = 96,
    ) -> None:
        super().__init__()
        known = stage_channels(network)
        if not stages or not set(stages) <= set(range(len(known))):
            raise InputError(
                f"discriminator.stages is {list(stages)}; name some of the {len(known)} stages of "
                f"{network}, counted from 0"
            )
        self.network = network
        self.weights = weights
        self.sha256 = sha256
        self.stages = tuple(stages)
        self.min_size = min_size
        self.heads = nn.ModuleList(_head(known[stage] + 1, width) for stage in self.stages)
        self.gains = nn.Parameter(torch.ones(len(self.stages)))

    def load(self) -> nn.Module:
        """Build the network with its weights."""
        return PretrainedNetwork(self.network, self.weights, self.sha256)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Classify images with their masks.

        Args:
            image: ``(B, 3, H, W)`` in [-1, 1].
            mask: ``(B, 1, H, W)``, 1 = known.

        Returns:
            Logits, float32 ``(B, 16 * stages)``: a grid of 4 x 4 regions for each stage.
        """
        network = self.network_on(image.device)
        assert isinstance(network, PretrainedNetwork)
        logits = []
        maps = stage_maps(network, image, self.stages, self.min_size)
        with full_precision(image):
            for x, head, gain in zip(maps, self.heads, self.gains, strict=True):
                x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-4)
                share = F.adaptive_avg_pool2d(mask.float(), (x.shape[-2], x.shape[-1])) - 0.5
                regions = head(torch.cat([x, share], dim=1)) * (_GAIN * gain)
                logits.append(F.adaptive_avg_pool2d(regions, _GRID).flatten(1))
        return torch.cat(logits, dim=1)


def _head(in_channels: int, width: int) -> nn.Module:
    def layer(inputs: int, outputs: int, size: int) -> nn.Module:
        layer: nn.Module = spectral_norm(nn.Conv2d(inputs, outputs, size, padding=size // 2))
        return layer

    return nn.Sequential(
        layer(in_channels, width, 1), nn.LeakyReLU(LEAKY_SLOPE),
        layer(width, width, 3), nn.LeakyReLU(LEAKY_SLOPE),
        layer(width, 1, 3),
    )  # fmt: skip
