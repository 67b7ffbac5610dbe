"""From the predicted variances to one uncertainty per pixel, u~_t (Sec. 3.1.2)."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

UncertaintyScale: TypeAlias = Literal["minmax", "clamp"]

UncertaintyChannels: TypeAlias = Literal["mean", "max"]


def standard_deviation(log_variance: Tensor) -> Tensor:
    """Compute sigma from log sigma^2, in the same shape and dtype.

    The logarithm is clamped to [-40, 20], so that the result stays positive and finite in float32
    whatever a network predicts.
    """
    return torch.exp(0.5 * log_variance.clamp(-40.0, 20.0))


def standard_deviation_map(log_variance: Tensor, channels: UncertaintyChannels = "mean") -> Tensor:
    """Compute one standard deviation per pixel from those of its colour channels.

    The paper has three variances per pixel and one uncertainty, and does not say how one
    follows from the other.

    Args:
        log_variance: ``(B, 3, H, W)``.
        channels: The mean or the largest of the three.

    Returns:
        ``(B, 1, H, W)``, positive and finite.
    """
    deviations = standard_deviation(log_variance.float())
    reduce = torch.mean if channels == "mean" else torch.amax
    return reduce(deviations, dim=1, keepdim=True)


def scale_uncertainty(deviation: Tensor, hole: Tensor, scale: UncertaintyScale) -> Tensor:
    """Scale standard deviations to [0, 1], the preliminary uncertainty u~_t.

    Args:
        deviation: ``(B, 1, H, W)``, positive.
        hole: ``(B, 1, H, W)``, 1 where initially missing: the pixels that are compared.
        scale: ``"minmax"`` stretches the hole's smallest deviation to 0 and its largest to 1, image
            by image; ``"clamp"`` keeps the deviation itself, cut at 1 (half the image's range).

    Returns:
        ``(B, 1, H, W)`` in [0, 1]; 0 outside the hole.
    """
    if scale == "clamp":
        return deviation.clamp(0.0, 1.0) * hole
    inside = hole.bool()
    infinity = torch.full_like(deviation, torch.inf)
    low = torch.where(inside, deviation, infinity).amin(dim=(1, 2, 3), keepdim=True)
    high = torch.where(inside, deviation, -infinity).amax(dim=(1, 2, 3), keepdim=True)
    span = (high - low).clamp_min(1e-8)
    # In an image without a hole low is +inf; its pixels are dropped by where() below.
    return torch.where(inside, (deviation - low) / span, torch.zeros_like(deviation))
