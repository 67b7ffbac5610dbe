"""Where the experiments are, and a way to build what a command line asks for without running it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sdm_lightning.cli.main import main
from sdm_lightning.cli.trainer import SDMCommandLine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The top of the checkout as working directory: sweep files name configs relative to it."""
    monkeypatch.chdir(ROOT)
    return ROOT


@pytest.fixture
def build(
    monkeypatch: pytest.MonkeyPatch, checkout: Path, tmp_path: Path
) -> Callable[..., SDMCommandLine]:
    """Builds a run on torch's meta device: everything but the memory and the training."""
    built: list[SDMCommandLine] = []
    monkeypatch.setattr(SDMCommandLine, "_run_subcommand", lambda cli, _: built.append(cli))

    def run(*words: Any) -> SDMCommandLine:
        with torch.device("meta"):
            main([*map(str, words), f"--runs_dir={tmp_path}"])
        return built[-1]

    return run
