"""What the losses of an iteration look at."""

import pytest
import torch

from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.losses import discretized_gaussian_nll
from sdm_lightning.training import LossSettings
from sdm_lightning.training.objectives import (
    generator_objective,
    likelihood_loss,
    supervised_image,
)


@pytest.fixture
def problem():
    """A target, a mask whose left half is known, and one iteration with mean 0.5, deviation 1."""
    image = torch.full((2, 3, 4, 4), -0.5)
    mask = torch.zeros(2, 1, 4, 4)
    mask[..., :2] = 1

    def network(inputs):
        return torch.full_like(inputs[:, :3], 0.5), torch.zeros_like(inputs[:, :3])

    return image, mask, SpatialDiffusion(num_iterations=1)(network, image, mask)


def test_known_pixels_are_pasted_or_not(problem):
    image, mask, step = problem
    pasted = supervised_image(step, image, mask, decoupled=True, region="hole")
    assert (pasted[..., :2] == -0.5).all()
    assert (pasted[..., 2:] == 0.5).all()
    assert (supervised_image(step, image, mask, decoupled=True, region="image") == 0.5).all()


def test_without_decoupling_the_losses_see_a_sample(problem):
    image, mask, step = problem
    torch.manual_seed(0)
    pasted = supervised_image(step, image, mask, decoupled=False)
    assert (pasted[..., :2] == -0.5).all()
    assert 0.5 < pasted[..., 2:].std() < 1.5
    whole = supervised_image(step, image, mask, decoupled=False, region="image")
    assert 0.5 < whole[..., :2].std() < 1.5


@pytest.mark.parametrize("region", ["hole", "image"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_likelihood_of_the_hole_or_of_the_image(problem, region, reduction):
    image, mask, step = problem
    image[0, :, :, :2] = 0.5  # the images differ, and known pixels from those of the hole
    nats = discretized_gaussian_nll(step.mean, step.log_variance, image)
    nats = nats if region == "image" else nats[..., 2:]
    expected = nats.flatten(1).sum(1).mean() if reduction == "sum" else nats.mean()
    settings = LossSettings(likelihood_region=region, likelihood_reduction=reduction)
    assert likelihood_loss(step, image, mask, settings).item() == pytest.approx(expected.item())


def test_without_decoupling_there_is_no_likelihood(problem):
    image, mask, step = problem
    rest = (step.completed, None, image, mask, None, None, LossSettings())
    assert set(generator_objective(step, *rest, decoupled=True)) == {"likelihood"}
    assert not generator_objective(step, *rest, decoupled=False)
