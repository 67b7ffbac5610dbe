"""Using a trained model: any photo, any size; weights that travel; export."""

from sdm_lightning.inference.inpainter import Inpainter
from sdm_lightning.inference.methods import BASELINES, mean_fill, navier_stokes, telea
from sdm_lightning.inference.results import (
    Inpainting,
    InpaintingSample,
    InpaintingStep,
    heat_map,
)
from sdm_lightning.inference.weights import WeightsInfo, load_generator, save_weights

__all__ = [
    "BASELINES",
    "Inpainter",
    "Inpainting",
    "InpaintingSample",
    "InpaintingStep",
    "WeightsInfo",
    "heat_map",
    "load_generator",
    "mean_fill",
    "navier_stokes",
    "save_weights",
    "telea",
]
