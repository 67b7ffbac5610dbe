"""Scores of a completed image against its original: PSNR, SSIM, L1, uncertainty against error.

Each function returns one float64 value per image; the mean over images is taken elsewhere. The
``_hole`` variants look at the pixels that were missing; an image without any has no such score
(NaN), and the count of those images is reported.
"""

import math
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from sdm_lightning.devices import where_float64_is
from sdm_lightning.errors import InputError
from sdm_lightning.scores import Better, find_score

PAIRED_NAMES = (
    "psnr",
    "psnr_hole",
    "ssim",
    "l1",
    "l1_hole",
    "hole_ratio",
    "uncertainty_error_correlation",
)
"""The scores of ``paired_scores``, in the order in which they are printed."""

SSIM_WINDOW = 11
"""Side of its window, below which it does not exist."""


def _hole_weights(mask: Tensor, like: Tensor) -> Tensor:
    return (mask < 0.5).to(torch.float64).expand(-1, like.shape[1], -1, -1)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Average each image over all pixels or over the hole; NaN without a hole pixel."""
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    weights = _hole_weights(mask, values)
    return (values * weights).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3))


def psnr(completed: Tensor, image: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute the peak signal-to-noise ratio of each image, in dB.

    The published protocol averages these values over images; it does not pool the squared errors.

    Args:
        completed: uint8 ``(B, 3, H, W)``.
        image: uint8 ``(B, 3, H, W)``.
        mask: ``(B, 1, H, W)``, 1 = known; only hole pixels count if it is given.

    Returns:
        float64 ``(B,)``; infinite for identical images, NaN without hole pixels.
    """
    squared = (completed.double() - image.double()).square()
    return 10 * torch.log10(255.0**2 / _mean(squared, mask))


