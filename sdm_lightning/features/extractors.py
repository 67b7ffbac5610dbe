"""Feature extractors for FID, P-IDS, U-IDS, precision and recall.

The published protocol's features are the 2048 pooled activations of the 2015 Inception network,
which resizes inside the graph as TensorFlow 1 did. Anything else is a stand-in: it has to be chosen
by name, and every metric key carries its name.
"""

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdm_lightning.errors import InputError, one_line
from sdm_lightning.features.images import full_float32, to_uint8
from sdm_lightning.features.networks import PretrainedNetwork, resized_between
from sdm_lightning.features.weights import (
    PublishedWeights,
    as_file,
    find_published,
    load_state,
    sha256_of_state,
)

INCEPTION = PublishedWeights(
    url=(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth"
    ),
    sha256="6726825d",
    argument="features_weights",
    stand_in=(
        "features=efficientnet-lite2 (extra `features`) or random-conv, whose scores carry its "
        "name and compare only with each other"
    ),
)


class FeatureExtractor(nn.Module):
    """Map images to feature rows, in float32 even under autocast.

    Attributes:
        name: Name of the network, such as ``inception-v3-compat``.
        label: Appended to each metric's name in brackets; empty for the protocol's network.
        sha256: Hash of the weights.
        dim: Length of a feature row.
    """

    name: str
    label: str
    sha256: str
    dim: int

    def extract(self, images: Tensor) -> Tensor:
        """Extract the features of a batch.

        Args:
            images: ``(B, 3, H, W)``, uint8, or float in [-1, 1] (quantised by rounding).

        Returns:
            float32 ``(B, dim)`` on the same device.
        """
        with torch.no_grad(), full_float32(images.device):
            return self(to_uint8(images)).float()

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stay in evaluation mode: batch statistics would change the metric."""
        return super().train(False)


class InceptionFeatures(FeatureExtractor):
    """The 2048 pooled features of torch-fidelity's ``inception-v3-compat``.

    Args:
        weights: Local path of ``weights-inception-2015-12-05-6726825d.pth``; None looks in torch
            hub's cache.
        weights_sha256: First digits of another file's hash, to allow it; scores carry them.
        download: Fetch the published file into torch hub's cache if it is not there.

    Raises:
        InputError: If the file is missing, is another one, or does not fit the network.
    """

    name = "inception-v3-compat"
    dim = 2048

    def __init__(
        self,
        weights: str | Path | None = None,
        weights_sha256: str | None = None,
        download: bool = False,
    ) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        file, self.sha256 = find_published(INCEPTION, weights, weights_sha256, download)
        state = load_state(file, INCEPTION)
        standard = self.sha256.startswith(INCEPTION.sha256)
        self.label = "" if standard else f"{self.name}-{self.sha256[:8]}"
        try:
            # torch-fidelity unpickles without restriction, so it gets tensors already read safely.
            # Its random initial weights must not advance the generator that a model starts from.
            with torch.random.fork_rng(devices=[]):
                self.network = FeatureExtractorInceptionV3(
                    self.name, ["2048"], feature_extractor_weights_path=as_file(state)
                )
        except RuntimeError as error:
            raise InputError(
                f"{file}: its tensors are not those of {INCEPTION.file_name} ({one_line(error)})"
            ) from error
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 ``(B, 3, H, W)`` to float32 ``(B, 2048)``."""
        features: Tensor = self.network(images)[0]
        return features


class RandomConvFeatures(FeatureExtractor):
    """A stand-in without any weights: fixed random convolutions on a 64x64 reduction.

    Its distances rank strong distortions and approach 0 for equal sets, but their values cannot be
    compared with those of another extractor.

    Args:
        dim: Length of a feature row.
        seed: Seed of the weights.
    """

    name = "random-conv"
    label = "random-conv"

    def __init__(self, dim: int = 256, seed: int = 0) -> None:
        super().__init__()
        self.dim = dim
        generator = torch.Generator().manual_seed(seed)
        widths = (3, 32, 64, dim)
        self.filters = nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
            self.filters.append(nn.Parameter(weight * (2 / (9 * inputs)) ** 0.5, False))
        self.sha256 = sha256_of_state(self.state_dict())
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 ``(B, 3, H, W)`` to float32 ``(B, dim)``."""
        x = images.float() / 127.5 - 1
        x = F.interpolate(x, (64, 64), mode="bilinear", antialias=True)
        for weight in self.filters:
            x = F.relu(F.conv2d(x, weight, stride=2, padding=1))
        return x.mean(dim=(2, 3))


class ImageNetworkFeatures(FeatureExtractor):
    """Pooled features of a pretrained image network, for scores without Inception's weights.

    Images whose shorter side is below 128 pixels are enlarged to it, those above 224 are reduced,
    both bicubically (reduced with antialiasing).

    Args:
        name: Key of ``FEATURE_NETWORKS``, or an architecture of timm.
        weights: A weights file instead of the network's own.
        weights_sha256: First digits of that file's hash.

    Raises:
        InputError: See ``PretrainedNetwork``.
    """

    min_size = 128
    max_size = 224

    def __init__(
        self, name: str, weights: str | Path | None = None, weights_sha256: str | None = None
    ) -> None:
        super().__init__()
        self.network = PretrainedNetwork(name, weights, weights_sha256)
        self.name = self.label = self.network.name
        self.dim = self.network.dim
        self.sha256 = self.network.sha256
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 ``(B, 3, H, W)`` to float32 ``(B, dim)``."""
        return self.network.pooled(resized_between(images.float(), self.min_size, self.max_size))


def build_features(
    name: str | None,
    weights: str | Path | None = None,
    weights_sha256: str | None = None,
    download: bool = False,
) -> FeatureExtractor | None:
    """Build the extractor of that name; None for None.

    Args:
        name: ``inception-v3-compat`` (the published protocol's), ``efficientnet-lite0`` or another
            network of ``FEATURE_NETWORKS`` or timm, or ``random-conv`` (an untrained stand-in).
        weights: Path of a weights file instead of the default place.
        weights_sha256: First digits of that file's hash.
        download: Fetch Inception's published file if it is not there.

    Raises:
        InputError: If the name is unknown, or the weights are missing or wrong.
    """
    if name is None:
        return None
    if name == InceptionFeatures.name:
        return InceptionFeatures(weights, weights_sha256, download)
    if name == RandomConvFeatures.name:
        if weights is not None:
            raise InputError("features_weights: random-conv takes no weights; leave it out")
        return RandomConvFeatures()
    return ImageNetworkFeatures(name, weights, weights_sha256)
