"""The discriminator on a frozen network."""

import pytest
import torch
from torch import Tensor, nn

from sdm_lightning.errors import InputError
from sdm_lightning.features.networks import FEATURE_NETWORKS, stage_channels
from sdm_lightning.losses import discriminator_fake_loss, discriminator_real_loss, r1_penalty
from sdm_lightning.models import FeatureDiscriminator


@pytest.fixture(scope="module")
def discriminator() -> FeatureDiscriminator:
    torch.manual_seed(0)
    return FeatureDiscriminator(stages=(1, 2), width=8)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    return image, (torch.rand(2, 1, 64, 64, generator=generator) > 0.5).float()


def test_stage_channels_are_those_of_the_maps(discriminator: FeatureDiscriminator) -> None:
    discriminator.prepare()
    maps = discriminator._network[0].stages(torch.zeros(1, 3, 96, 96), range(5))
    assert stage_channels("efficientnet-lite0") == [x.shape[1] for x in maps]


def test_the_frozen_network_is_neither_trained_nor_saved(
    discriminator: FeatureDiscriminator,
) -> None:
    discriminator(*batch())
    assert {name.split(".")[0] for name in discriminator.state_dict()} == {"heads", "gains"}
    assert sum(p.numel() for p in discriminator.parameters()) < 3000
    assert "efficientnet-lite0" in FEATURE_NETWORKS


def test_logits_depend_on_image_and_mask_and_gradients_reach_the_image(
    discriminator: FeatureDiscriminator,
) -> None:
    image, mask = batch()
    image.requires_grad_(True)
    logits = discriminator(image, mask)
    assert logits.shape == (2, 32)
    assert logits.dtype == torch.float32
    (gradient,) = torch.autograd.grad(logits.sum(), image)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    assert not torch.allclose(logits, discriminator(image, 1 - mask))
    penalty = r1_penalty(discriminator(image, mask), image)
    assert penalty.item() > 0
    penalty.backward()
    assert all(p.grad is not None for p in discriminator.heads.parameters())


def test_logits_equal_their_definition(discriminator: FeatureDiscriminator) -> None:
    """Pixels at unit mean square beside the share that is known, centred; means of regions."""
    image, mask = batch()
    levels = nn.functional.interpolate(image * 127.5 + 127.5, (96, 96), mode="bicubic")
    expected = []
    with torch.no_grad():
        discriminator.gains.copy_(torch.tensor([1.0, 0.5]))
        logits = discriminator.eval()(image, mask)
        maps = discriminator._network[0].stages(levels, (1, 2))
        for x, head, gain in zip(maps, discriminator.heads, (1.0, 0.5), strict=True):
            x = x / (x.square().mean(1, keepdim=True) + 1e-4).sqrt()
            share = nn.functional.interpolate(mask, x.shape[-2:], mode="area") - 0.5
            regions = 4 * gain * head(torch.cat([x, share], dim=1))
            expected.append(nn.functional.interpolate(regions, (4, 4), mode="area").flatten(1))
        discriminator.train()
        discriminator.gains.fill_(1.0)
    torch.testing.assert_close(logits, torch.cat(expected, dim=1), atol=1e-3, rtol=1e-3)


def test_heads_are_bounded_and_no_autocast_reaches_them(
    discriminator: FeatureDiscriminator,
) -> None:
    image, mask = batch()
    for head in discriminator.heads:
        for layer in (layer for layer in head if isinstance(layer, nn.Conv2d)):
            for _ in range(20):  # each use is a power iteration
                weight = layer.weight.detach()
            norm = torch.linalg.matrix_norm(weight.flatten(1), 2)
            assert norm.item() == pytest.approx(1, abs=0.1)
    discriminator.eval()
    plain = discriminator(image, mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(discriminator(image, mask), plain)
    discriminator.train()


def test_it_tells_blurred_from_sharp_texture_within_a_few_steps() -> None:
    torch.manual_seed(0)
    network = FeatureDiscriminator(stages=(1,), width=16, min_size=64)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    sharp = torch.rand(4, 3, 64, 64) * 2 - 1
    blurred = nn.functional.avg_pool2d(sharp, 5, stride=1, padding=2)
    mask = torch.zeros(4, 1, 64, 64)
    losses = []
    for _ in range(15):
        loss = discriminator_real_loss(network(sharp, mask))
        loss = loss + discriminator_fake_loss(network(blurred, mask))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FeatureDiscriminator("efficientnet-lite9"), "'efficientnet-lite9' is unknown"),
        (lambda: FeatureDiscriminator(stages=(7,)), r"stages is \[7\].*5 stages"),
        (lambda: FeatureDiscriminator(stages=()), r"stages is \[\]"),
    ],
)
def test_wrong_arguments_are_refused(build, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