def l1(completed: Tensor, image: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute the mean absolute difference of each image, on the scale [0, 1].

    Args:
        completed: uint8 ``(B, 3, H, W)``.
        image: uint8 ``(B, 3, H, W)``.
        mask: ``(B, 1, H, W)``, 1 = known; only hole pixels count if it is given.

    Returns:
        float64 ``(B,)``; NaN without hole pixels.
    """
    return _mean((completed.double() - image.double()).abs() / 255.0, mask)


def ssim(completed: Tensor, image: Tensor) -> Tensor:
    """Compute the structural similarity of each image.

    Per RGB channel, 11x11 Gaussian window of sigma 1.5, K = (0.01, 0.03), population variance,
    averaged over the positions where the whole window lies inside the image. The window is applied
    as a row and a column filter, which gives the same numbers at a tenth of the work.

    Args:
        completed: uint8 ``(B, 3, H, W)``, at least 11 pixels on each side.
        image: uint8 ``(B, 3, H, W)``.

    Returns:
        float64 ``(B,)``; NaN for images smaller than the window.

    Source: Wang et al. 2004.
    """
    batch, _, height, width = image.shape
    if min(height, width) < SSIM_WINDOW or batch == 0:
        return torch.full((batch,), torch.nan, dtype=torch.float64, device=image.device)
    # Numbers and not a tensor on the device, from which they would have to be read for each image.
    weights = [math.exp(-(position**2) / (2 * 1.5**2)) for position in range(-5, 6)]
    window = [weight / sum(weights) for weight in weights]
    # One image at a time: five float64 copies of a whole 512x512 batch would be gigabytes.
    pairs = zip(completed.double(), image.double(), strict=True)
    return torch.stack([_ssim_of_one(x, y, window) for x, y in pairs])


def _ssim_of_one(x: Tensor, y: Tensor, window: list[float]) -> Tensor:
    stack = torch.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = _filter(_filter(stack, window, 2), window, 3)
    variance_x, variance_y = xx - mean_x.square(), yy - mean_y.square()
    covariance = xy - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / (mean_x.square() + mean_y.square() + c1)
    return (similarity / (variance_x + variance_y + c2)).mean()


def _filter(images: Tensor, window: list[float], dim: int) -> Tensor:
    """Correlate along one dimension, without padding; faster than torch's float64 convolution."""
    size = images.shape[dim] - len(window) + 1
    total = torch.zeros_like(images.narrow(dim, 0, size))
    for offset, weight in enumerate(window):
        total.add_(images.narrow(dim, offset, size), alpha=weight)
    return total


def hole_ratio(mask: Tensor) -> Tensor:
    """Return the share of missing pixels, float64 ``(B,)``; mask ``(B, 1, H, W)``, 1 = known."""
    return (mask < 0.5).double().mean(dim=(1, 2, 3))


def uncertainty_error_correlation(
    uncertainty: Tensor, mean: Tensor, image: Tensor, mask: Tensor
) -> Tensor:
    """Measure how well the uncertainty ranks the hole pixels of each image by their error.

    Spearman's rank correlation: the uncertainty is rescaled per image before it is used, so only
    its order is meaningful, and the model uses only that order to pick pixels.

    Args:
        uncertainty: ``(B, 1, H, W)`` in [0, 1].
        mean: ``(B, 3, H, W)`` predicted mean in [-1, 1].
        image: ``(B, 3, H, W)`` original in [-1, 1].
        mask: ``(B, 1, H, W)``, 1 = known.

    Returns:
        float64 ``(B,)`` in [-1, 1], on the CPU; NaN where the hole has fewer than two pixels or one
        of the two maps is constant over it.
    """
    from scipy.stats import spearmanr  # slow to import

    error = (mean.float() - image.float()).abs().mean(dim=1, keepdim=True)
    hole = mask < 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant maps and two pixels; the result says it
        values = [
            spearmanr(u[h].float().numpy(force=True), e[h].numpy(force=True)).statistic
            for u, e, h in zip(uncertainty, error, hole, strict=True)
        ]
    return torch.tensor(values, dtype=torch.float64)


def paired_scores(completed: Tensor, image: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Compute every score of this module that needs only the images and the mask.

    Args:
        completed: uint8 ``(B, 3, H, W)``.
        image: uint8 ``(B, 3, H, W)``.
        mask: ``(B, 1, H, W)``, 1 = known, or None: then there are no hole-only scores.

    Returns:
        One float64 ``(B,)`` tensor per name.
    """
    completed, image = where_float64_is(completed), where_float64_is(image)
    mask = None if mask is None else where_float64_is(mask)
    scores = {
        "psnr": psnr(completed, image),
        "ssim": ssim(completed, image),
        "l1": l1(completed, image),
    }
    if mask is not None:
        scores["psnr_hole"] = psnr(completed, image, mask)
        scores["l1_hole"] = l1(completed, image, mask)
        scores["hole_ratio"] = hole_ratio(mask)
    return scores


class ImageScore(ABC):
    """A score of one's own, of single images; it sees what PSNR sees.

    Attributes:
        name: Letters, digits, ``_`` and ``-``; appears in tables and records.
        better: ``"lower"`` or ``"higher"``.
    """

    name: str
    better: Better

    @abstractmethod
    def __call__(self, completed: Tensor, original: Tensor, mask: Tensor | None) -> Tensor:
        """Score a batch; the mean over all images is reported.

        Args:
            completed: uint8 ``(B, 3, H, W)``, known pixels included.
            original: uint8 ``(B, 3, H, W)``.
            mask: ``(B, 1, H, W)``, 1 = known, 0 = hole; None in ``sdm evaluate`` without masks.

        Returns:
            ``(B,)``; an image whose value is NaN or infinite is left out of mean and count.
        """


def refuse_unfit_scores(scores: Sequence[ImageScore]) -> None:
    """Raise ``InputError`` for a score without a name of its own or without a direction."""
    names = [*PAIRED_NAMES, "not_finite", "lowest"]
    for score in scores:
        name, better = getattr(score, "name", None), getattr(score, "better", None)
        fit = isinstance(name, str) and re.fullmatch(r"[\w-]+", name) and find_score(name) is None
        if not fit or name in names or better not in ("lower", "higher"):
            raise InputError(
                f"extra_scores: {type(score).__name__} has name {name!r} and better {better!r}; "
                "give it a name of letters and digits that no other score has, and 'lower' or "
                "'higher'"
            )
        names.append(str(name))
