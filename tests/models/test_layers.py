"""Resampling, equalised layers, modulation and minibatch standard deviation, held to references."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sdm_lightning.models import layers

TAPS = np.array([1.0, 3.0, 3.0, 1.0]) / 8.0


def reference_resample(x: np.ndarray, up: int, down: int, pad: tuple[int, int]) -> np.ndarray:
    """Zero-stuff by ``up``, pad, filter with [1, 3, 3, 1] / 8 and keep every ``down``-th."""
    for axis in (2, 3):
        width = [(0, 0)] * 4
        width[axis] = pad
        stuffed = upfirdn([1.0], x, up=up, axis=axis)
        trailing = [(0, 0)] * 4
        trailing[axis] = (0, up - 1)
        stuffed = np.pad(np.pad(stuffed, trailing), width)
        full = upfirdn(TAPS, stuffed, axis=axis)
        valid = np.take(full, np.arange(3, stuffed.shape[axis]), axis=axis)
        x = np.take(valid, np.arange(0, valid.shape[axis], down), axis=axis)
    return x


@pytest.mark.parametrize(("padding", "stride"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_blur_is_the_filter_of_an_independent_library(padding, stride, dtype):
    x = torch.randn(2, 3, 10, 14, dtype=torch.float64)
    expected = 4.0 * reference_resample(x.numpy(), 1, stride, (padding, padding))
    actual = layers.blur(x.to(dtype), padding=padding, stride=stride, gain=4.0)
    assert actual.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(
        actual.double(), torch.from_numpy(expected), atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize(("padding", "stride"), [(1, 1), (2, 1), (1, 2)])
def test_blur_has_the_right_derivatives(padding: int, stride: int) -> None:
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    gradcheck(lambda x: layers.blur(x, padding, stride), x)
    gradgradcheck(lambda x: layers.blur(x, padding, stride).square(), x)


def test_blur_under_autocast_and_in_any_layout() -> None:
    x = torch.randn(2, 3, 8, 8)
    expected = torch.autograd.grad(layers.blur(leaf := x.clone().requires_grad_(), 1).sum(), leaf)[
        0
    ]
    leaf = x.to(memory_format=torch.channels_last).requires_grad_()
    assert torch.equal(torch.autograd.grad(layers.blur(leaf, 1).sum(), leaf)[0], expected)
    with torch.autocast("cpu", torch.bfloat16):
        output = layers.blur(leaf, 1)
    assert output.dtype == torch.bfloat16
    gradient = torch.autograd.grad(output.sum(), leaf)[0]
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, expected, atol=0.02, rtol=0.02)


class Convolutions(TorchDispatchMode):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "convolution" in func._schema.name
        return func(*args, **(kwargs or {}))


def test_the_second_derivative_of_blur_takes_no_convolution_for_each_channel() -> None:
    x = torch.randn(2, 32, 8, 8, requires_grad=True)
    with Convolutions() as convolutions:
        (gradient,) = torch.autograd.grad(layers.blur(x, 1).square().sum(), x, create_graph=True)
        gradient.square().sum().backward()
    assert 3 <= convolutions.count <= 6


def test_upsample_is_the_filter_with_repeated_edges():
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    edged = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    expected = 4.0 * reference_resample(edged, 2, 1, (2, 1))
    torch.testing.assert_close(layers.upsample(x), torch.from_numpy(expected[..., 2:-2, 2:-2]))


def test_equalized_conv_keeps_unit_variance_and_folds_its_gains():
    torch.manual_seed(0)
    conv = layers.EqualizedConv2d(64, 48, gain=0.7)
    with torch.no_grad():
        conv.bias.normal_()
    x = torch.randn(4, 64, 16, 16)
    plain = F.conv2d(x, conv.weight / np.sqrt(64 * 9), conv.bias, padding=1)
    expected = 0.7 * np.sqrt(2) * F.leaky_relu(plain, 0.2)
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=1e-5)
    assert conv.weight.std().item() == pytest.approx(1.0, abs=0.02)
    linear = layers.EqualizedConv2d(64, 48, activate=False)
    assert linear(x)[:, :, 1:-1, 1:-1].std().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_strided_conv_rounds_the_size_up(size):
    conv = layers.EqualizedConv2d(4, 4, stride=2)
    assert conv(torch.randn(1, 4, size, size)).shape[-1] == -(-size // 2)


def test_blurred_strided_conv_filters_before_it_strides():
    conv = layers.EqualizedConv2d(3, 5, stride=2, blur_input=True, activate=False).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    filtered = torch.from_numpy(reference_resample(x.numpy(), 1, 1, (2, 2)))
    expected = F.conv2d(filtered, conv.weight / np.sqrt(27), conv.bias, stride=2)
    torch.testing.assert_close(conv(x), expected)
    assert conv(x).shape[-2:] == (4, 4)


@pytest.mark.parametrize("activate", [False, True])
def test_equalized_linear_slows_learning_but_not_output(activate):
    torch.manual_seed(0)
    layer = layers.EqualizedLinear(
        256, 512, activate=activate, initial_bias=0.3, lr_multiplier=0.01
    )
    x = torch.randn(64, 256)
    assert layer.weight.std().item() == pytest.approx(100.0, rel=0.02)
    plain = F.linear(x, layer.weight * 0.01 / 16.0) + 0.3
    expected = np.sqrt(2) * F.leaky_relu(plain, 0.2) if activate else plain
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def per_sample_reference(x, weight, style, demodulate, up):
    """StyleGAN2, Eq. 1-3, as written: every sample has weights of its own."""
    outputs = []
    for sample, factors in zip(x, style, strict=True):
        kernel = weight * factors[None, :, None, None]
        if demodulate:
            kernel = kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            y = F.conv_transpose2d(sample[None], kernel.transpose(0, 1), stride=2)
            y = layers.blur(y, padding=1, gain=4.0)
        else:
            y = F.conv2d(sample[None], kernel, padding=weight.shape[-1] // 2)
        outputs.append(y)
    return torch.cat(outputs)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_conv_equals_per_sample_weights(demodulate, up):
    torch.manual_seed(0)
    arguments = [
        torch.randn(3, 6, 5, 7, dtype=torch.float64, requires_grad=True),
        torch.randn(4, 6, 3, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(3, 6, dtype=torch.float64, requires_grad=True),
    ]
    y, coefficient = layers.modulated_conv2d(*arguments, demodulate, up)
    assert (coefficient is None) != demodulate
    if coefficient is not None:
        y = y * coefficient[:, :, None, None]
    expected = per_sample_reference(*arguments, demodulate, up)
    torch.testing.assert_close(y, expected)
    weighting = torch.randn_like(y)
    actual_grads = torch.autograd.grad((y * weighting).sum(), arguments)
    expected_grads = torch.autograd.grad((expected * weighting).sum(), arguments)
    for actual, reference in zip(actual_grads, expected_grads, strict=True):
        torch.testing.assert_close(actual, reference)


def test_demodulation_stays_in_float32_under_autocast():
    x, weight, style = torch.randn(2, 8, 4, 4), torch.randn(4, 8, 3, 3), torch.randn(2, 8)
    _, expected = layers.modulated_conv2d(x, weight, style)
    with torch.autocast("cpu", torch.bfloat16):
        y, coefficient = layers.modulated_conv2d(x, weight, style)
    assert y.dtype == torch.bfloat16
    assert coefficient.dtype == torch.float32
    torch.testing.assert_close(coefficient, expected, atol=0, rtol=0)


def test_styled_conv_has_unit_variance_whatever_the_style():
    torch.manual_seed(0)
    conv = layers.StyledConv2d(32, 32, style_dim=8, up=True, activate=False)
    for scale in (0.1, 10.0):
        y = conv(torch.randn(8, 32, 16, 16), scale * torch.randn(8, 8))
        # The transposed convolution and its filter average a little of the white noise away.
        assert 0.4 < y.std().item() < 1.1


@pytest.mark.parametrize("demodulate", [True, False])
def test_styled_conv_bias_gain_and_activation(demodulate):
    torch.manual_seed(0)
    conv = layers.StyledConv2d(6, 4, style_dim=5, demodulate=demodulate, gain=0.5)
    with torch.no_grad():
        conv.bias.normal_()
    x, style = torch.randn(2, 6, 8, 8), torch.randn(2, 5)
    factors = conv.affine(style) * conv.weight_gain
    plain = per_sample_reference(x, conv.weight, factors, demodulate, False)
    expected = 0.5 * np.sqrt(2) * F.leaky_relu(plain + conv.bias[:, None, None], 0.2)
    torch.testing.assert_close(conv(x, style), expected, atol=1e-5, rtol=1e-5)


def test_noise_starts_silent_and_is_added_in_training_only():
    conv = layers.StyledConv2d(4, 4, style_dim=3, activate=False, noise_injection=True, gain=0.8)
    x, style = torch.zeros(2, 4, 64, 64), torch.randn(2, 3)
    assert torch.equal(conv(x, style), torch.zeros_like(x))
    with torch.no_grad():
        conv.noise_strength.fill_(0.5)
    noisy = conv(x, style)
    assert noisy.std().item() == pytest.approx(0.5 * 0.8, abs=0.02)
    assert torch.equal(noisy[:, 0], noisy[:, 1])
    assert not torch.equal(noisy[0], noisy[1])
    conv.eval()
    assert torch.equal(conv(x, style), torch.zeros_like(x))


def test_minibatch_standard_deviation_closed_form():
    # Two groups (0, 2) and (1, 3) of constant images: std = half the distance within each.
    x = torch.tensor([0.0, 1.0, 2.0, 7.0])[:, None, None, None].expand(4, 3, 2, 2)
    y = layers.minibatch_standard_deviation(x, group=2)
    assert y.shape == (4, 4, 2, 2)
    torch.testing.assert_close(y[:, :3], x)
    expected = torch.tensor([1.0, 3.0, 1.0, 3.0])[:, None, None].expand(4, 2, 2)
    torch.testing.assert_close(y[:, 3], expected)


@pytest.mark.parametrize(("batch", "group", "used"), [(6, 4, 3), (5, 4, 1), (3, 8, 3), (8, 4, 4)])
def test_minibatch_standard_deviation_uses_the_largest_divisor(batch, group, used):
    x = torch.randn(batch, 2, 3, 3)
    y = layers.minibatch_standard_deviation(x, group)[:, 2, 0, 0]
    step = batch // used
    for first in range(step):
        members = x[first::step]
        expected = (members.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(y[first::step], expected.expand(used))


def test_minibatch_standard_deviation_has_finite_second_derivative_for_equal_samples():
    x = torch.ones(4, 2, 3, 3, requires_grad=True)
    y = layers.minibatch_standard_deviation(x, 4)
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert torch.isfinite(second).all()
