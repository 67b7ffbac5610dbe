"""The discretised-Gaussian likelihood of an 8-bit image (Eq. 1-3)."""

import math
from typing import Any

import torch
from torch import Tensor

HALF_BIN = 1 / 255
"""Half the distance of two of the 256 levels when they are spread over [-1, 1] (Eq. 2-3)."""

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_SQRT_HALF = math.sqrt(0.5)

# Below this log variance the Gaussian stops shrinking, but keeps a gradient, so that a network can
# recover from it. exp(50) of a bin is far beyond any trained model.
_MIN_LOG_VARIANCE = -100.0
_MAX_ERROR = 1e6  # likewise for the error: times exp(50) and the line's slope it still fits float32

# Five-point Gauss-Legendre rule on [-1/2, 1/2]: the middle node, and two pairs +- node.
_NODES = (0.26923465505284155, 0.45308992296933200)
_WEIGHTS = (0.28444444444444444, 0.23931433524968324, 0.11846344252809454)


def discretized_gaussian_nll(mean: Tensor, log_variance: Tensor, target: Tensor) -> Tensor:
    """Compute the negative log probability of the target's 8-bit level, in nats per element.

    Each level owns a bin of half width 1/255 around it; the bins of the two extreme levels (0 and
    255, that is -1 and 1) reach to infinity, so that the 256 probabilities sum to one. A target
    nearer than half a bin to -1 or 1 counts as that extreme level, which forgives rounding.

    The value and its gradient are finite for every finite input: nothing is computed as a
    difference of two probabilities, and where even the logarithm outgrows the number format (a
    distance of more than 1e9 standard deviations in float32) the loss continues as a straight line.
    Computed in float32 or, if an input is float64, in float64, also inside autocast. No gradient
    reaches the mean (sg[.] in Eq. 1): the likelihood trains the variance alone.

    Args:
        mean: Predicted mean, ``(B, 3, H, W)``, in [-1, 1].
        log_variance: Predicted natural logarithm of the variance, same shape.
        target: True image, same shape, in [-1, 1].

    Returns:
        Nats per element, ``(B, 3, H, W)``; Eq. 1 is the sum of them over an image.

    Source:
        Eq. 1-3, Sec. 3.1.1.
    """
    dtype = torch.promote_types(torch.result_type(mean, log_variance), torch.float32)
    mean, log_variance, target = torch.broadcast_tensors(
        mean.detach().to(dtype), log_variance.to(dtype), target.to(dtype)
    )
    nll: Tensor = _DiscretizedGaussianNLL.apply(mean, log_variance, target)
    return nll


class _DiscretizedGaussianNLL(torch.autograd.Function):
    """Forward with the derivative by the log variance in closed form.

    Automatic differentiation would meet infinities in the branches that ``torch.where`` discards
    (and turn them into NaN) and would keep a dozen image-sized tensors per iteration.
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_variance: Tensor, target: Tensor) -> Tensor:
        error = (target - mean).clamp(-_MAX_ERROR, _MAX_ERROR)
        nll, slope = _bin_terms(target, error, log_variance)
        ctx.save_for_backward(slope)
        return nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (slope,) = ctx.saved_tensors
        return None, grad * slope, None


def _bin_terms(target: Tensor, error: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Integrate the bin around ``target``, with the mean at ``target - error``.

    Mirrored if necessary, the bin lies above the mean; in units of the standard deviation it is
    [lo, hi] = c +- w/2. An extreme level's bin lies on its own side, and its hi is far away.

    Returns:
        The negative log probability, and its derivative by the log variance.
    """
    scale = torch.exp(-0.5 * log_variance.clamp_min(_MIN_LOG_VARIANCE))
    edge = target.abs() > 1 - HALF_BIN
    side = torch.where(torch.where(edge, target, error) >= 0, 1.0, -1.0).to(error.dtype)
    distance = error * side
    c = distance * scale
    w = torch.where(edge, 1e10, 2 * HALF_BIN * scale)
    lo = (distance - HALF_BIN) * scale
    hi = torch.where(edge, 1e18, (distance + HALF_BIN) * scale)

    narrow = (w < 0.5) & (c * w < 0.5)
    narrow_terms = _narrow_bin(
        torch.where(narrow, c, 0.5), torch.where(narrow, w, 0.5), log_variance
    )
    wide_terms = _wide_bin(
        torch.where(narrow, 1.0, lo), torch.where(narrow, 2.0, hi), torch.where(narrow, 1.0, w)
    )
    nll, slope = (torch.where(narrow, a, b) for a, b in zip(narrow_terms, wide_terms, strict=True))
    return nll, slope


