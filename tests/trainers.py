"""Trainers for tests."""

from typing import Any

import lightning.pytorch as pl


def quiet_trainer(**options: Any) -> pl.Trainer:
    """Make a trainer on the CPU that shows and writes nothing but what is asked for."""
    quiet = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    return pl.Trainer(**{**quiet, **options})
