"""Training with Lightning: the module, its recipe's settings, and the callbacks around it."""

from sdm_lightning.training.augment import AdaptiveAugment
from sdm_lightning.training.averaging import AverageSettings
from sdm_lightning.training.module import SDMModule
from sdm_lightning.training.settings import AdamSettings, LossSettings

__all__ = ["AdamSettings", "AdaptiveAugment", "AverageSettings", "LossSettings", "SDMModule"]
