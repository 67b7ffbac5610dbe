"""Generator: convolutional encoder, StyleGAN2 decoder, attention (Sec. 3.2, supplement A)."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sdm_lightning.errors import InputError
from sdm_lightning.models.attention import AttentionBlock
from sdm_lightning.models.blocks import DecoderStage, EncoderStage, StyledResidualBlock
from sdm_lightning.models.layers import (
    EqualizedConv2d,
    EqualizedLinear,
    StyledConv2d,
    fast_layout,
    full_precision,
    widen,
)
from sdm_lightning.models.mapping import MappingNetwork

INPUT_CHANNELS = 7
IMAGE_CHANNELS = 3
UNCERTAINTY_CHANNEL = 5


class Generator(nn.Module):
    """Predicts mean and log variance of all pixels from one state of the spatial diffusion.

    With its defaults this is the 512 x 512 model of Table 3: 74 million parameters.

    Args:
        base_channels: Channels at full size; they double with every downsampling.
        max_channels: Upper limit of the channels.
        num_downsamples: Halvings in the encoder; 5 leads to H/32.
        attention_strides: Strides (powers of two) with attention, each behind an early block.
            (16, 32) is H/16 and H/32; the paper's ablations at 256 x 256 name the absolute sizes
            32 and 16, which is (8, 16), and (16,) for Table 1, model G.
        attention_heads: Heads of each attention block.
        uncertainty_guided: Bias attention by F(u) (False is Table 1, model F).
        bias_channels: Width of the four convolutions of F.
        latent_dim: Width of the latent code, which is concatenated with the global feature into the
            style.
        mapping_layers: Fully connected layers of the mapping network.
        mapping_lr_multiplier: Learning-rate factor of the mapping network.
        noise_injection: Per-pixel noise of learned strength in the decoder while training.
        mean_activation: "linear", or "tanh" to confine the mean to [-1, 1].
        initial_log_variance: Bias that the log variance starts from (of images in [-1, 1]).
        checkpoint_blocks: Recompute each stage in the backward pass to save memory.
        zero_state_channels: Start the stem's weights for masks, uncertainty and time at zero. With
            one iteration in training the time channel is always 0, so its weights get no gradient
            and stay as they started; at random they disturb later iterations in a test.

    Raises:
        InputError: If a size is below 1, or strides, downsamplings, heads or the mean's activation
            do not fit.

    Source: Sec. 3.2, Sec. 4.2, supplement A.
    """

    def __init__(
        self,
        base_channels: int = 64,
        max_channels: int = 512,
        num_downsamples: int = 5,
        attention_strides: tuple[int, ...] = (16, 32),
        attention_heads: int = 8,
        uncertainty_guided: bool = True,
        bias_channels: int = 128,
        latent_dim: int = 512,
        mapping_layers: int = 8,
        mapping_lr_multiplier: float = 0.01,
        noise_injection: bool = False,
        mean_activation: Literal["linear", "tanh"] = "linear",
        initial_log_variance: float = -2.0,
        checkpoint_blocks: bool = False,
        zero_state_channels: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= num_downsamples <= 16:
            raise InputError(f"num_downsamples is {num_downsamples}; it must be 0 to 16")
        strides = [2**level for level in range(num_downsamples + 1)]
        sizes = {
            "base_channels": base_channels, "max_channels": max_channels,
            "attention_heads": attention_heads, "bias_channels": bias_channels,
            "latent_dim": latent_dim,
        }  # fmt: skip
        for name, size in sizes.items():
            if size < 1:
                raise InputError(f"{name} is {size}; it must be at least 1")
        if unknown := sorted(set(attention_strides) - set(strides)):
            raise InputError(
                f"attention_strides: {unknown} not among the strides {strides} of a generator "
                f"with num_downsamples={num_downsamples}"
            )
        if mean_activation not in ("linear", "tanh"):
            raise InputError(f"mean_activation: {mean_activation!r} is neither 'linear' nor 'tanh'")
        channels = [min(base_channels * stride, max_channels) for stride in strides]
        self.stride = strides[-1]
        self.latent_dim = latent_dim
        self.mean_activation = mean_activation
        self.initial_log_variance = initial_log_variance
        self.checkpoint_blocks = checkpoint_blocks

        def attention(level: int) -> AttentionBlock | None:
            if strides[level] not in attention_strides:
                return None
            return AttentionBlock(
                channels[level], attention_heads, uncertainty_guided, bias_channels
            )

        self.mapping = MappingNetwork(latent_dim, mapping_layers, mapping_lr_multiplier)
        self.stem = EqualizedConv2d(INPUT_CHANNELS, channels[0])
        if zero_state_channels:
            with torch.no_grad():
                self.stem.weight[:, IMAGE_CHANNELS:] = 0
        self.encoder = nn.ModuleList(
            EncoderStage(channels[max(level - 1, 0)], channels[level], level > 0, attention(level))
            for level in range(num_downsamples + 1)
        )
        # Three halvings, H/32 to H/256, before global pooling (supplement A).
        self.global_feature = nn.Sequential(
            *(EqualizedConv2d(channels[-1], channels[-1], stride=2) for _ in range(3))
        )
        self.project_global = EqualizedLinear(channels[-1], channels[-1], activate=True)
        style_dim = channels[-1] + latent_dim
        self.decoder = nn.ModuleList(
            DecoderStage(
                channels[min(level + 1, num_downsamples)],
                channels[level],
                style_dim,
                up=level < num_downsamples,
                skip_channels=channels[level] if level < num_downsamples else 0,
                attention=attention(level),
                noise_injection=noise_injection,
            )
            for level in reversed(range(num_downsamples + 1))
        )
        self.to_output = StyledConv2d(
            channels[0], 6, style_dim, kernel_size=1, demodulate=False, activate=False
        )
        # Early blocks have two modulated convolutions more.
        self._stage_styles = [
            StyledResidualBlock.num_styles * (2 if stride in attention_strides else 1)
            for stride in reversed(strides)
        ]
        self.num_styles = sum(self._stage_styles) + 1

    def forward(self, inputs: Tensor, styles: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict every pixel, known ones included.

        Args:
            inputs: ``(B, 7, H, W)``: image in [-1, 1] (3), initial mask, updated mask,
                uncertainty in [0, 1], time step in [0, 1]; H and W multiples of `stride`.
            styles: Mapped latent codes, ``(B, latent_dim)`` or one per modulated convolution
                ``(B, num_styles, latent_dim)``; None takes the mapping's running average.

        Returns:
            Mean and log variance, both float32 ``(B, 3, H, W)``.

        Raises:
            InputError: If the shape of ``inputs`` or ``styles`` does not fit.
        """
        self._check_inputs(inputs)
        codes = self._expand_styles(inputs, styles)
        uncertainty = inputs[:, UNCERTAINTY_CHANNEL : UNCERTAINTY_CHANNEL + 1]
        pyramid = [uncertainty]
        for _ in range(1, len(self.encoder)):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))

        x = self.stem(fast_layout(inputs))
        skips = []
        for stage, guide in zip(self.encoder, pyramid, strict=True):
            x = self._run(stage, x, guide)
            skips.append(x)

        feature = self.project_global(self._global_feature(x))
        feature = feature[:, None].expand(-1, self.num_styles, -1)
        style = torch.cat([feature, codes.to(feature.dtype)], dim=-1)
        stage_styles = style.split([*self._stage_styles, 1], dim=1)

        last = len(self.decoder) - 1
        for index, stage in enumerate(self.decoder):
            skip = skips[last - index] if index else None
            x = self._run(stage, x, stage_styles[index], pyramid[last - index], skip)
        output = widen(self.to_output(x, stage_styles[-1][:, 0]))
        mean, log_variance = output.chunk(2, dim=1)
        if self.mean_activation == "tanh":
            mean = torch.tanh(mean)
        return mean, log_variance + self.initial_log_variance

    def _global_feature(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            # The CPU's bfloat16 kernel reads unset memory in the weight gradient of a strided
            # convolution of one pixel (seen with torch 2.15); in float32 this costs nothing.
            with full_precision(x):
                return self.global_feature(widen(x)).mean(dim=(2, 3))
        return self.global_feature(x).mean(dim=(2, 3))

    def _run(self, stage: nn.Module, *args: Any) -> Tensor:
        if self.checkpoint_blocks and torch.is_grad_enabled():
            return checkpoint(stage, *args, use_reentrant=False)
        return stage(*args)

    def _check_inputs(self, inputs: Tensor) -> None:
        if inputs.ndim != 4 or inputs.shape[1] != INPUT_CHANNELS:
            raise InputError(
                f"generator input of shape {tuple(inputs.shape)}; expected (B, 7, H, W): "
                "image, initial mask, updated mask, uncertainty, time"
            )
        height, width = inputs.shape[-2:]
        if height % self.stride or width % self.stride:
            raise InputError(
                f"image size {height}x{width} is not divisible by the generator's stride "
                f"{self.stride}; pad it to {math.ceil(height / self.stride) * self.stride}x"
                f"{math.ceil(width / self.stride) * self.stride}"
            )

    def _expand_styles(self, inputs: Tensor, styles: Tensor | None) -> Tensor:
        batch = inputs.shape[0]
        if styles is None:
            return self.mapping.average.expand(batch, self.num_styles, -1)
        if styles.shape == (batch, self.latent_dim):
            return styles[:, None].expand(-1, self.num_styles, -1)
        if styles.shape == (batch, self.num_styles, self.latent_dim):
            return styles
        raise InputError(
            f"styles of shape {tuple(styles.shape)}; expected ({batch}, {self.latent_dim}) or "
            f"({batch}, {self.num_styles}, {self.latent_dim})"
        )
