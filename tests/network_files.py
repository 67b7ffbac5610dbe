"""Weights files in the published formats, with random values."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_inception(tmp_path_factory.mktemp("inception"))


def random_inception(folder: Path) -> Path:
    """Write a state dict that fits torch-fidelity's Inception, as its weights file holds it."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    empty = folder / "empty.pth"
    torch.save({}, empty)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=empty)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            deviation = (2 / parameter[0].numel()) ** 0.5
            parameter.data.normal_(0, deviation, generator=generator)
    path = folder / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def alexnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict that fits torchvision's AlexNet (features only: the rest is 230 MB)."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        0: (64, 3, 11),
        3: (192, 64, 5),
        6: (384, 192, 3),
        8: (256, 384, 3),
        10: (256, 256, 3),
    }
    state = {}
    for index, (outputs, inputs, side) in shapes.items():
        weight = torch.randn(outputs, inputs, side, side, generator=generator)
        state[f"features.{index}.weight"] = weight * (2 / (inputs * side * side)) ** 0.5
        state[f"features.{index}.bias"] = torch.randn(outputs, generator=generator) * 0.01
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.save(state, path)
    return path


def random_resnet(folder: Path) -> Path:
    """Write untrained weights for ``ResNetPerceptualLoss``, in timm's layout."""
    import timm

    path = folder / "resnet50s.pth"
    torch.save(timm.create_model("resnet50s", num_classes=0).state_dict(), path)
    return path
