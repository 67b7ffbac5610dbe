"""Building blocks shared by the generator and the discriminator.

Equalised learning rate, weight modulation and [1, 3, 3, 1] resampling follow StyleGAN2
(reference [26] of the paper), written from its equations with native torch operations.

Two identities keep the number of passes over the activations low:

* a leaky ReLU commutes with a positive factor, so its gain of sqrt(2) and the residual gain of
  sqrt(1/2) are folded into weights and biases;
* scaling the input channels of a convolution by the style and its output channels by the
  demodulation coefficient equals a convolution with per-sample weights, and runs as one
  ordinary (not grouped) convolution.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdm_lightning.linear_map import linear_map

LEAKY_SLOPE = 0.2
TAPS = (1.0, 3.0, 3.0, 1.0)
ACTIVATION_GAIN = math.sqrt(2.0)
RESIDUAL_GAIN = math.sqrt(0.5)


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Return a context without autocast on the device of ``x``, empty where none is active.

    The second half keeps the context out of traced graphs and off devices that do not know
    autocast (meta tensors).
    """
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device_type=device, enabled=False)
    return nullcontext()


def widen(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or unchanged if it is float64 (for finite differences)."""
    return x if x.dtype == torch.float64 else x.float()


def fast_layout(x: Tensor) -> Tensor:
    """Return ``x`` in channels-last order on a CPU, where convolutions and resampling prefer it.

    Elsewhere the caller's layout stays: which one is faster depends on the card and precision.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def _is_exporting() -> bool:
    """Tell whether ``torch.export`` is tracing; torch 2.6 cannot tell."""
    return bool(getattr(torch.compiler, "is_exporting", lambda: False)())


def _binomial_kernel(x: Tensor, gain: float) -> Tensor:
    """Build the [1, 3, 3, 1] filter with sum ``gain``, one copy per channel of ``x``."""
    if _is_exporting():
        # OpenVINO computes a convolution of each channel wrongly whose filter is no constant.
        row = [[a * b * gain / 64.0 for a in TAPS] for b in TAPS]
        return torch.tensor([[row]] * x.shape[1], dtype=x.dtype, device=x.device)
    # Computed on the device: a copy from the host waits for a GPU, and cannot be in a CUDA graph.
    taps = 4 - (2 * torch.arange(4, device=x.device, dtype=x.dtype) - 3).abs()
    kernel = torch.outer(taps, taps) * (gain / 64.0)
    return kernel.expand(x.shape[1], 1, 4, 4)


def blur(x: Tensor, padding: int, stride: int = 1, gain: float = 1.0) -> Tensor:
    """Filter each channel with [1, 3, 3, 1] in both directions, zeros beyond the border.

    Args:
        x: ``(B, C, H, W)``.
        padding: Zeros added on each of the four sides.
        stride: Keep every ``stride``-th sample.
        gain: Sum of the filter.

    Returns:
        ``(B, C, (H + 2 * padding - 4) // stride + 1, ...)``.
    """
    # What is compiled has no second derivative.
    plain = torch.compiler.is_compiling() or not (x.requires_grad and torch.is_grad_enabled())
    device, shape = x.device.type, x.shape
    if not plain and device != "meta" and torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))  # autocast does not see inside the Function
    kernel = _binomial_kernel(x, gain)

    def filtered(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel, stride=stride, padding=padding, groups=shape[1])

    def spread(gradient: Tensor) -> Tensor:
        last = gradient.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        # Only the shape and the layout of the input count, not its values.
        x = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=layout)
        result: Tensor = torch.ops.aten.convolution_backward(
            gradient, x, kernel, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0],
            shape[1], [True, False, False],
        )[0]  # fmt: skip
        return result

    # In a second derivative, torch's own would compute the kernel's gradient too, with one
    # convolution for every channel: thousands in the gradient penalty of one discriminator.
    return filtered(x) if plain else linear_map(x, filtered, spread)


def upsample(x: Tensor) -> Tensor:
    """Double height and width with the [1, 3, 3, 1] filter.

    Away from the border, two-fold bilinear interpolation *is* that filter; at the border it
    repeats the edge pixel where a zero-padded filter would darken it.
    """
    # Autocast interpolates in float32; what follows would then be done in float32, too.
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False).to(x.dtype)


def downsample(x: Tensor) -> Tensor:
    """Halve height and width (both even) with the [1, 3, 3, 1] filter."""
    return blur(x, padding=1, stride=2)


