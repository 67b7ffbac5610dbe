"""The perceptual loss's network, timm's dilated resnet50s, and its weights."""

import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sdm_lightning.errors import InputError
from sdm_lightning.features.networks import from_hub
from sdm_lightning.features.weights import check_hash, read_state

_IMAGENET_MODEL = "resnet50s.gluon_in1k"
_DILATED: dict[str, Any] = {"features_only": True, "output_stride": 8, "out_indices": (1, 2, 3, 4)}
_UNREACHABLE = (
    "perceptual.weights is 'imagenet'",
    "give the path of a weights file, or choose 'random' or PixelPyramidLoss, which are named in "
    "every log",
)

# The stem of the ADE20K file, and where timm keeps the same three convolutions.
_STEM = {
    "conv1": "conv1.0",
    "bn1": "conv1.1",
    "conv2": "conv1.3",
    "bn2": "conv1.4",
    "conv3": "conv1.6",
    "bn3": "bn1",
}
# Counters, the synchronised batch norm's working values, and the classifier's layer.
_NOT_NEEDED = re.compile(
    r"(^|\.)(num_batches_tracked|_tmp_running_mean|_tmp_running_var|_running_iter)$|^fc\."
)


def load_network(weights: str, sha256: str | None = None) -> tuple[nn.Module, str]:
    """Build the network with its weights, and name it.

    Args:
        weights: ``"imagenet"``, ``"random"`` or a path; see ``ResNetPerceptualLoss``.
        sha256: Expected hash of the file, or its beginning.

    Returns:
        A module from images ``(B, 3, H, W)``, ImageNet-normalised, to four feature maps, and a
        name such as ``resnet50s-ade20k``.

    Raises:
        InputError: If the weights cannot be found, or are damaged or of another network.
    """
    # Building a network draws initial weights: the run's own random numbers stay untouched, and
    # "random" weights are the same on every rank and in every run.
    # (torch.manual_seed would also reset the accelerators' generators, which are not restored.)
    # Weights created in inference mode cannot be trained with, so it is switched off.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.default_generator.manual_seed(0)
        if weights == "imagenet":
            network, origin = from_hub(_IMAGENET_MODEL, *_UNREACHABLE, **_DILATED), "imagenet"
        elif weights == "random":
            network, origin = _random_network(), "random"
        else:
            network = _build()
            origin = _load_file(network, Path(weights).expanduser(), sha256)
    return network, f"resnet50s-{origin}"


def _build(**options: Any) -> nn.Module:
    import timm  # here: it takes a second, and most commands do without

    network: nn.Module = timm.create_model("resnet50s", **_DILATED, **options)
    return network


def _random_network() -> nn.Module:
    # timm starts each residual branch at zero, which would leave a chain of 1x1 convolutions.
    network = _build(zero_init_last=False)
    # Without fitting statistics the features would grow with each of the 16 blocks.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # take the batch's own
    with torch.no_grad():
        noise = sum(
            F.interpolate(torch.randn(4, 3, size, size), (64, 64), mode="bilinear")
            for size in (2, 4, 8, 16, 32)
        )
        network.train()(noise)
    return network


def _load_file(network: nn.Module, path: Path, sha256: str | None) -> str:
    """Copy a file's weights into the network and return their name."""
    if not path.is_file():
        raise InputError(
            f"perceptual.weights: {path} is not a file; give the path of LaMa's ADE20K "
            "encoder_epoch_20.pth, or 'imagenet'"
        )
    if sha256 is not None:
        check_hash(path, sha256)
    state = read_state(path)
    is_ade20k = "conv3.weight" in state
    if is_ade20k:
        state = {_timm_name(key): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if not _NOT_NEEDED.search(key)}
    own = network.state_dict()
    wanted = {key for key in own if not _NOT_NEEDED.search(key)}
    for problem, keys in (
        ("lacks", wanted - state.keys()),
        ("has the unknown", state.keys() - wanted),
        (
            "has another shape for",
            {key for key in wanted & state.keys() if own[key].shape != state[key].shape},
        ),
    ):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise InputError(
                f"perceptual.weights: {path} {problem} {min(keys)}{more}; expected the encoder of "
                "LaMa's ADE20K resnet50dilated, or timm's resnet50s"
            )
    network.load_state_dict(state, strict=False)
    return "ade20k" if is_ade20k else re.sub(r"[^\w.-]+", "-", path.stem)


def _timm_name(key: str) -> str:
    first, _, rest = key.partition(".")
    return f"{_STEM.get(first, first)}.{rest}"
