"""Metrics of completed images: plain torch and torchmetrics, no Lightning.

``fid``, ``p_ids``, ``u_ids``, ``lpips``, ``psnr``, ``ssim``, ``l1`` as the paper's protocol defines
them. Images are 8-bit: measured is what a file would hold.
"""

from sdm_lightning.metrics.fid import FrechetInceptionDistance, frechet_distance
from sdm_lightning.metrics.ids import (
    MIN_PAIRS,
    PairedFeatures,
    inception_discriminative_scores,
)
from sdm_lightning.metrics.lpips import LPIPS
from sdm_lightning.metrics.paired import (
    ImageScore,
    l1,
    paired_scores,
    psnr,
    ssim,
    uncertainty_error_correlation,
)
from sdm_lightning.metrics.precision_recall import precision_recall
from sdm_lightning.metrics.state import PerImageScores

__all__ = [
    "LPIPS",
    "MIN_PAIRS",
    "FrechetInceptionDistance",
    "ImageScore",
    "PairedFeatures",
    "PerImageScores",
    "frechet_distance",
    "inception_discriminative_scores",
    "l1",
    "paired_scores",
    "precision_recall",
    "psnr",
    "ssim",
    "uncertainty_error_correlation",
]
