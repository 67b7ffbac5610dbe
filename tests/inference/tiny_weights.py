"""Weights and checkpoints made of a tiny generator."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sdm_lightning.inference import WeightsInfo, save_weights
from sdm_lightning.models import Generator

TINY: dict[str, Any] = {
    "base_channels": 4,
    "max_channels": 8,
    "num_downsamples": 3,
    "attention_strides": [8],
    "attention_heads": 1,
    "bias_channels": 4,
    "latent_dim": 8,
    "mapping_layers": 1,
}


def random_weights(
    path: Path, settings: dict[str, Any], loop: dict[str, Any], **facts: Any
) -> Path:
    """Write weights of a generator and its loop, whose parameters are random numbers."""
    torch.manual_seed(0)
    generator = Generator(**settings)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    info = WeightsInfo(
        {"class_path": "sdm_lightning.models.Generator", "init_args": settings},
        {"class_path": "sdm_lightning.diffusion.SpatialDiffusion", "init_args": loop},
        licence="CC0-1.0",
        data="random numbers",
        **facts,
    )
    return save_weights(path, info, generator.state_dict())


def checkpoint(settings: dict[str, Any] = TINY, **changes: Any) -> dict[str, Any]:
    """What ``sdm fit`` would save of a generator with random weights, as far as it is read."""
    torch.manual_seed(1)
    raw, ema = Generator(**settings), Generator(**settings)
    state = {f"generator.{name}": tensor for name, tensor in raw.state_dict().items()}
    state |= {f"generator_ema.{name}": tensor for name, tensor in ema.state_dict().items()}
    state["discriminator.x"] = torch.zeros(1)
    return {
        "state_dict": state,
        "images_seen": 640,
        "hyper_parameters": {
            "generator": {"class_path": "sdm_lightning.models.Generator", "init_args": settings},
            "diffusion": {
                "class_path": "sdm_lightning.diffusion.SpatialDiffusion",
                "init_args": {"alpha": 0.5, "uncertainty_channels": "max"},
            },
            "test_iterations": 5,
        },
    } | changes


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a tiny generator with random weights, trained at "32 pixels"."""
    schedule = {"class_path": "sdm_lightning.diffusion.CubicSchedule"}
    return random_weights(
        tmp_path_factory.mktemp("weights") / "tiny.safetensors",
        TINY,
        {"num_iterations": 3, "alpha": 0.05, "schedule": schedule},
        resolution=32,
        images_seen=1234,
    )
