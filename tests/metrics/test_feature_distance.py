"""The uncalibrated feature distance."""

import pytest
import timm
import torch

from sdm_lightning.losses import FeaturePerceptualLoss
from sdm_lightning.metrics.feature_distance import FeatureDistance


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


def test_is_zero_for_equal_images_and_grows_with_noise(images: torch.Tensor) -> None:
    distance = FeatureDistance("efficientnet-lite0")
    assert distance.label == "efficientnet-lite0"
    assert distance(images, images).tolist() == [0.0] * 3
    flat = torch.full_like(images, 128)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    weak, strong = ((128 + s * noise).clamp(0, 255).to(torch.uint8) for s in (2, 40))
    assert (distance(weak, flat) < distance(strong, flat)).all()


def test_a_network_of_four_stages_is_compared_by_them(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sdm_lightning.features.networks.from_hub",
        lambda architecture, *_, **options: timm.create_model(architecture, **options),
    )
    distance = FeatureDistance("convnext_atto")
    assert distance.stages == (0, 1, 2, 3)
    assert distance(images, images.flip(3)).min() > 0


def test_is_the_loss_with_the_same_settings(images: torch.Tensor) -> None:
    other = images.flip(3)
    loss = FeaturePerceptualLoss("efficientnet-lite0", stages=(0, 1, 2, 3, 4), min_size=128)
    scaled = [x.float() / 127.5 - 1 for x in (images, other)]
    expected = loss.distance(*(loss.encode(x) for x in scaled))
    found = FeatureDistance("efficientnet-lite0")(images, other)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
