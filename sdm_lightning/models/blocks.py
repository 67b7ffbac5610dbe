"""Residual blocks and stages of the generator's encoder and decoder (Sec. 4.2, supplement A)."""

import torch
from torch import Tensor, nn

from sdm_lightning.models.attention import AttentionBlock
from sdm_lightning.models.layers import (
    RESIDUAL_GAIN,
    EqualizedConv2d,
    StyledConv2d,
    downsample,
    upsample,
)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; with ``down`` at half the size of the input.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        down: Halve the size first, once for both branches.
    """

    def __init__(self, in_channels: int, out_channels: int, down: bool = False) -> None:
        super().__init__()
        self.down = down
        self.conv0 = EqualizedConv2d(in_channels, out_channels)
        self.conv1 = EqualizedConv2d(out_channels, out_channels, gain=RESIDUAL_GAIN)
        self.shortcut = (
            EqualizedConv2d(
                in_channels, out_channels, 1, bias=False, activate=False, gain=RESIDUAL_GAIN
            )
            if down or in_channels != out_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, h, w)`` to ``(B, out_channels, h, w)`` or half of it."""
        if self.down:
            x = downsample(x)
        y = self.conv1(self.conv0(x))
        if self.shortcut is None:
            return torch.add(y, x, alpha=RESIDUAL_GAIN)
        return y + self.shortcut(x)


class StyledResidualBlock(nn.Module):
    """Two modulated 3 x 3 convolutions and a shortcut; with ``up`` at twice the input's size.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        style_dim: Width of the style vector.
        up: Double the size in the first convolution.
        skip_channels: Channels of the encoder's features, concatenated between the two
            convolutions and merged by a 1 x 1 convolution, or 0.
        noise_injection: See `StyledConv2d`.
    """

    num_styles = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style_dim: int,
        up: bool = False,
        skip_channels: int = 0,
        noise_injection: bool = False,
    ) -> None:
        super().__init__()
        self.up = up
        self.conv0 = StyledConv2d(
            in_channels, out_channels, style_dim, up=up, noise_injection=noise_injection
        )
        self.conv1 = StyledConv2d(
            out_channels,
            out_channels,
            style_dim,
            noise_injection=noise_injection,
            gain=RESIDUAL_GAIN,
        )
        self.merge = (
            EqualizedConv2d(out_channels + skip_channels, out_channels, 1)
            if skip_channels
            else None
        )
        self.shortcut = (
            EqualizedConv2d(
                in_channels, out_channels, 1, bias=False, activate=False, gain=RESIDUAL_GAIN
            )
            if up or in_channels != out_channels
            else None
        )

    def forward(self, x: Tensor, styles: Tensor, skip: Tensor | None = None) -> Tensor:
        """Map ``(B, in_channels, h, w)``, styles ``(B, 2, style_dim)`` and skip features."""
        y = self.conv0(x, styles[:, 0])
        if self.merge is not None and skip is not None:
            y = self.merge(torch.cat([y, skip], dim=1))
        y = self.conv1(y, styles[:, 1])
        if self.shortcut is None:
            return torch.add(y, x, alpha=RESIDUAL_GAIN)
        # A 1 x 1 convolution commutes with resampling and is cheaper at the small size.
        shortcut = self.shortcut(x)
        return y + (upsample(shortcut) if self.up else shortcut)


class EncoderStage(nn.Module):
    """The encoder at one stride: optional early block and attention, then a residual block."""

    def __init__(
        self, in_channels: int, out_channels: int, down: bool, attention: AttentionBlock | None
    ) -> None:
        super().__init__()
        self.attention = attention
        self.early = ResidualBlock(in_channels, out_channels, down) if attention else None
        self.block = (
            ResidualBlock(out_channels, out_channels)
            if attention
            else ResidualBlock(in_channels, out_channels, down)
        )

    def forward(self, x: Tensor, uncertainty: Tensor) -> Tensor:
        """Map ``(B, in_channels, ...)`` under the uncertainty of the stage's own size."""
        if self.early is not None and self.attention is not None:
            x = self.attention(self.early(x), uncertainty)
        return self.block(x)


class DecoderStage(nn.Module):
    """The decoder at one stride: optional early block and attention, then a residual block."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style_dim: int,
        up: bool,
        skip_channels: int,
        attention: AttentionBlock | None,
        noise_injection: bool,
    ) -> None:
        super().__init__()
        first = StyledResidualBlock(
            in_channels, out_channels, style_dim, up, skip_channels, noise_injection
        )
        self.attention = attention
        self.early = first if attention else None
        self.block = (
            StyledResidualBlock(
                out_channels, out_channels, style_dim, noise_injection=noise_injection
            )
            if attention
            else first
        )

    def forward(
        self, x: Tensor, styles: Tensor, uncertainty: Tensor, skip: Tensor | None
    ) -> Tensor:
        """Map ``(B, in_channels, ...)`` with styles ``(B, num_styles, style_dim)``."""
        if self.early is None or self.attention is None:
            return self.block(x, styles, skip)
        x = self.attention(self.early(x, styles[:, :2], skip), uncertainty)
        return self.block(x, styles[:, 2:])
