"""The example with onnxruntime alone, run as its user runs it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnxruntime_inpaint.py"
pytestmark = pytest.mark.timeout(600)  # the export, before the first test
# Whoever imports either of them gets an ImportError.
WITHOUT = (
    "import sys, runpy; sys.modules['torch'] = sys.modules['sdm_lightning'] = None; "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def test_a_photo_taken_upside_down(onnx_model: Path, tmp_path: Path) -> None:
    """The mask belongs to the photo as viewers show it, and so does the result."""
    photo = np.random.default_rng(0).integers(0, 256, (48, 70, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(photo[::-1, ::-1]).save(tmp_path / "photo.png", exif=exif)
    known = np.ones((48, 70), dtype=bool)
    known[10:20, 5:25] = False
    Image.fromarray((known * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    names = [str(tmp_path / name) for name in ("photo.png", "mask.png", "filled.png")]
    subprocess.run([sys.executable, str(EXAMPLE), str(onnx_model), *names], check=True)
    filled = np.asarray(Image.open(names[2]))
    np.testing.assert_array_equal(filled[known], photo[known])
    assert (filled[~known] != photo[~known]).mean() > 0.9


@pytest.mark.parametrize("hole", [(10, 40, 20, 60), (0, 3, 0, 3), (0, 48, 0, 70)])
def test_fills_the_hole_and_nothing_else(
    onnx_model: Path, tmp_path: Path, hole: tuple[int, int, int, int]
) -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (48, 70, 3), dtype=np.uint8)
    known = np.ones((48, 70), dtype=bool)
    known[hole[0] : hole[1], hole[2] : hole[3]] = False
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray((known * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    names = [str(tmp_path / name) for name in ("photo.png", "mask.png", "filled.png")]
    command = [sys.executable, "-c", WITHOUT, str(EXAMPLE), str(onnx_model), *names]
    subprocess.run(command, check=True, cwd=tmp_path)
    filled = np.asarray(Image.open(names[2]))
    np.testing.assert_array_equal(filled[known], photo[known])
    assert (filled[~known] != photo[~known]).mean() > 0.9
