"""The holes and the seam's measure of ``experiments/photos/full_size.py``."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "photos" / "full_size.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_holes_are_a_quarter_to_half_of_the_shorter_side(script: dict[str, Any]) -> None:
    for seed in range(6):
        known = script["hole_in"](300, 500, np.random.default_rng(seed))
        rows, columns = (np.flatnonzero(~known.all(axis=axis)) for axis in (1, 0))
        side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
        assert 40 <= side <= 150
        box = script["around"](known)
        assert known[box].shape[0] == known[box].shape[1] == min(2 * side, 300)
        assert (~known[box]).sum() == (~known).sum()


def test_seam_is_the_mean_step_across_the_edge(script: dict[str, Any]) -> None:
    known = np.ones((30, 30), bool)
    known[10:20, 10:20] = False
    picture = np.full((30, 30, 3), 100, np.uint8)
    assert script["seam"](picture, known) == 0
    picture[~known] = 130
    assert script["seam"](picture, known) == pytest.approx(30)
    picture[5, 5] = 0  # away from the edge
    assert script["seam"](picture, known) == pytest.approx(30)


def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["full_size.py", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no photo of 900 pixels")
