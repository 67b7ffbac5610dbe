"""The spatial-diffusion loop (Sec. 3.1.2, Eq. 4-5) and its mask schedules (Fig. 7)."""

from sdm_lightning.diffusion.interface import network_output
from sdm_lightning.diffusion.process import (
    DiffusionState,
    DiffusionStep,
    Network,
    NoiseSource,
    Prediction,
    SpatialDiffusion,
    complete,
    gaussian_noise,
    initial_state,
    pick,
    predict,
    sample,
)
from sdm_lightning.diffusion.schedules import (
    CosineSchedule,
    CubicSchedule,
    MaskSchedule,
    SquareRootSchedule,
    UniformSchedule,
)
from sdm_lightning.diffusion.uncertainty import standard_deviation, standard_deviation_map

__all__ = [
    "CosineSchedule",
    "CubicSchedule",
    "DiffusionState",
    "DiffusionStep",
    "MaskSchedule",
    "Network",
    "NoiseSource",
    "Prediction",
    "SpatialDiffusion",
    "SquareRootSchedule",
    "UniformSchedule",
    "complete",
    "gaussian_noise",
    "initial_state",
    "network_output",
    "pick",
    "predict",
    "sample",
    "standard_deviation",
    "standard_deviation_map",
]
