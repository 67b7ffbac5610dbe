"""The smallest generator's loop as ONNX, exported once for all tests that run it."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.torch_version import TorchVersion

from sdm_lightning.inference import WeightsInfo, save_weights
from sdm_lightning.inference.onnx_file import TORCH_WITH_FREE_SIZES
from sdm_lightning.models import Generator

SMALLEST: dict[str, Any] = {
    "base_channels": 4,
    "max_channels": 8,
    "num_downsamples": 1,
    "attention_strides": [2],
    "attention_heads": 1,
    "bias_channels": 4,
    "latent_dim": 8,
    "mapping_layers": 1,
}


@pytest.fixture(scope="session")
def smallest_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a generator with one downsampling, trained at "16 pixels" for T = 2."""
    torch.manual_seed(0)
    generator = Generator(**SMALLEST)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return save_weights(
        tmp_path_factory.mktemp("onnx") / "smallest.safetensors",
        WeightsInfo(
            {"class_path": "sdm_lightning.models.Generator", "init_args": SMALLEST},
            {
                "class_path": "sdm_lightning.diffusion.SpatialDiffusion",
                "init_args": {"num_iterations": 2, "alpha": 0.05},
            },
            resolution=16,
            licence="CC0-1.0",
            data="random numbers",
        ),
        generator.state_dict(),
    )


@pytest.fixture(scope="session")
def onnx_model(smallest_weights: Path) -> Path:
    """Its loop, any size and batch, weights stored as float16."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra onnx)")
    if TorchVersion(torch.__version__) < TORCH_WITH_FREE_SIZES:
        pytest.skip("this torch exports one size only")
    from sdm_lightning.inference.export import export_model

    path = smallest_weights.with_suffix(".onnx")
    logging.disable(logging.DEBUG)  # pytest would gather the tracer's thousands of messages
    try:
        export_model(str(smallest_weights), str(path), half=True)
    finally:
        logging.disable(logging.NOTSET)
    return path