class EqualizedLinear(nn.Module):
    """Fully connected layer with equalised learning rate, optionally followed by a leaky ReLU.

    Weights are drawn from N(0, 1) and scaled by ``lr_multiplier / sqrt(fan_in)`` when used.

    Args:
        in_features: Input width.
        out_features: Output width.
        activate: Apply a leaky ReLU (slope 0.2, gain sqrt(2)).
        initial_bias: Value that the bias starts from.
        lr_multiplier: Slows the layer's learning without changing its initial output.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activate: bool = False,
        initial_bias: float = 0.0,
        lr_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), initial_bias / lr_multiplier))
        gain = ACTIVATION_GAIN if activate else 1.0
        self.activate = activate
        self.weight_gain = gain * lr_multiplier / math.sqrt(in_features)
        self.bias_gain = gain * lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        bias = self.bias if self.bias_gain == 1.0 else self.bias * self.bias_gain
        x = F.linear(x, self.weight * self.weight_gain, bias)
        return F.leaky_relu(x, LEAKY_SLOPE) if self.activate else x


class EqualizedConv2d(nn.Module):
    """Convolution with equalised learning rate, optionally followed by a leaky ReLU.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Odd; zero padding keeps the size at stride 1.
        stride: 1 or 2.
        blur_input: Filter with [1, 3, 3, 1] before a convolution of stride 2.
        bias: Add a learned bias.
        activate: Apply a leaky ReLU (slope 0.2, gain sqrt(2)).
        gain: Further factor on the output; must be positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        blur_input: bool = False,
        bias: bool = True,
        activate: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.bias_gain = gain * (ACTIVATION_GAIN if activate else 1.0)
        self.weight_gain = self.bias_gain / math.sqrt(in_channels * kernel_size**2)
        self.stride = stride
        self.padding = kernel_size // 2
        self.blur_input = blur_input
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, ceil(H / stride), ...)``."""
        padding = self.padding
        if self.blur_input:
            # The blur yields what the convolution's own padding would have covered, no less.
            x, padding = blur(x, padding=padding + 1), 0
        bias = None if self.bias is None else self.bias * self.bias_gain
        x = F.conv2d(x, self.weight * self.weight_gain, bias, self.stride, padding)
        # In place: the convolution's backward does not need its own output.
        return F.leaky_relu(x, LEAKY_SLOPE, inplace=True) if self.activate else x


def modulated_conv2d(
    x: Tensor, weight: Tensor, style: Tensor, demodulate: bool = True, up: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Convolve with weights ``weight * style`` for each sample (StyleGAN2, Eq. 1-3).

    The demodulation coefficient is handed back instead of applied, so that the caller can fuse it
    with bias and activation gain in one pass; it is computed in float32 at least, even under
    autocast.

    Args:
        x: ``(B, I, H, W)``.
        weight: ``(O, I, k, k)``, shared by all samples.
        style: ``(B, I)``, factors on the input channels, runtime weight gain included.
        demodulate: Compute the coefficient that brings each output's weights to unit norm.
        up: Double the size by a transposed convolution followed by the [1, 3, 3, 1] filter.

    Returns:
        Undemodulated output ``(B, O, H, W)`` (twice the size with ``up``) and the coefficient
        ``(B, O)`` in float32 at least, or None.
    """
    coefficient = None
    if demodulate:
        with full_precision(x):
            energy = widen(weight).square().sum(dim=(2, 3))
            coefficient = torch.rsqrt(widen(style).square() @ energy.t() + 1e-8)
    x = x * style.to(x.dtype)[:, :, None, None]
    if up:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        # Size 2H + 1, blurred to 2H; gain 4 makes up for the zeros that were put in between.
        return blur(x, padding=1, gain=4.0), coefficient
    return F.conv2d(x, weight, padding=int(weight.shape[-1]) // 2), coefficient


class StyledConv2d(nn.Module):
    """Modulated convolution with its style affine, optional noise, bias and leaky ReLU.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        style_dim: Width of the style vector.
        kernel_size: Odd.
        up: Double the size.
        demodulate: Bring each output's weights to unit norm.
        activate: Apply a leaky ReLU (slope 0.2, gain sqrt(2)).
        noise_injection: Add per-pixel Gaussian noise of learned strength (from 0) in training.
        gain: Further factor on the output; must be positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style_dim: int,
        kernel_size: int = 3,
        up: bool = False,
        demodulate: bool = True,
        activate: bool = True,
        noise_injection: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.affine = EqualizedLinear(style_dim, in_channels, initial_bias=1.0)
        self.noise_strength = nn.Parameter(torch.zeros(())) if noise_injection else None
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel_size**2)
        self.output_gain = gain * (ACTIVATION_GAIN if activate else 1.0)
        self.up = up
        self.demodulate = demodulate
        self.activate = activate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` and ``(B, style_dim)`` to ``(B, out_channels, ...)``."""
        factors = widen(self.affine(style)) * self.weight_gain
        x, coefficient = modulated_conv2d(x, self.weight, factors, self.demodulate, self.up)
        bias = (self.bias * self.output_gain).to(x.dtype)[:, None, None]
        if self.noise_strength is not None and self.training:
            # Added after demodulation, before bias and activation.
            noise = torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device, dtype=x.dtype)
            bias = bias + noise * (self.noise_strength * self.output_gain).to(x.dtype)
        if coefficient is None:
            x = torch.add(bias, x, alpha=self.output_gain)
        else:
            scale = (coefficient * self.output_gain).to(x.dtype)
            x = torch.addcmul(bias, x, scale[:, :, None, None])
        return F.leaky_relu(x, LEAKY_SLOPE, inplace=True) if self.activate else x


def minibatch_standard_deviation(x: Tensor, group: int) -> Tensor:
    """Append one channel: the spread of the features over a group of samples.

    Args:
        x: ``(B, C, H, W)``.
        group: Samples per group; the largest divisor of B not above it is used, so that any
            batch works (the last one of an epoch too) and no sample is left out.

    Returns:
        ``(B, C + 1, H, W)``; the new channel is constant over each group.

    Source:
        Karras et al. 2018 (Progressive GANs), Sec. 3, with StyleGAN2's groups.
    """
    batch, channels, height, width = x.shape
    group = next(size for size in range(min(group, batch), 0, -1) if batch % size == 0)
    # Members of a group lie batch // group apart, as in StyleGAN2.
    grouped = widen(x).reshape(group, batch // group, channels, height, width)
    variance = grouped.var(dim=0, unbiased=False)
    # The small constant keeps the second derivative (R1) finite where all samples agree.
    spread = (variance + 1e-8).sqrt().mean(dim=(1, 2, 3))
    spread = spread.to(x.dtype).repeat(group)[:, None, None, None]
    return torch.cat([x, spread.expand(-1, 1, height, width)], dim=1)
