"""Pretrained image networks, for losses and metrics, and their weights."""

from sdm_lightning.features.extractors import (
    FeatureExtractor,
    InceptionFeatures,
    RandomConvFeatures,
    build_features,
)
from sdm_lightning.features.images import to_uint8

__all__ = [
    "FeatureExtractor",
    "InceptionFeatures",
    "RandomConvFeatures",
    "build_features",
    "to_uint8",
]
