"""Other methods behind one form: classical ones, your function, TorchScript files."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sdm_lightning.errors import InputError
from sdm_lightning.inference.baseline import checked
from sdm_lightning.inference.methods import BASELINES, load_method, mean_fill

# Writing it here; released inpainting networks come as TorchScript.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:FutureWarning")

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (13, 10, 3), dtype=np.uint8)
KNOWN = np.ones((13, 10), bool)
KNOWN[3:7, 2:9] = False


def test_mean_fill_is_the_mean_of_known_pixels() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[0] = [10, 20, 30]
    image[1] = [20, 40, 61]
    image[2:] = 255
    known = np.ones((4, 4), bool)
    known[2:] = False
    np.testing.assert_array_equal(mean_fill(image, known)[3, 3], [15, 30, 46])
    np.testing.assert_array_equal(mean_fill(image, np.zeros((4, 4), bool))[0, 0], [128] * 3)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_fill_the_hole_from_the_known_alone(name: str) -> None:
    image = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    known = np.ones((24, 32), bool)
    known[6:18, 8:20] = False
    other = image.copy()
    other[~known] = 255 - other[~known]
    result = BASELINES[name](image, known)
    np.testing.assert_array_equal(result[known], image[known])
    np.testing.assert_array_equal(result[~known], BASELINES[name](other, known)[~known])
    flat = np.full_like(image, 77)
    # OpenCV's Telea strays by two levels even here.
    np.testing.assert_allclose(BASELINES[name](flat, known), flat, atol=2)
    assert BASELINES[name](image, np.zeros_like(known)).shape == image.shape


class LamaLike(torch.nn.Module):
    """Fed as LaMa is: [0, 1], 1 = hole, multiples of 8. Fills with 0.25, and spoils the rest."""

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        assert image.shape[2] % 8 == 0
        assert image.shape[3] % 8 == 0
        assert float((image * mask).abs().sum()) == 0.0
        return image * 0.5 * (1 - mask) + mask * 0.25


class OneArgument(torch.nn.Module):
    """Fed picture and mask in one tensor."""

    def forward(self, both: Tensor) -> Tensor:
        return both[:, :3]


def script(module: torch.nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(module), str(path))
    return path


def test_lama_like_torchscript(tmp_path: Path) -> None:
    method = load_method(str(script(LamaLike(), tmp_path / "lama.pt")))
    result = method(IMAGE, KNOWN)
    assert result.shape == IMAGE.shape
    assert (result[KNOWN] == IMAGE[KNOWN]).all()
    assert (result[~KNOWN] == round(0.25 * 255)).all()


def test_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="device cuda: this machine has no usable CUDA GPU"):
        load_method(str(script(LamaLike(), tmp_path / "lama.pt")), device="cuda")


def test_a_wrongly_fed_network_is_named(tmp_path: Path) -> None:
    path = script(OneArgument(), tmp_path / "other.pt")
    with pytest.raises(InputError, match="fails with a picture and its hole, fed as to LaMa"):
        load_method(str(path))(IMAGE, KNOWN)


def test_no_torchscript(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"no network")
    with pytest.raises(InputError, match="not a TorchScript file"):
        load_method(str(tmp_path / "x.pt"))
    with pytest.raises(InputError, match="no such TorchScript file"):
        load_method(str(tmp_path / "y.pt"))


def test_functions_by_file_and_by_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef red(image, known):\n    image[:] = (255, 0, 0)\n    return image\n"
    )
    method = load_method(f"{tmp_path / 'mine'}:red")
    result = checked(method, IMAGE, KNOWN, "red")
    assert (result[~KNOWN] == (255, 0, 0)).all()
    assert (result[KNOWN] == IMAGE[KNOWN]).all(), "and the caller's own array is untouched"
    monkeypatch.syspath_prepend(tmp_path)
    assert load_method("mine:red")(IMAGE.copy(), KNOWN)[0, 0, 0] == 255


def test_a_file_loads_as_plain_python_would_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside_the_method.py").write_text("LEVEL = 7\n")
    (tmp_path / "theirs.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from beside_the_method import LEVEL\n"
        "@dataclass\nclass Settings:\n    level: int = LEVEL\n"
        "def fill(image, known):\n    image[:] = Settings().level\n    return image\n"
    )
    method = load_method(f"{tmp_path / 'theirs.py'}:fill")
    assert (method(IMAGE.copy(), KNOWN) == 7).all()


def test_a_file_whose_import_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("import no_such_module_x\n")
    with pytest.raises(InputError, match=r"theirs\.py: cannot be imported .*no_such_module_x"):
        load_method(f"{tmp_path / 'theirs.py'}:fill")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("telae", "no method 'telae': give one of mean, telea"),
        ("nowhere.py:f", "nowhere.py: no such file"),
        ("no_such_module_x:f", "cannot be imported"),
        ("math:no_function", "has no function 'no_function'"),
    ],
)
def test_unknown_methods_are_named(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_method(name)
