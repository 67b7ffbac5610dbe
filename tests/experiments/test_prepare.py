"""Which photos ``experiments/photos/prepare.py`` holds out."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from sdm_lightning.demo.photos import PHOTOS

SCRIPT = Path(__file__).parents[2] / "experiments" / "photos" / "prepare.py"


@pytest.fixture
def is_held_out(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bool]:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return runpy.run_path(str(SCRIPT))["is_held_out"]


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
