"""The adversarial losses and R1 against closed forms and finite differences."""

import math

import pytest
import torch
from torch import nn

from sdm_lightning.losses import (
    discriminator_fake_loss,
    discriminator_real_loss,
    generator_adversarial_loss,
    r1_penalty,
)


def test_losses_are_the_logarithms_of_eq_7_and_8():
    real, fake = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [-3.0], [1.0]])
    p_real, p_fake = real.sigmoid(), fake.sigmoid()
    assert generator_adversarial_loss(fake).item() == pytest.approx(-p_fake.log().mean().item())
    assert discriminator_real_loss(real).item() == pytest.approx(-p_real.log().mean().item())
    assert discriminator_fake_loss(fake).item() == pytest.approx(-(1 - p_fake).log().mean().item())


def test_undecided_discriminator_costs_log_two_per_side():
    zero = torch.zeros(4, 1)
    assert generator_adversarial_loss(zero).item() == pytest.approx(math.log(2))
    assert discriminator_real_loss(zero).item() == pytest.approx(math.log(2))
    assert discriminator_fake_loss(zero).item() == pytest.approx(math.log(2))


def test_generator_loss_does_not_saturate():
    fake = torch.tensor([[-80.0]], requires_grad=True)
    generator_adversarial_loss(fake).backward()
    assert fake.grad.item() == pytest.approx(-1)


def test_losses_stay_finite_and_float32_for_half_precision_logits():
    logits = torch.tensor([[-3e4], [3e4]], dtype=torch.bfloat16)
    for loss in (
        generator_adversarial_loss(logits),
        discriminator_real_loss(logits),
        discriminator_fake_loss(logits),
    ):
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)


def test_r1_of_a_linear_discriminator():
    weight = torch.randn(3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = (images * weight).flatten(1).sum(1, keepdim=True)
    # The gradient is the weight for every image: summed over pixels, averaged over the batch.
    assert r1_penalty(logits, images).item() == pytest.approx(
        weight.square().sum().item(), rel=1e-5
    )


def test_r1_of_several_logits_is_that_of_their_mean():
    weight = torch.randn(6, 48)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    expected = weight.mean(0).square().sum().item()
    assert r1_penalty(images.flatten(1) @ weight.t(), images).item() == pytest.approx(expected)


def test_r1_and_its_gradient_match_finite_differences():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(64, 1)
    ).double()
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    step = 1e-5

    def numerical():
        total = 0.0
        for index in range(images[0].numel()):
            shift = torch.zeros(images[0].numel(), dtype=torch.float64)
            shift[index] = step
            shift = shift.view_as(images[0])
            with torch.no_grad():
                slope = (network(images + shift) - network(images - shift)) / (2 * step)
            total += slope.square().sum().item()
        return total / len(images)

    def penalty():
        inputs = images.clone().requires_grad_()
        return r1_penalty(network(inputs), inputs)

    value = penalty()
    assert value.item() == pytest.approx(numerical(), rel=1e-5)
    value.backward()
    parameter = network[0].weight
    for position in ((0, 0, 0, 0), (3, 2, 1, 1)):
        with torch.no_grad():
            parameter[position] += 1e-3
        above = numerical()
        with torch.no_grad():
            parameter[position] -= 2e-3
        below = numerical()
        with torch.no_grad():
            parameter[position] += 1e-3
        assert parameter.grad[position].item() == pytest.approx((above - below) / 2e-3, rel=1e-3)
