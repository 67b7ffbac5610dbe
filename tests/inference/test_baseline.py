"""``sdm baseline``: folders of results, held to size and type."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.errors import InputError
from sdm_lightning.evaluation.pairs import Pair, PairedFolders
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


def test_pictures_of_several_sizes_are_cut_as_they_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks, out = (str(tmp_path / name) for name in ("images", "masks", "out"))
    rng = np.random.default_rng(0)
    for name, size, mask_size in (("a", (9, 15), (9, 15)), ("b", (20, 12), (10, 10))):
        for folder, shape in ((images, (*size, 3)), (masks, mask_size)):
            Path(folder).mkdir(exist_ok=True)
            pixels = rng.integers(0, 2, shape, np.uint8) * 255
            Image.fromarray(pixels).save(Path(folder) / f"{name}.png")
    with pytest.raises(InputError, match=r"b\.png: mask is 10x10, .* is 20x12 \(HxW\); --crop N"):
        run_baseline("mean", images, masks, out)
    with pytest.raises(InputError, match=r"is 8x8, cut by --crop \(HxW\); draw .* --size 8$"):
        run_baseline("mean", images, masks, str(tmp_path / "other"), crop=8)
    with pytest.raises(InputError, match="--crop must be at least 1, got 0"):
        run_baseline("mean", images, masks, out, crop=0)
    run_baseline("mean", images, masks, out, crop=10, overwrite=True)
    assert f"{out} --masks {masks} --crop 10" in capsys.readouterr().out
    for pair in PairedFolders(images, out, masks, crop=10):
        assert isinstance(pair, Pair)
        assert pair.mask is not None
        known = pair.mask[0] == 1
        assert pair.fake.shape == (3, 10, 10)
        assert pair.real[:, known].equal(pair.fake[:, known])
    Image.new("L", (32, 32)).save(f"{masks}/a.png")
    with pytest.raises(
        InputError, match=r"is 32x32, .* is 9x15 .*; draw .* --size N and give --crop N$"
    ):
        run_baseline("mean", images, masks, out, overwrite=True)
