"""Networks: the generator of Sec. 3.2 and discriminators, in native torch operations only."""

from sdm_lightning.models.attention import AttentionBlock, UncertaintyBias
from sdm_lightning.models.discriminator import Discriminator
from sdm_lightning.models.feature_discriminator import FeatureDiscriminator
from sdm_lightning.models.generator import Generator
from sdm_lightning.models.mapping import MappingNetwork

__all__ = [
    "AttentionBlock",
    "Discriminator",
    "FeatureDiscriminator",
    "Generator",
    "MappingNetwork",
    "UncertaintyBias",
]
