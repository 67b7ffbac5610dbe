"""Discriminator: StyleGAN2's residual network (Eq. 7-8; Sec. 3.3)."""

import torch
from torch import Tensor, nn

from sdm_lightning.errors import InputError
from sdm_lightning.models.layers import (
    RESIDUAL_GAIN,
    EqualizedConv2d,
    EqualizedLinear,
    downsample,
    fast_layout,
    minibatch_standard_deviation,
    widen,
)

_FINAL_SIZE = 4


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = EqualizedConv2d(in_channels, in_channels)
        self.conv1 = EqualizedConv2d(
            in_channels, out_channels, stride=2, blur_input=True, gain=RESIDUAL_GAIN
        )
        self.shortcut = EqualizedConv2d(
            in_channels, out_channels, 1, bias=False, activate=False, gain=RESIDUAL_GAIN
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, h, w)`` to ``(B, out_channels, h / 2, w / 2)``."""
        return self.conv1(self.conv0(x)) + self.shortcut(downsample(x))


class Discriminator(nn.Module):
    """Judges whole images; one logit per image, high for real.

    Args:
        resolution: Side of the square images, a power of two from 8.
        base_channels: Channels at full size; they double with every downsampling.
        max_channels: Upper limit of the channels.
        mask_conditioning: Judge the image together with its mask (concatenated as mask - 0.5).
        mbstd_group: Samples per group of the minibatch standard deviation; the largest divisor
            of the batch not above it is used. 0 turns it off.

    Raises:
        InputError: If ``resolution`` is not a power of two from 8.
    """

    def __init__(
        self,
        resolution: int = 512,
        base_channels: int = 64,
        max_channels: int = 512,
        mask_conditioning: bool = True,
        mbstd_group: int = 8,
    ) -> None:
        super().__init__()
        if resolution < 2 * _FINAL_SIZE or resolution & (resolution - 1):
            raise InputError(
                f"discriminator resolution {resolution} is not a power of two from 8 upwards"
            )
        self.resolution = resolution
        self.mask_conditioning = mask_conditioning
        self.mbstd_group = mbstd_group
        num_blocks = (resolution // _FINAL_SIZE).bit_length() - 1
        channels = [min(base_channels * 2**level, max_channels) for level in range(num_blocks + 1)]
        self.stem = EqualizedConv2d(4 if mask_conditioning else 3, channels[0], 1)
        self.blocks = nn.Sequential(
            *(
                DiscriminatorBlock(channels[level], channels[level + 1])
                for level in range(num_blocks)
            )
        )
        width = channels[-1]
        self.conv = EqualizedConv2d(width + (1 if mbstd_group else 0), width)
        self.hidden = EqualizedLinear(width * _FINAL_SIZE**2, width, activate=True)
        self.to_logit = EqualizedLinear(width, 1)

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Judge images ``(B, 3, R, R)`` in [-1, 1] with masks ``(B, 1, R, R)``, 1 = known.

        The mask is used only with ``mask_conditioning``.

        Returns:
            Logits, float32 ``(B, 1)``.

        Raises:
            InputError: If the image has another size, or a needed mask is missing.
        """
        if image.shape[1:] != (3, self.resolution, self.resolution):
            raise InputError(
                f"discriminator input of shape {tuple(image.shape)}; expected (B, 3, "
                f"{self.resolution}, {self.resolution})"
            )
        x = image
        if self.mask_conditioning:
            if mask is None:
                raise InputError("discriminator with mask_conditioning was given no mask")
            x = torch.cat([image, mask.to(image.dtype) - 0.5], dim=1)
        x = self.blocks(self.stem(fast_layout(x)))
        if self.mbstd_group:
            x = minibatch_standard_deviation(x, self.mbstd_group)
        x = self.conv(x)
        return widen(self.to_logit(self.hidden(x.flatten(1))))
