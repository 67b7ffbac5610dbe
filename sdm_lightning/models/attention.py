"""Uncertainty-guided attention (Eq. 6)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdm_lightning.errors import InputError
from sdm_lightning.models.layers import EqualizedConv2d, full_precision, widen

# Flash kernels want the head width in multiples of 8.
_HEAD_ALIGNMENT = 8


def biased_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Compute softmax(q k^T / sqrt(d) + bias) v with one bias per key (Eq. 6).

    The bias travels as extra channels of the keys that meet a constant in the queries. So no
    N x N mask exists, forward or backward, and kernels without mask support (flash) apply.

    Args:
        query: ``(B, heads, N, d)``.
        key: ``(B, heads, N, d)``.
        value: ``(B, heads, N, d)``.
        bias: ``(B, N)``, added to the logits of each key, the same for all heads and queries; or
            None for plain attention.

    Returns:
        ``(B, heads, N, d)``, float32 or wider on a CPU, else in the type of ``query``.
    """
    if query.device.type == "cpu":
        # The CPU's flash kernel is several times slower in bfloat16 than in float32.
        with full_precision(query):
            return _biased_attention(widen(query), widen(key), widen(value), bias)
    return _biased_attention(query, key, value, bias)


def _biased_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return F.scaled_dot_product_attention(query, key, value)
    width = query.shape[-1]
    extra = _HEAD_ALIGNMENT - width % _HEAD_ALIGNMENT
    extra = extra if extra >= 2 else extra + _HEAD_ALIGNMENT
    bias = (widen(bias) * math.sqrt(width))[:, None, :, None].expand(*key.shape[:-1], 1)
    # In half precision one channel would round the bias; a second one carries the rest.
    high = bias.to(key.dtype)
    low = (bias - widen(high)).to(key.dtype)
    key = F.pad(torch.cat([key, high, low], dim=-1), (0, extra - 2))
    query = F.pad(F.pad(query, (0, 2), value=1.0), (0, extra - 2))
    value = F.pad(value, (0, extra))
    output = F.scaled_dot_product_attention(query, key, value, scale=1.0 / math.sqrt(width))
    return output[..., :width]


class UncertaintyBias(nn.Module):
    """F of Eq. 6: four 3 x 3 convolutions from the uncertainty map to a bias per key pixel.

    Args:
        hidden_channels: Width of the three inner feature maps.
    """

    def __init__(self, hidden_channels: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            EqualizedConv2d(1, hidden_channels),
            EqualizedConv2d(hidden_channels, hidden_channels),
            EqualizedConv2d(hidden_channels, hidden_channels),
            # No bias: softmax ignores what is added to every key alike.
            EqualizedConv2d(hidden_channels, 1, bias=False, activate=False),
        )

    def forward(self, uncertainty: Tensor) -> Tensor:
        """Map ``(B, 1, h, w)`` in [0, 1] to biases ``(B, h * w)``."""
        return self.layers(uncertainty).flatten(1)


class AttentionBlock(nn.Module):
    """Residual multi-head self-attention over all pixels, biased by the uncertainty (Eq. 6).

    Features are brought to unit root mean square per pixel before q, k and v: the logits stay
    bounded, and no statistic is taken over the image, where holes would distort it.

    Args:
        channels: Feature channels, a multiple of ``num_heads``.
        num_heads: Attention heads.
        uncertainty_guided: Add F(u) (False is Table 1, model F).
        bias_channels: Width of F.

    Raises:
        InputError: If ``channels`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 8,
        uncertainty_guided: bool = True,
        bias_channels: int = 128,
    ) -> None:
        super().__init__()
        if num_heads < 1 or channels % num_heads:
            raise InputError(
                f"attention_heads: {num_heads} heads do not divide {channels} channels; "
                f"choose a divisor of {channels}"
            )
        self.num_heads = num_heads
        # No biases here: softmax ignores that of k, and the output's covers that of v.
        self.to_qkv = EqualizedConv2d(
            channels, 3 * channels, kernel_size=1, bias=False, activate=False
        )
        self.to_output = EqualizedConv2d(channels, channels, kernel_size=1, activate=False)
        self.bias = UncertaintyBias(bias_channels) if uncertainty_guided else None

    def forward(self, x: Tensor, uncertainty: Tensor) -> Tensor:
        """Map features ``(B, C, h, w)`` under the uncertainty ``(B, 1, h, w)``."""
        batch, channels, height, width = x.shape
        square = widen(x).square().mean(dim=1, keepdim=True)
        normalized = x * torch.rsqrt(square + 1e-8).to(x.dtype)
        # (B, h * w, 3, heads, d) -> q, k, v of (B, heads, h * w, d); a view in channels-last.
        qkv = self.to_qkv(normalized).permute(0, 2, 3, 1)
        qkv = qkv.reshape(batch, height * width, 3, self.num_heads, channels // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(dim=0)
        bias = None if self.bias is None else self.bias(uncertainty)
        if bias is None:  # fused kernels want vectors in one piece; a bias makes such copies anyway
            query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        attended = biased_attention(query, key, value, bias).to(x.dtype)
        attended = attended.transpose(1, 2).reshape(batch, height, width, channels)
        return x + self.to_output(attended.permute(0, 3, 1, 2))
