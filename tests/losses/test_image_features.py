"""The perceptual loss on pretrained features, and sums of losses."""

import pytest
import torch
from torch.nn import functional as F

from sdm_lightning.errors import InputError
from sdm_lightning.features.networks import PretrainedNetwork
from sdm_lightning.losses import FeaturePerceptualLoss, PixelPyramidLoss, WeightedPerceptualLoss


def images(seed: int, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
    return F.interpolate(coarse, (size, size), mode="bilinear")


def test_distance_is_that_of_normalised_features_of_the_enlarged_image() -> None:
    a, b = images(0), images(1)
    network = PretrainedNetwork("efficientnet-lite0")
    expected = torch.zeros(2)
    enlarged = [
        F.interpolate(x * 127.5 + 127.5, (64, 64), mode="bicubic", align_corners=False)
        for x in (a, b)
    ]
    for x, y in zip(*(network.stages(z, (1, 3)) for z in enlarged), strict=True):
        expected += (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).mean((1, 2))
    loss = FeaturePerceptualLoss(stages=(1, 3), min_size=64)
    torch.testing.assert_close(loss(a, b), expected, rtol=1e-4, atol=1e-5)
    assert loss.name == "efficientnet-lite0"
    assert loss(a, a).abs().max() < 1e-6


def test_gradients_reach_the_prediction_in_float32_under_autocast() -> None:
    prediction, target = images(0).requires_grad_(), images(1)
    loss = FeaturePerceptualLoss(min_size=32)
    plain = loss(prediction, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(prediction, target), plain)
    plain.sum().backward()
    assert prediction.grad.abs().sum() > 0
    assert not list(loss.parameters())
    assert not loss.state_dict()


def test_blur_is_farther_from_the_original_than_a_shift_in_brightness() -> None:
    from skimage import data

    photo = torch.from_numpy(data.chelsea()[:256, 100:356]).permute(2, 0, 1)[None] / 127.5 - 1
    blurred = F.interpolate(F.avg_pool2d(photo, 4), photo.shape[-2:], mode="bilinear")
    brighter = (photo + 0.1).clamp(-1, 1)
    loss = FeaturePerceptualLoss()
    assert loss(blurred, photo) > 2 * loss(brighter, photo)


@pytest.mark.parametrize("stages", [(), (0, 7), (-1,)])
def test_stages_that_the_network_lacks_are_refused(stages: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"perceptual.stages is \[.*\[0, 1, 2, 3, 4\], the stages"):
        FeaturePerceptualLoss(stages=stages)


def test_weighted_sum_of_losses() -> None:
    a, b = images(0), images(1)
    parts = [FeaturePerceptualLoss(min_size=32), PixelPyramidLoss()]
    both = WeightedPerceptualLoss(parts, [1.0, 0.5])
    assert both.name == "efficientnet-lite0+0.5*pixel-pyramid"
    torch.testing.assert_close(both(a, b), parts[0](a, b) + 0.5 * parts[1](a, b))
    torch.testing.assert_close(both(a, both.encode(b)), both(a, b))


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(InputError, match="2 losses and 1 weights"):
        WeightedPerceptualLoss([PixelPyramidLoss(), PixelPyramidLoss()], [1.0])
    with pytest.raises(InputError, match="'lite0' is unknown"):
        FeaturePerceptualLoss("lite0")
