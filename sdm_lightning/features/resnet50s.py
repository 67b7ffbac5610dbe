"""The perceptual loss's network, timm's dilated resnet50s, and its weights."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdm_lightning.errors import InputError
from sdm_lightning.features.networks import fill, from_hub
from sdm_lightning.features.weights import check_hash, read_state

_IMAGENET_MODEL = "resnet50s.gluon_in1k"
_DILATED: dict[str, Any] = {"features_only": True, "output_stride": 8, "out_indices": (1, 2, 3, 4)}
_UNREACHABLE = (
    "perceptual.weights is 'imagenet'",
    "give the path of a weights file, or choose FeaturePerceptualLoss or PixelPyramidLoss, which "
    "are named in every log",
)

# Counters, the synchronised batch norm's working values, and the classifier's layer.
_NOT_NEEDED = re.compile(
    r"(^|\.)(num_batches_tracked|_tmp_running_mean|_tmp_running_var|_running_iter)$|^fc\."
)


def load_network(weights: str, sha256: str | None = None) -> tuple[nn.Module, str]:
    """Build the network with its weights, and name it.

    Args:
        weights: ``"imagenet"`` or a path; see ``ResNetPerceptualLoss``.
        sha256: Expected hash of the file, or its beginning.

    Returns:
        A module from images ``(B, 3, H, W)``, ImageNet-normalised, to four feature maps, and a
        name such as ``resnet50s-ade20k``.

    Raises:
        InputError: If the weights cannot be found, or are damaged or of another network.
    """
    # Building a network draws initial weights: the run's own random numbers stay untouched.
    # Weights created in inference mode cannot be trained with, so it is switched off.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        if weights == "imagenet":
            return from_hub(_IMAGENET_MODEL, *_UNREACHABLE, **_DILATED), "resnet50s-imagenet"
        import timm  # here: it takes a second, and most commands do without

        path = Path(weights).expanduser()
        if not path.is_file():
            raise InputError(
                f"perceptual.weights: {path}: no such weights file; give its path, or 'imagenet'"
            )
        if sha256 is not None:
            check_hash(path, sha256)
        state = {k: v for k, v in read_state(path).items() if not _NOT_NEEDED.search(k)}
        network: nn.Module = timm.create_model("resnet50s", **_DILATED)
        own = [key for key in network.state_dict() if not _NOT_NEEDED.search(key)]
        if extra := list(state)[len(own) :]:
            raise InputError(f"perceptual.weights: {path} has the unknown {extra[0]}")
        fill(network, state, path, "resnet50s")
    # The file of LaMa's loss names its stem's three convolutions conv1 to conv3.
    origin = "ade20k" if "conv3.weight" in state else re.sub(r"[^\w.-]+", "-", path.stem)
    return network, f"resnet50s-{origin}"
