"""How ``experiments/photos/validate_scores.py`` prints a score."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "photos" / "validate_scores.py"


def test_deviations_have_one_digit_and_no_exponent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spread = runpy.run_path(str(SCRIPT))["spread"]
    assert spread([274.0, 298.0]) == "286 ± 10"
    assert spread([49.0, 49.2]) == "49.1 ± 0.1"
    assert spread([278.0]) == "278"
