"""LPIPS (AlexNet), the learned perceptual distance of the published protocol."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from sdm_lightning.errors import InputError
from sdm_lightning.features.images import full_float32
from sdm_lightning.features.weights import PublishedWeights, find_published, load_state

ALEXNET = PublishedWeights(
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    sha256="7be5be79",
    argument="lpips_weights",
    stand_in="lpips=null, with distance=efficientnet-lite2 in its place",
)

LPIPS_MIN_SIZE = 32
"""Side below which it does not exist."""


class LPIPS(nn.Module):
    """LPIPS with AlexNet: the ``lpips`` package's calibrated heads on torchvision's backbone.

    Attributes:
        label: Appended to the metric's name in brackets; empty with the published weights.
        sha256: Hash of the backbone's weights.

    Args:
        weights: Local path of ``alexnet-owt-7be5be79.pth``; None looks in torch hub's cache.
        weights_sha256: First digits of another file's hash, to allow it; scores carry them.
        download: Fetch the published file into torch hub's cache if it is not there.

    Raises:
        InputError: If the file is missing, is another one, or does not fit the network.

    Source: Zhang et al. 2018.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        weights_sha256: str | None = None,
        download: bool = False,
    ) -> None:
        super().__init__()
        from lpips import LPIPS as Network

        file, self.sha256 = find_published(ALEXNET, weights, weights_sha256, download)
        state = load_state(file, ALEXNET)
        self.label = "" if self.sha256.startswith(ALEXNET.sha256) else f"alex-{self.sha256[:8]}"
        # The package would download the backbone itself; pnet_rand prevents that.
        # Its random initial weights must not advance the generator that a model starts from.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about renamed arguments of torchvision
            self.network = Network(net="alex", pnet_rand=True, verbose=False)
        self._copy_backbone(state, file)
        self.requires_grad_(False)
        self.eval()

    def _copy_backbone(self, state: dict[str, Tensor], file: Path) -> None:
        # slice1.0.weight here is features.0.weight there: layers keep their numbers.
        own = {name: f"features.{name.split('.', 1)[1]}" for name in self.network.net.state_dict()}
        try:
            self.network.net.load_state_dict({name: state[key] for name, key in own.items()})
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"{file}: not the state dict of torchvision's AlexNet ({error})".replace("\n", " ")
            ) from error

    def train(self, mode: bool = True) -> "LPIPS":
        """Stay in evaluation mode: the heads have dropout."""
        return super().train(False)

    def forward(self, completed: Tensor, image: Tensor) -> Tensor:
        """Measure the distance of each pair, in float32 even under autocast.

        Args:
            completed: uint8 ``(B, 3, H, W)``, at least 32 pixels on each side.
            image: uint8 ``(B, 3, H, W)``.

        Returns:
            ``(B,)``, at least 0; NaN for images smaller than 32 pixels.
        """
        if min(image.shape[-2:]) < LPIPS_MIN_SIZE:
            return torch.full((len(image),), torch.nan, device=image.device)
        with torch.no_grad(), full_float32(image.device):
            scaled = [(x.float() / 127.5 - 1).clamp(-1, 1) for x in (completed, image)]
            distances: Tensor = self.network(*scaled).flatten()
        return distances
