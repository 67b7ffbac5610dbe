"""What the scripts of ``experiments/photos`` compute."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdm_lightning.demo.photos import PHOTOS

SCRIPTS = Path(__file__).parents[2] / "experiments" / "photos"


@pytest.fixture
def is_held_out(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bool]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return runpy.run_path(str(SCRIPTS / "prepare.py"))["is_held_out"]


def test_photos_of_the_demo_keep_their_split(is_held_out: Callable[[str], bool]) -> None:
    """The packaged weights began with the demo's training photos."""
    names = {f"package/{Path(photo.path).stem}": photo.split == "test" for photo in PHOTOS}
    assert {name: is_held_out(name) for name in names} == names


def test_other_photos_are_held_out_by_subject(is_held_out: Callable[[str], bool]) -> None:
    assert is_held_out("gcompris-qt-data/explore_monuments/petra")
    assert is_held_out("another-package/Petra_background")
    assert not is_held_out("gcompris-qt-data/explore_monuments/bentPyramid")
    share = sum(is_held_out(f"photo{number}") for number in range(500)) / 500
    assert 0.16 < share < 0.24


@pytest.fixture(scope="module")
def full_size() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPTS / "full_size.py"))


def test_holes_are_a_quarter_to_half_of_the_shorter_side(full_size: dict[str, Any]) -> None:
    for seed in range(6):
        known = full_size["hole_in"](300, 500, np.random.default_rng(seed))
        rows, columns = (np.flatnonzero(~known.all(axis=axis)) for axis in (1, 0))
        side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
        assert 40 <= side <= 150
        box = full_size["around"](known)
        assert known[box].shape[0] == known[box].shape[1] == min(2 * side, 300)
        assert (~known[box]).sum() == (~known).sum()


def test_seam_is_the_mean_step_across_the_edge(full_size: dict[str, Any]) -> None:
    known = np.ones((30, 30), bool)
    known[10:20, 10:20] = False
    picture = np.full((30, 30, 3), 100, np.uint8)
    assert full_size["seam"](picture, known) == 0
    picture[~known] = 130
    assert full_size["seam"](picture, known) == pytest.approx(30)
    picture[5, 5] = 0  # away from the edge
    assert full_size["seam"](picture, known) == pytest.approx(30)


def test_a_folder_without_large_photos_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["full_size.py", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPTS / "full_size.py"), run_name="__main__")
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no photo of 900 pixels")


def test_deviations_have_one_digit_and_no_exponent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spread = runpy.run_path(str(SCRIPTS / "validate_scores.py"))["spread"]
    assert spread([274.0, 298.0]) == "286 ± 10"
    assert spread([49.0, 49.2]) == "49.1 ± 0.1"
    assert spread([278.0]) == "278"
