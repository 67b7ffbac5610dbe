"""``sdm baseline``: folders of results, held to size and type."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.errors import InputError
from sdm_lightning.inference.baseline import checked, run_baseline
from tests.inference.test_methods import IMAGE, KNOWN


def test_answers_are_held_to_size_and_type() -> None:
    with pytest.raises(InputError, match=r"returned float64 \(13, 10, 3\), not uint8"):
        checked(lambda image, known: image / 2.0, IMAGE, KNOWN, "m")
    with pytest.raises(InputError, match=r"returned uint8 \(12, 10, 3\)"):
        checked(lambda image, known: image[1:], IMAGE, KNOWN, "m")


def test_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        Image.fromarray(IMAGE).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(np.where(KNOWN, 255, 0).astype(np.uint8)).save(
            tmp_path / "masks" / f"{name}.png"
        )
    places = [str(tmp_path / name) for name in ("images", "masks", "out")]
    run_baseline("mean", *places)
    assert "2 of 2 pictures filled by mean" in capsys.readouterr().out
    result = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert (result[KNOWN] == IMAGE[KNOWN]).all()
    assert (result[~KNOWN] == np.rint(IMAGE[KNOWN].mean(axis=0))).all()
    run_baseline("mean", *places)
    printed = capsys.readouterr().out
    assert "0 of 2 pictures" in printed
    assert "2 already existed and were kept" in printed
    for folder in places[:2]:
        with pytest.raises(InputError, match="is an input folder"):
            run_baseline("mean", *places[:2], folder, overwrite=True)
    with pytest.raises(InputError, match="device is for TorchScript files only"):
        run_baseline("mean", *places, device="cuda")
    run_baseline("mean", *places, mask_convention="hole-white", overwrite=True)
    masks, out = places[1:]
    said = f"{out} --masks {masks} --mask_convention hole-white"
    assert said in capsys.readouterr().out
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(InputError, match=r"no mask for 1 of 2 images, the first is b;"):
        run_baseline("mean", *places)
