"""A perceptual loss on features of a pretrained image network."""

from collections.abc import Sequence

from torch import Tensor, nn

from sdm_lightning.errors import InputError
from sdm_lightning.features.networks import (
    PretrainedNetwork,
    squared_distance,
    stage_channels,
    unit_length,
)
from sdm_lightning.features.reuse import stage_maps
from sdm_lightning.losses.perceptual import Encoded, NetworkPerceptualLoss


class FeaturePerceptualLoss(NetworkPerceptualLoss):
    """Distance of feature maps whose pixels are normalised over channels, as in LPIPS.

    For machines without the paper's ResNet, and for small images, which are enlarged to a size
    that the network can use. It is not the paper's loss, and its name says which network it uses.

    Args:
        network: ``efficientnet-lite0``, ``-lite1``, ``-lite2`` (weights from Python packages), or
            an architecture of timm with weights in its hub or in ``weights``.
        weights: A weights file instead of the network's own.
        sha256: First digits of that file's SHA-256.
        stages: Stages whose outputs are compared, counted from 0.
        min_size: Images with a shorter side below it are enlarged to it, bicubically.

    Raises:
        InputError: If the network or a stage is unknown; by ``prepare``, if its weights cannot be
            loaded.

    Source:
        Zhang et al. 2018 (LPIPS), Eq. 1, without its calibrated channel weights.
    """

    def __init__(
        self,
        network: str = "efficientnet-lite0",
        weights: str | None = None,
        sha256: str | None = None,
        stages: tuple[int, ...] = (0, 1, 2, 3),
        min_size: int = 128,
    ) -> None:
        super().__init__()
        known = range(len(stage_channels(network)))
        if not stages or not set(stages) <= set(known):
            raise InputError(
                f"perceptual.stages is {list(stages)}; name one or more of {list(known)}, the "
                f"stages of {network}"
            )
        self.network = network
        self.weights = weights
        self.sha256 = sha256
        self.stages: Sequence[int] = tuple(stages)
        self.min_size = min_size

    @property
    def name(self) -> str:  # type: ignore[override]
        """The network's name, with the file's name where weights were given."""
        return PretrainedNetwork.label(self.network, self.weights)

    def load(self) -> nn.Module:
        """Build the network with its weights."""
        return PretrainedNetwork(self.network, self.weights, self.sha256)

    def feature_maps(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """Return the chosen stages, each pixel's channels scaled to length 1."""
        assert isinstance(network, PretrainedNetwork)
        maps = stage_maps(network, images, self.stages, self.min_size)
        return [unit_length(x) for x in maps]

    def distance(self, prediction: Encoded, target: Encoded) -> Tensor:
        """Return the squared differences, summed over channels and stages, averaged over pixels."""
        return squared_distance(prediction, target)

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"network={self.name!r}, stages={self.stages}, min_size={self.min_size}"
