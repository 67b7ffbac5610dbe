"""The high-receptive-field perceptual loss (Eq. 9), and a stand-in that needs no weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdm_lightning.errors import InputError
from sdm_lightning.features.resnet50s import load_network

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class PerceptualLoss(nn.Module, ABC):
    """Distance of two images, one number per image.

    Attributes:
        name: Appears in every logged key, so that a stand-in is never taken for the real thing.
    """

    name: str

    @abstractmethod
    def encode(self, images: Tensor) -> list[Tensor]:
        """What is compared.

        Args:
            images: ``(B, 3, H, W)`` in [-1, 1].

        Returns:
            Maps ``(B, C_i, H_i, W_i)``, float32.
        """

    @abstractmethod
    def distance(self, prediction: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
        """Distance of two results of ``encode``; ``(B,)``."""

    def forward(self, prediction: Tensor, target: Tensor | Sequence[Tensor]) -> Tensor:
        """The loss of each image; gradients reach the prediction only.

        Args:
            prediction: ``(B, 3, H, W)`` in [-1, 1].
            target: As the prediction, or ``encode(target)`` if the same target is used again.

        Returns:
            ``(B,)``, float32, >= 0.
        """
        if isinstance(target, Tensor):
            with torch.no_grad():
                target = self.encode(target)
        return self.distance(self.encode(prediction), [part.detach() for part in target])

    def prepare(self) -> None:
        """Loads whatever the first call needs, so that what is missing is missed early."""


class ResNetPerceptualLoss(PerceptualLoss):
    """Squared distance of four feature maps of a dilated ResNet-50.

    The network is timm's ``resnet50s`` (three 3x3 convolutions in the stem) dilated to stride 8;
    the maps are the outputs of its four stages. LaMa's loss uses the same network trained to
    segment ADE20K, whose features have seen far and wide.

    Weights are loaded by ``prepare`` or by the first call, not by the constructor: a model that is
    only tested or asked to inpaint needs none. The network is frozen for good: it is no child
    module, so it is neither trained nor counted nor saved, and ``train()`` does not reach its
    batch norms. It follows the module to its device, and always computes in float32.

    Args:
        weights: ``"imagenet"``: timm's ``resnet50s.gluon_in1k`` from its hub or cache. A path:
            LaMa's ``encoder_epoch_20.pth`` (ADE20K), or a file of timm's own layout (``.pth`` or
            ``.safetensors``). ``"random"``: no knowledge, the same untrained network everywhere.
        reduction: ``"mean"``: each map's mean squared difference (LaMa); ``"sum"``: its sum
            (Eq. 9 as printed). The four maps are added up either way.
        sha256: If given, the file's expected SHA-256; a beginning of it is enough.

    Raises:
        InputError: For an unknown reduction; by ``prepare``, for weights that cannot be had.

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
        self.reduction = _checked_reduction(reduction)
        self.sha256 = sha256
        # In a list, and so out of sight of nn.Module.
        self._network: list[nn.Module] = []
        self._name = f"resnet50s-{self.weights}"

    @property
    def name(self) -> str:  # type: ignore[override]
        """``resnet50s-imagenet``, ``-ade20k``, ``-random``, or ``-`` and the file's name."""
        if self.weights not in ("imagenet", "random"):
            self.prepare()  # only the file itself tells whose it is
        return self._name

    def prepare(self) -> None:
        """Loads the weights unless that has been done.

        Raises:
            InputError: If they are out of reach, damaged or of another network.
        """
        if self._network:
            return
        network, self._name = load_network(self.weights, self.sha256)
        self._network.append(network.float().eval().requires_grad_(False))

    def encode(self, images: Tensor) -> list[Tensor]:
        """Features of the four stages: strides 4, 8, 8, 8; 256, 512, 1024, 2048 channels."""
        self.prepare()
        network = self._network[0]
        if next(network.parameters()).device != images.device:
            self._move(images.device)
        mean, std = (
            torch.tensor(values, device=images.device).view(1, 3, 1, 1)
            for values in (_IMAGENET_MEAN, _IMAGENET_STD)
        )
        with torch.autocast(images.device.type, enabled=False):
            features: list[Tensor] = network((images.float() * 0.5 + 0.5 - mean) / std)
        return features

    def distance(self, prediction: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
        """Eq. 9, with the reduction chosen; ``(B,)``."""
        return _total_distance(prediction, target, "l2", self.reduction)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"weights={self.weights!r}, reduction={self.reduction!r}"

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> "ResNetPerceptualLoss":
        super()._apply(fn, recurse)
        # Asked of an empty tensor: devices are followed, changes of precision are not.
        for network in self._network:
            self._move(fn(next(network.parameters()).new_empty(0)).device)
        return self

    def _move(self, device: torch.device) -> None:
        with torch.inference_mode(False):
            for network in self._network:
                network.to(device)


class PixelPyramidLoss(PerceptualLoss):
    """Pixel differences at several scales: a stand-in for machines without weights, and for demos.

    It knows nothing of textures or objects; its name says so wherever its number appears.

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
        reduction: Literal["mean", "sum"] = "mean",
        norm: Literal["l1", "l2"] = "l1",
    ) -> None:
        super().__init__()
        if levels < 1:
            raise InputError(f"perceptual.levels is {levels}; it must be at least 1")
        if norm not in ("l1", "l2"):
            raise InputError(f"perceptual.norm is {norm!r}; choose l1 or l2")
        self.levels = levels
        self.reduction = _checked_reduction(reduction)
        self.norm = norm

    def encode(self, images: Tensor) -> list[Tensor]:
        """The image at full, half, quarter ... size.

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

    def distance(self, prediction: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
        """Sum over the levels; ``(B,)``."""
        return _total_distance(prediction, target, self.norm, self.reduction)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"levels={self.levels}, reduction={self.reduction!r}, norm={self.norm!r}"


def _checked_reduction(reduction: str) -> str:
    if reduction not in ("mean", "sum"):
        raise InputError(f"perceptual.reduction is {reduction!r}; choose mean or sum")
    return reduction


def _total_distance(
    prediction: Sequence[Tensor], target: Sequence[Tensor], norm: str, reduction: str
) -> Tensor:
    distances = []
    for a, b in zip(prediction, target, strict=True):
        difference = (a - b).flatten(1)
        difference = difference.abs() if norm == "l1" else difference.square()
        distances.append(difference.mean(1) if reduction == "mean" else difference.sum(1))
    return torch.stack(distances).sum(0)
