"""Feature maps shared within a step: computed once, with the values and gradients of each alone."""

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from torch import Tensor

from sdm_lightning.features.networks import PretrainedNetwork
from sdm_lightning.features.reuse import reused_maps, stage_maps
from sdm_lightning.losses import FeaturePerceptualLoss
from sdm_lightning.models import FeatureDiscriminator

SIZE = 48


@pytest.fixture
def runs() -> Iterator[mock.MagicMock]:
    """Counts how often a network computes its stages."""
    stages = PretrainedNetwork.stages
    with mock.patch.object(PretrainedNetwork, "stages", autospec=True, side_effect=stages) as runs:
        yield runs


@pytest.fixture(scope="module")
def network() -> PretrainedNetwork:
    return PretrainedNetwork("efficientnet-lite0")


def images(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def step(active: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Both losses of a generator step, then the discriminator's; values and gradients."""
    torch.manual_seed(0)
    loss = FeaturePerceptualLoss("efficientnet-lite0", stages=(0, 1, 2, 3), min_size=SIZE)
    discriminator = FeatureDiscriminator(width=8, min_size=SIZE).eval()
    mask = torch.ones(2, 1, SIZE, SIZE)
    real, source = images(0), images(1).requires_grad_(True)
    with reused_maps(active):
        fake = source * 0.9
        perceptual = loss(fake, loss.encode(real).copy()).sum()
        adversarial = -discriminator(fake, mask).sum()
        (perceptual + adversarial).backward()
        detached = fake.detach()
        critic = (discriminator(detached, mask) - discriminator(real, mask)).sum()
        critic.backward()
        penalised = real.detach().requires_grad_(True)
        discriminator(penalised, mask).sum().backward()
    heads = [p.grad for p in discriminator.parameters()]
    return [perceptual, adversarial, critic], [source.grad, penalised.grad, *heads]


def test_a_step_computes_each_image_once_and_gets_the_same_gradients(runs: mock.MagicMock) -> None:
    alone = step(active=False)
    assert runs.call_count == 6
    runs.reset_mock()
    shared = step(active=True)
    assert runs.call_count == 3  # real, fake, and the real image that needs a gradient
    for ours, theirs in zip(alone[0] + alone[1], shared[0] + shared[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert alone[1][0].abs().max() > 0


def test_changed_images_are_computed_again(network: PretrainedNetwork) -> None:
    x = images()
    with reused_maps():
        before = stage_maps(network, x, (1,), SIZE)[0]
        x.mul_(0.5)
        after = stage_maps(network, x, (1,), SIZE)[0]
        view = stage_maps(network, x.detach(), (1,), SIZE)[0]
    expected = network.stages(x * 127.5 + 127.5, (1,))[0]
    torch.testing.assert_close(after, expected)
    torch.testing.assert_close(view, expected)
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("other", [(3,), (0, 1)])
def test_deeper_stages_and_other_sizes_are_computed_anew(
    network: PretrainedNetwork, other: tuple[int, ...]
) -> None:
    x = images()
    with reused_maps():
        stage_maps(network, x, (1,), SIZE)
        deeper = stage_maps(network, x, other, SIZE)
        larger = stage_maps(network, x, other, 2 * SIZE)
    for maps, expected in zip(deeper, network.stages(x * 127.5 + 127.5, other), strict=True):
        torch.testing.assert_close(maps, expected)
    assert larger[0].shape[-1] == 2 * deeper[0].shape[-1]


def test_nothing_is_kept_outside_the_context(
    network: PretrainedNetwork, runs: mock.MagicMock
) -> None:
    x = images()
    with reused_maps():
        stage_maps(network, x, (1,), SIZE)
        with reused_maps(active=False):
            stage_maps(network, x, (1,), SIZE)
        stage_maps(network, x, (1,), SIZE)
    stage_maps(network, x, (1,), SIZE)
    assert runs.call_count == 3
