"""A perceptual distance on any pretrained image network, for pairs of images."""

import torch
from torch import Tensor, nn

from sdm_lightning.features.images import full_float32
from sdm_lightning.features.networks import (
    PretrainedNetwork,
    resized_between,
    squared_distance,
    unit_length,
)

MIN_SIZE = 128
"""Images with a shorter side below it are enlarged to it, bicubically."""


class FeatureDistance(nn.Module):
    """LPIPS without calibrated channel weights, on another network.

    It compares the outputs of the first five stages. For machines without AlexNet's weights. Its
    values compare only among themselves, so the metric is never called LPIPS: it is
    ``feature_distance[<network>]``.

    Args:
        network: Key of ``FEATURE_NETWORKS``, or an architecture of timm.

    Attributes:
        label: The network's name.
        sha256: Hash of its weights.

    Raises:
        InputError: See ``PretrainedNetwork``.

    Source:
        Zhang et al. 2018 (LPIPS), Eq. 1, with all channel weights 1.
    """

    def __init__(self, network: str) -> None:
        super().__init__()
        self.network = PretrainedNetwork(network)
        self.label = self.network.name
        self.sha256 = self.network.sha256
        # Some networks have four.
        self.stages = tuple(range(min(5, len(self.network.network.feature_info))))

    def forward(self, completed: Tensor, image: Tensor) -> Tensor:
        """Measure the distance of each pair, in float32 even under autocast.

        Args:
            completed: uint8 ``(B, 3, H, W)``.
            image: uint8 ``(B, 3, H, W)``.

        Returns:
            ``(B,)``, at least 0.
        """
        with torch.no_grad(), full_float32(image.device):
            first, second = (
                [unit_length(maps) for maps in self.network.stages(levels, self.stages)]
                for levels in (resized_between(x.float(), MIN_SIZE) for x in (completed, image))
            )
        return squared_distance(first, second)
