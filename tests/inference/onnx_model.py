"""The smallest generator's loop as ONNX, exported once for all tests that run it."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.torch_version import TorchVersion

from sdm_lightning.inference.onnx_file import TORCH_WITH_FREE_SIZES
from tests.inference.tiny_weights import TINY, random_weights

SMALLEST: dict[str, Any] = {**TINY, "num_downsamples": 1, "attention_strides": [2]}


@pytest.fixture(scope="session")
def smallest_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a generator with one downsampling, trained at "16 pixels" for T = 2."""
    path = tmp_path_factory.mktemp("onnx") / "smallest.safetensors"
    return random_weights(path, SMALLEST, {"num_iterations": 2, "alpha": 0.05}, resolution=16)


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
