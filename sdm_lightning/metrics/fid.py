"""Frechet inception distance from float64 sums."""

import torch
from torch import Tensor

from sdm_lightning.errors import InputError
from sdm_lightning.metrics.state import ExactMetric


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Compute the squared Frechet distance of two Gaussians, in float64.

    ``|mu_a - mu_b|^2 + tr(A) + tr(B) - 2 tr((AB)^(1/2))``; the last trace is the sum of the square
    roots of the eigenvalues of ``A^(1/2) B A^(1/2)``, which is symmetric, so that no imaginary
    parts arise and rank-deficient covariances need no ridge.

    Args:
        mean_a: ``(D,)``.
        cov_a: ``(D, D)``.
        mean_b: ``(D,)``.
        cov_b: ``(D, D)``.

    Returns:
        The distance, at least 0.

    Source: Heusel et al. 2017.
    """
    a, b = cov_a.double(), cov_b.double()
    values, vectors = torch.linalg.eigh(a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    product = torch.linalg.eigvalsh(root @ b @ root).clamp_min(0)
    difference = (mean_a.double() - mean_b.double()).square().sum()
    distance = difference + torch.trace(a) + torch.trace(b) - 2 * product.sqrt().sum()
    # Rounding can take equal sets slightly below 0.
    return max(distance.item(), 0.0)


class FrechetInceptionDistance(ExactMetric):
    """FID of feature rows; states are float64 sums, equal over any number of processes.

    Covariances are divided by N - 1, as torch-fidelity does. (The scripts behind the published
    tables divide by N, which changes FID by 0.03 % at N = 2,993.)

    Args:
        dim: Length of a feature row.
    """

    def __init__(self, dim: int = 2048) -> None:
        super().__init__()
        for side in ("real", "fake"):
            self.add_state(f"{side}_sum", torch.zeros(dim, dtype=torch.float64), "sum")
            self.add_state(f"{side}_outer", torch.zeros(dim, dim, dtype=torch.float64), "sum")
            self.add_state(f"{side}_count", torch.zeros((), dtype=torch.int64), "sum")

    def update(self, features: Tensor, real: bool) -> None:
        """Add rows.

        Args:
            features: ``(B, dim)``.
            real: Whether they are of original images.
        """
        rows = features.detach().to("cpu", torch.float64)
        side = "real" if real else "fake"
        getattr(self, f"{side}_sum").add_(rows.sum(dim=0))
        getattr(self, f"{side}_outer").addmm_(rows.T, rows)
        getattr(self, f"{side}_count").add_(len(rows))

    def compute(self) -> float:
        """Compute the FID of the rows of all processes; see ``value``."""
        return self.value()

    def value(self) -> float:
        """Compute the FID of all rows so far, without synchronisation.

        Raises:
            InputError: If a side has fewer than two images.
        """
        statistics = []
        for side in ("real", "fake"):
            count = int(getattr(self, f"{side}_count"))
            if count < 2:
                raise InputError(f"FID needs at least 2 {side} images, got {count}")
            mean = getattr(self, f"{side}_sum") / count
            outer = getattr(self, f"{side}_outer")
            statistics += [mean, (outer - count * torch.outer(mean, mean)) / (count - 1)]
        return frechet_distance(*statistics)
