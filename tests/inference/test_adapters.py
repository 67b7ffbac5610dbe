"""Other methods behind one form: your function, TorchScript files, folders of results."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sdm_lightning.errors import InputError
from sdm_lightning.inference import adapters

# TorchScript is old, and it is what released inpainting networks come as.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:FutureWarning")

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (13, 10, 3), dtype=np.uint8)
KNOWN = np.ones((13, 10), bool)
KNOWN[3:7, 2:9] = False


class LamaLike(torch.nn.Module):
    """Fed as LaMa is: [0, 1], 1 = hole, multiples of 8. Fills with 0.25, and spoils the rest."""

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        assert image.shape[2] % 8 == 0
        assert image.shape[3] % 8 == 0
        assert float((image * mask).abs().sum()) == 0.0
        return image * 0.5 * (1 - mask) + mask * 0.25


class SignedConcatenated(torch.nn.Module):
    """Fed [-1, 1] and 1 = known in one tensor; fills with 0.5."""

    def forward(self, both: Tensor) -> Tensor:
        image, mask = both[:, :3], both[:, 3:]
        return image * mask + (1 - mask) * 0.5


def script(module: torch.nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(module), str(path))
    return path


def test_lama_like_torchscript(tmp_path: Path) -> None:
    method = adapters.load_method(str(script(LamaLike(), tmp_path / "lama.pt")))
    result = method(IMAGE, KNOWN)
    assert result.shape == IMAGE.shape
    assert (result[KNOWN] == IMAGE[KNOWN]).all()
    assert (result[~KNOWN] == round(0.25 * 255)).all()


def test_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="device cuda: this machine has no usable CUDA GPU"):
        adapters.load_method(str(script(LamaLike(), tmp_path / "lama.pt")), device="cuda")


def test_other_conventions(tmp_path: Path) -> None:
    path = script(SignedConcatenated(), tmp_path / "other.pt")
    method = adapters.load_method(
        str(path), value_range="signed", mask_value=0, arguments="concatenated", multiple=4
    )
    result = method(IMAGE, KNOWN)
    assert (result[KNOWN] == IMAGE[KNOWN]).all()
    assert (result[~KNOWN] == round(0.5 * 127.5 + 127.5)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"arguments": "concatenated"}, "fails with arguments 'concatenated'")],
)
def test_a_wrongly_fed_network_is_named(tmp_path: Path, options: Any, message: str) -> None:
    path = script(LamaLike(), tmp_path / "lama.pt")
    with pytest.raises(InputError, match=message):
        adapters.load_method(str(path), **options)(IMAGE, KNOWN)


def test_no_torchscript(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"no network")
    with pytest.raises(InputError, match="not a TorchScript file"):
        adapters.load_method(str(tmp_path / "x.pt"))
    with pytest.raises(InputError, match="no such TorchScript file"):
        adapters.load_method(str(tmp_path / "y.pt"))


def test_functions_by_file_and_by_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef red(image, known):\n    image[:] = (255, 0, 0)\n    return image\n"
    )
    method = adapters.load_method(f"{tmp_path / 'mine'}:red")
    result = adapters.checked(method, IMAGE, KNOWN, "red")
    assert (result[~KNOWN] == (255, 0, 0)).all()
    assert (result[KNOWN] == IMAGE[KNOWN]).all(), "and the caller's own array is untouched"
    monkeypatch.syspath_prepend(tmp_path)
    assert adapters.load_method("mine:red")(IMAGE.copy(), KNOWN)[0, 0, 0] == 255


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
        adapters.load_method(name)


def test_answers_are_held_to_size_and_type() -> None:
    with pytest.raises(InputError, match=r"returned float64 \(13, 10, 3\), not uint8"):
        adapters.checked(lambda image, known: image / 2.0, IMAGE, KNOWN, "m")
    with pytest.raises(InputError, match=r"returned uint8 \(12, 10, 3\)"):
        adapters.checked(lambda image, known: image[1:], IMAGE, KNOWN, "m")


def test_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        Image.fromarray(IMAGE).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(np.where(KNOWN, 255, 0).astype(np.uint8)).save(
            tmp_path / "masks" / f"{name}.png"
        )
    places = [str(tmp_path / name) for name in ("images", "masks", "out")]
    adapters.run_baseline("mean", *places)
    assert "2 of 2 pictures filled by mean" in capsys.readouterr().out
    result = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert (result[KNOWN] == IMAGE[KNOWN]).all()
    assert (result[~KNOWN] == np.rint(IMAGE[KNOWN].mean(axis=0))).all()
    adapters.run_baseline("mean", *places)
    printed = capsys.readouterr().out
    assert "0 of 2 pictures" in printed
    assert "2 were there already" in printed
    for folder in places[:2]:
        with pytest.raises(InputError, match="is an input folder"):
            adapters.run_baseline("mean", *places[:2], folder, overwrite=True)
    with pytest.raises(InputError, match="device are for TorchScript files only"):
        adapters.run_baseline("mean", *places, device="cuda")
    adapters.run_baseline("mean", *places, mask_convention="hole-white", overwrite=True)
    masks, out = places[1:]
    said = f"{out} --masks {masks} --mask_convention hole-white"
    assert said in capsys.readouterr().out
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(InputError, match=r"no mask for 1 of 2 images, the first is b;"):
        adapters.run_baseline("mean", *places)