def _narrow_bin(c: Tensor, w: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Integrate a bin over which the density hardly changes: P = phi(c) w g, g a mean near 1.

    g = int over t in [-1/2, 1/2] of exp(-c w t - (w t)^2 / 2), by quadrature (exact to rounding
    for w, c w < 1). log w is taken from the log variance, for w itself may underflow.
    """
    a, b = c * w, w.square()
    g = torch.full_like(a, _WEIGHTS[0])
    for node, weight in zip(_NODES, _WEIGHTS[1:], strict=True):
        g = g + 2 * weight * torch.cosh(a * node) * torch.exp(-0.5 * b * node**2)
    log_w = math.log(2 * HALF_BIN) - 0.5 * log_variance
    nll = 0.5 * c.square() + _HALF_LOG_2PI - log_w - torch.log(g)
    half = 0.5 * a
    # sinh(x) / x, with its series where the quotient would be 0 / 0.
    sinhc = torch.where(half > 1e-2, torch.sinh(half) / half.clamp_min(1e-2), 1 + half.square() / 6)
    ends = torch.exp(-b / 8) / g  # phi at either end is phi(c) exp(-b/8) exp(-+ a/2)
    return nll, 0.5 * ends * (torch.cosh(half) - c.square() * sinhc)


def _wide_bin(lo: Tensor, hi: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Integrate a bin over which the density changes much; R = Q / phi is Mills' ratio.

    With the mean below it, P = phi(lo) [R(lo) - R(hi) exp(-c w)]: as c w = (hi^2 - lo^2) / 2 or w
    is at least 1/2, the bracket loses no digits. With the mean in it, P = 1 - Q(-lo) - Q(hi),
    which is never small.
    """
    ratio_lo, ratio_hi = _mills_ratio(lo.abs()), _mills_ratio(hi)
    density_lo, density_hi = _density(lo), _density(hi)

    decay = torch.exp(-0.5 * (lo + hi) * w)
    bracket = ratio_lo - ratio_hi * decay
    square, line_slope = _half_square(lo.clamp_min(0))
    far_nll = square + _HALF_LOG_2PI - torch.log(bracket)
    far_slope = 0.5 * torch.where(lo > line_slope, -line_slope * lo, (hi * decay - lo) / bracket)

    outside = ratio_lo * density_lo + ratio_hi * density_hi
    near_nll = -torch.log1p(-outside)
    near_slope = 0.5 * (hi * density_hi - lo * density_lo) / (1 - outside)
    near = lo < 0
    return torch.where(near, near_nll, far_nll), torch.where(near, near_slope, far_slope)


def _half_square(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute x^2 / 2 for x >= 0, continued as its tangent where the square would overflow.

    Returns:
        The value, and its slope, that is x but at most the limit.
    """
    limit = 1e9 if x.dtype == torch.float32 else 1e100
    slope = x.clamp_max(limit)
    return slope * (x - 0.5 * slope), slope


def _mills_ratio(x: Tensor) -> Tensor:
    """Compute Q(x) / phi(x) for x >= 0: from sqrt(pi / 2) at zero down to 1 / x."""
    scaled: Tensor = torch.special.erfcx(x * _SQRT_HALF)
    return math.sqrt(math.pi / 2) * scaled


def _density(x: Tensor) -> Tensor:
    """Compute phi(x); may underflow to zero."""
    return torch.exp(-0.5 * x.square() - _HALF_LOG_2PI)
