"""The discretised-Gaussian likelihood of an 8-bit image (Eq. 1-3)."""

import torch
from torch import Tensor
from torch.special import log_ndtr

from sdm_lightning.devices import where_float64_is

HALF_BIN = 1 / 255
"""Half the distance of two of the 256 levels when they are spread over [-1, 1] (Eq. 2-3)."""


def discretized_gaussian_nll(mean: Tensor, log_variance: Tensor, target: Tensor) -> Tensor:
    """Compute the negative log probability of the target's 8-bit level, in nats per element.

    Each level owns a bin of width 2/255, except that the bins of the extreme levels (0 and
    255, that is -1 and 1) reach to infinity, so that the 256 probabilities sum to one. A target
    nearer than half a bin to -1 or 1 counts as that extreme level, which forgives rounding.

    The value and its gradient are finite for every finite input: a log variance outside [-22, 20]
    counts as the nearer of the two, with the gradient that this has, so that a network can recover
    from it, and an error beyond 100 counts as 100. Computed in float64, whose digits the difference
    of two close probabilities needs. No gradient reaches the mean (sg[.] in Eq. 1): the likelihood
    trains the variance alone.

    Args:
        mean: Predicted mean, ``(B, 3, H, W)``, in [-1, 1].
        log_variance: Predicted natural logarithm of the variance, same shape.
        target: True image, same shape, in [-1, 1].

    Returns:
        Nats per element, ``(B, 3, H, W)``, at least float32; Eq. 1 is the sum of them over an
        image.

    Source:
        Eq. 1-3, Sec. 3.1.1.
    """
    dtype = torch.promote_types(torch.result_type(mean, log_variance), torch.float32)
    device = log_variance.device
    mean, log_variance, target = (
        where_float64_is(tensor).double() for tensor in (mean.detach(), log_variance, target)
    )
    error = (target - mean).clamp(-100.0, 100.0)
    # The bounds keep the arguments of log_ndtr small enough for torch's gradient of it, which loses
    # digits as the square of the argument. The second term is 0 and passes the gradient on.
    bounded = log_variance.detach().clamp(-22.0, 20.0) + (log_variance - log_variance.detach())
    scale = torch.exp(-0.5 * bounded)
    # Mirrored if necessary, the bin lies above the mean: both its tails are upper tails, whose
    # logarithms lose no digits. An extreme level's bin lies on its own side, and has no end.
    edge = target.abs() > 1 - HALF_BIN
    distance = torch.where(torch.where(edge, target, error) >= 0, error, -error)
    beyond_start = log_ndtr((HALF_BIN - distance) * scale)
    beyond_end = torch.where(edge, -torch.inf, log_ndtr((-HALF_BIN - distance) * scale))
    inside = torch.log(-torch.expm1(beyond_end - beyond_start))
    return -(beyond_start + inside).to(dtype).to(device)
