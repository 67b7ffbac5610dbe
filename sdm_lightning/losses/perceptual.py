"""Perceptual losses: their base classes, and the paper's high-receptive-field loss (Eq. 9)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sdm_lightning.constants import constant
from sdm_lightning.errors import InputError, described, require_one_per_image
from sdm_lightning.features.frozen import UsesFrozenNetwork
from sdm_lightning.features.resnet50s import load_network

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

Encoded = Sequence[Any]
"""What ``encode`` returns: feature maps, or one such sequence per part of a combined loss."""


class PerceptualLoss(nn.Module, ABC):
    """Distance of two images, one number per image.

    Attributes:
        name: Appears in every logged key, so that a stand-in is never taken for the paper's loss.
    """

    name: str

    @abstractmethod
    def encode(self, images: Tensor) -> Encoded:
        """Compute what is compared.

        Args:
            images: ``(B, 3, H, W)`` in [-1, 1].

        Returns:
            Maps ``(B, C_i, H_i, W_i)``, float32.
        """

    @abstractmethod
    def distance(self, prediction: Encoded, target: Encoded) -> Tensor:
        """Return the distance of two results of ``encode``, ``(B,)``."""

    def forward(self, prediction: Tensor, target: Tensor | Encoded) -> Tensor:
        """Return the loss of each image; gradients reach the prediction only.

        Args:
            prediction: ``(B, 3, H, W)`` in [-1, 1].
            target: As the prediction, or ``encode(target)`` where a target is used again.

        Returns:
            ``(B,)``, float32, >= 0.

        Raises:
            InputError: If ``encode`` or ``distance`` returns anything but what it is to.
        """
        encoded = checked_encoding(self, prediction)
        if isinstance(target, Tensor):
            with torch.no_grad():
                target = self.encode(target)
        return checked_distance(self, encoded, _detached(target), len(prediction))

    def prepare(self) -> None:
        """Load whatever the first call needs, so that missing weights are reported early."""


class NetworkPerceptualLoss(UsesFrozenNetwork, PerceptualLoss):
    """A distance of a pretrained network's feature maps, computed without autocast.

    TF32 stays as it is set: a loss does not need the digits that it costs, and scores use
    ``sdm_lightning.features.images.full_float32``.
    """

    @abstractmethod
    def feature_maps(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """Return the maps that are compared, of float32 images ``(B, 3, H, W)`` in [-1, 1]."""

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the network's feature maps of images ``(B, 3, H, W)`` in [-1, 1]."""
        network = self.network_on(images.device)
        with torch.autocast(images.device.type, enabled=False):
            return self.feature_maps(network, images.float())


class ResNetPerceptualLoss(NetworkPerceptualLoss):
    """Squared distance of four feature maps of a dilated ResNet-50.

    The network is timm's ``resnet50s`` (three 3x3 convolutions in the stem) dilated to stride 8;
    the maps are the outputs of its four stages. LaMa's loss uses the same network trained to
    segment ADE20K, which gives it its high receptive field.

    Args:
        weights: ``"imagenet"``: timm's ``resnet50s.gluon_in1k`` from its hub or cache. A path:
            LaMa's ``encoder_epoch_20.pth`` (ADE20K), or a file of timm's own layout (``.pth`` or
            ``.safetensors``).
        reduction: ``"mean"``: each map's mean squared difference (LaMa); ``"sum"``: its sum
            (Eq. 9 as printed). The four maps are added up either way.
        sha256: If given, the file's expected SHA-256; its first digits are enough.

    Raises:
        InputError: For an unknown reduction; by ``prepare``, for weights that cannot be loaded.

    Source:
        Eq. 9; Suvorov et al. 2022 (LaMa), Sec. 2.2.
    """

    def __init__(
        self,
        weights: str = "imagenet",
        reduction: Literal["mean", "sum"] = "mean",
        sha256: str | None = None,
    ) -> None:
        super().__init__()
        self.weights = str(weights)
        if reduction not in ("mean", "sum"):
            raise InputError(f"perceptual.reduction is {reduction!r}; choose mean or sum")
        self.reduction = reduction
        self.sha256 = sha256
        self._name = f"resnet50s-{self.weights}"

    @property
    def name(self) -> str:  # type: ignore[override]
        """``resnet50s-imagenet``, ``-ade20k``, or ``-`` and the file's name."""
        if self.weights != "imagenet":
            self.prepare()  # only the file itself shows whether it is ADE20K's
        return self._name

    def load(self) -> nn.Module:
        """Build the network with its weights."""
        network, self._name = load_network(self.weights, self.sha256)
        return network

    def feature_maps(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """Return the four stages: strides 4, 8, 8, 8; 256, 512, 1024, 2048 channels."""
        mean, std = (
            constant(values, images.device).view(1, 3, 1, 1)
            for values in (_IMAGENET_MEAN, _IMAGENET_STD)
        )
        maps: list[Tensor] = network((images * 0.5 + 0.5 - mean) / std)
        return maps

    def distance(self, prediction: Encoded, target: Encoded) -> Tensor:
        """Return Eq. 9 with the chosen reduction, ``(B,)``."""
        squares = [(a - b).flatten(1).square() for a, b in zip(prediction, target, strict=True)]
        return torch.stack([getattr(x, self.reduction)(1) for x in squares]).sum(0)

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"weights={self.weights!r}, reduction={self.reduction!r}"


def checked_encoding(loss: PerceptualLoss, images: Tensor) -> Encoded:
    """Return ``loss.encode(images)``; raise ``InputError`` if it is no list."""
    encoded = loss.encode(images)
    if not isinstance(encoded, (list, tuple)):
        raise InputError(
            f"{type(loss).__name__}.encode returned {described(encoded)}; it must return a list "
            "of tensors"
        )
    return encoded


def checked_distance(
    loss: PerceptualLoss, prediction: Encoded, target: Encoded, num_images: int | None = None
) -> Tensor:
    """Return ``loss.distance(...)``; raise ``InputError`` if it is not one number per image."""
    distance = loss.distance(prediction, target)
    require_one_per_image(distance, num_images, f"{type(loss).__name__}.distance")
    return distance


def _detached(encoded: Encoded) -> Encoded:
    return [part.detach() if isinstance(part, Tensor) else _detached(part) for part in encoded]
