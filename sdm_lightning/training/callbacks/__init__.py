"""Lightning callbacks: what a run does besides training."""

from sdm_lightning.training.callbacks.budget import ImageBudget
from sdm_lightning.training.callbacks.pictures import PredictionWriter, SampleGrid
from sdm_lightning.training.callbacks.preemption import Preemption
from sdm_lightning.training.callbacks.progress import ImageProgressBar

__all__ = ["ImageBudget", "ImageProgressBar", "PredictionWriter", "Preemption", "SampleGrid"]
