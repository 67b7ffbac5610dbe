"""Discriminator: size, conditioning, gradients of first and second order."""

import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.models import Discriminator

TINY = {"resolution": 16, "base_channels": 4, "max_channels": 8}


def tiny(**changes) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(**{**TINY, **changes})


def num_parameters(**arguments) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Discriminator(**arguments).parameters())


def test_parameters():
    # StyleGAN2's 512 x 512 network has 28,982,849; the mask adds one input channel of 64 weights.
    assert num_parameters(mask_conditioning=False) == 28_982_849
    assert num_parameters() == 28_982_849 + 64


def test_mask_conditioning():
    image, known = torch.randn(4, 3, 16, 16), torch.ones(4, 1, 16, 16)
    conditioned = tiny()
    assert not torch.allclose(conditioned(image, known), conditioned(image, 0 * known))
    with pytest.raises(InputError, match="given no mask"):
        conditioned(image)
    plain = tiny(mask_conditioning=False)
    assert torch.equal(plain(image, known), plain(image))
    assert plain(image).shape == (4, 1)


def test_mask_enters_centred():
    discriminator = tiny()
    seen = []
    discriminator.stem.register_forward_hook(lambda _, arguments, __: seen.append(arguments[0]))
    mask = (torch.rand(2, 1, 16, 16) > 0.5).float()
    image = torch.randn(2, 3, 16, 16)
    discriminator(image, mask)
    torch.testing.assert_close(seen[0], torch.cat([image, mask - 0.5], dim=1))


def test_every_parameter_receives_a_gradient():
    discriminator = tiny()
    logits = discriminator(torch.randn(4, 3, 16, 16), torch.ones(4, 1, 16, 16))
    torch.nn.functional.softplus(logits).mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in discriminator.parameters())


def test_second_derivative_equals_finite_differences():
    """The gradient of the R1 penalty, along a random direction in weight space."""
    discriminator = tiny().double()
    image = torch.randn(4, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    mask = (torch.rand(4, 1, 16, 16) > 0.5).double()

    def penalty() -> torch.Tensor:
        # Eq. of R1: the squared gradient of the summed logits with respect to the image.
        (gradient,) = torch.autograd.grad(
            discriminator(image, mask).sum(), image, create_graph=True
        )
        return gradient.square().sum()

    weights = [p for p in discriminator.parameters() if p.ndim > 1]
    gradients = torch.autograd.grad(penalty(), weights)
    direction = [torch.randn_like(weight) for weight in weights]
    expected = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    values, step = [], 1e-5
    for sign in (1, -2):
        with torch.no_grad():
            for weight, along in zip(weights, direction, strict=True):
                weight.add_(along, alpha=sign * step)
        values.append(penalty().detach())
    actual = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("batch", [1, 3, 5, 6])
def test_any_batch_works(batch):
    discriminator = tiny(mbstd_group=4)
    logits = discriminator(torch.randn(batch, 3, 16, 16), torch.ones(batch, 1, 16, 16))
    assert logits.shape == (batch, 1)
    assert torch.isfinite(logits).all()


def test_without_minibatch_statistics_samples_are_independent():
    discriminator = tiny(mbstd_group=0)
    image, mask = torch.randn(4, 3, 16, 16), torch.ones(4, 1, 16, 16)
    together = discriminator(image, mask)
    torch.testing.assert_close(together[1:2], discriminator(image[1:2], mask[1:2]))
    grouped = tiny()
    assert not torch.allclose(grouped(image, mask)[1:2], grouped(image[1:2], mask[1:2]))


def test_wrong_sizes_are_refused():
    with pytest.raises(InputError, match="resolution 48 is not a power of two"):
        tiny(resolution=48)
    with pytest.raises(InputError, match=r"expected \(B, 3, 16, 16\)"):
        tiny()(torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32))


def test_bfloat16_autocast_stays_close_and_returns_float32():
    discriminator = tiny()
    image, mask = torch.randn(4, 3, 16, 16), torch.ones(4, 1, 16, 16)
    expected = discriminator(image, mask)
    with torch.autocast("cpu", torch.bfloat16):
        actual = discriminator(image, mask)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, atol=0.1, rtol=0.05)


def test_golden_output():
    """A refactor leaves these figures; a change of numerics renews them and says so."""
    image = torch.linspace(-1, 1, 2 * 3 * 256).reshape(2, 3, 16, 16)
    actual = tiny()(image, (image[:, :1] > 0).float()).flatten()
    torch.testing.assert_close(actual, torch.tensor([-0.29665, -0.20519]), atol=1e-4, rtol=1e-4)
