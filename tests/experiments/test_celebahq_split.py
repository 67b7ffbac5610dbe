"""CelebA-HQ's split from files in the form that the data sets publish."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.errors import InputError

SCRIPT = Path(__file__).parents[2] / "experiments" / "celebahq_split.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images; CelebA's numbers run the other way."""
    (tmp_path / "images").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    rows = [f"{number} {10 - number} {11 - number:06d}.jpg" for number in range(5)]
    (tmp_path / "mapping.txt").write_text("idx orig_idx orig_file\n" + "\n".join(rows) + "\n")
    codes = {11: 0, 10: 1, 9: 2, 8: 0, 7: 1, 6: 0}
    lines = [f"{number:06d}.jpg {code}" for number, code in codes.items()]
    (tmp_path / "partition.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def script(train: int = 2, test: int = 2) -> dict[str, Any]:
    names = runpy.run_path(str(SCRIPT))
    names["COUNTS"].update(train=train, test=test)
    return names


def paths(folder: Path) -> list[str]:
    return [str(folder / name) for name in ("images", "mapping.txt", "partition.txt")]


def test_the_partition_of_celeba_is_that_of_the_images_made_from_it(folder: Path) -> None:
    names = script()
    read = names["read_split"](folder / "mapping.txt", folder / "partition.txt")
    assert read == {0: "train", 1: "test", 3: "train", 4: "test"}


def test_images_are_reduced_to_png_files(folder: Path) -> None:
    names = script()
    names["reduce_image"]((folder / "images/3.png", folder / "3.png"), size=8, resample="box")
    with Image.open(folder / "images/3.png") as file:
        pixels = np.asarray(file, np.float64)
    with Image.open(folder / "3.png") as file:
        got = np.asarray(file)
    expected = pixels.reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(got - expected).max() <= 1  # Pillow rounds each of two passes
    with pytest.raises(InputError, match=r"3.png: is 16x16, smaller than 32"):
        names["reduce_image"]((folder / "images/3.png", folder / "x.png"), 32, "box")
    assert not (folder / "x.png").exists()


def test_what_is_missing_is_named(folder: Path) -> None:
    out = str(folder / "out")
    with pytest.raises(InputError, match=r"mapping.txt: 2 images to test, but CelebA-HQ has 2993"):
        script(test=2993)["split"](*paths(folder), out)
    (folder / "images" / "3.png").unlink()
    with pytest.raises(InputError, match=r"images: 1 of 4 images are missing, the first is 3.jpg"):
        script()["split"](*paths(folder), out)
    (folder / "partition.txt").write_text("000011.jpg 0\n")
    with pytest.raises(
        InputError, match=r"partition.txt: 000010.jpg, which .* names, is not in it"
    ):
        script()["split"](*paths(folder), out)
    (folder / "partition.txt").write_text("000011.jpg\n")
    with pytest.raises(
        InputError, match=r"partition.txt: cannot be read as lines of '000001.jpg 0'"
    ):
        script()["split"](*paths(folder), out)
    assert not (folder / "out").exists()
