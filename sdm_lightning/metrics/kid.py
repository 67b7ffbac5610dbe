"""Kernel inception distance: unbiased, and so of use with few images."""

import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from sdm_lightning.errors import InputError

SUBSETS = 100
SUBSET_SIZE = 1000
MIN_IMAGES = 4


def kernel_distance(
    real: Tensor, fake: Tensor, subsets: int = SUBSETS, seed: int = 0
) -> tuple[float, float]:
    """Estimate the kernel inception distance and how far a subset's estimate lies from it.

    The unbiased estimate of the squared maximum mean discrepancy with the kernel
    ``(x . y / D + 1)^3``, averaged over random subsets of 1,000 rows, or of half the smaller set.
    Its expectation does not depend on the number of images, so that it can be negative for sets
    that hardly differ.

    Args:
        real: ``(N, D)`` features of the originals.
        fake: ``(M, D)`` features of the completed images.
        subsets: Number of random subsets.
        seed: Seed of the subsets.

    Returns:
        Mean and standard deviation over the subsets, both times 1000 as they are usually printed.

    Raises:
        InputError: If a side has fewer than 4 rows.

    Source:
        Binkowski et al. 2018, Sec. 4.
    """
    fewest = min(len(real), len(fake))
    size = min(SUBSET_SIZE, fewest // 2)  # at most half, so that subsets differ
    if fewest < MIN_IMAGES:
        raise InputError(f"KID needs at least {MIN_IMAGES} images per side, got {fewest}")
    first, second = real.float(), fake.float()
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        rows = (torch.randperm(len(side), generator=generator)[:size] for side in (first, second))
        a, b = next(rows), next(rows)
        values.append(poly_mmd(first[a], second[b], degree=3, gamma=None, coef=1.0))
    found = 1000 * torch.stack(values).double()
    return found.mean().item(), found.std(correction=0).item()
