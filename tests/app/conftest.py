"""Photos as they are uploaded, painted holes as the page sends them, and a service."""

import base64
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.app.service import Service

RNG = np.random.default_rng(0)


def painted(hole: np.ndarray) -> str:
    """The data URL of a hole that is painted over a photo of the same size."""
    layer = np.zeros((*hole.shape, 4), np.uint8)
    layer[hole] = (255, 43, 214, 255)
    buffer = BytesIO()
    Image.fromarray(layer).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def upload(tmp_path: Path) -> Callable[..., Path]:
    """Writes an array to a file, as the web server does with what a browser sends."""

    def write(array: np.ndarray, name: str = "photo.png", **options: object) -> Path:
        folder = tmp_path / "uploads"
        folder.mkdir(exist_ok=True)
        Image.fromarray(array).save(folder / name, **options)
        return folder / name

    return write


@pytest.fixture
def service(tmp_path: Path, tiny_weights: Path) -> Service:
    folder = tmp_path / "service"
    folder.mkdir()
    return Service([str(tiny_weights), "demo"], "cpu", 4_000_000, folder)
