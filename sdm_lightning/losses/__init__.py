"""Losses: adversarial (Eq. 7-8), perceptual (Eq. 9), likelihood (Eq. 1-3) and further terms."""

from sdm_lightning.losses.adversarial import (
    discriminator_fake_loss,
    discriminator_real_loss,
    generator_adversarial_loss,
    r1_penalty,
)
from sdm_lightning.losses.image_features import FeaturePerceptualLoss
from sdm_lightning.losses.likelihood import discretized_gaussian_nll
from sdm_lightning.losses.perceptual import Encoded, PerceptualLoss, ResNetPerceptualLoss
from sdm_lightning.losses.pixel_pyramid import PixelPyramidLoss
from sdm_lightning.losses.term import LossTerm
from sdm_lightning.losses.weighted import WeightedPerceptualLoss

__all__ = [
    "Encoded",
    "FeaturePerceptualLoss",
    "LossTerm",
    "PerceptualLoss",
    "PixelPyramidLoss",
    "ResNetPerceptualLoss",
    "WeightedPerceptualLoss",
    "discretized_gaussian_nll",
    "discriminator_fake_loss",
    "discriminator_real_loss",
    "generator_adversarial_loss",
    "r1_penalty",
]
