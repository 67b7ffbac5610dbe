"""The metrics file of a run."""

import csv
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from typing_extensions import override


class MetricsFile(CSVLogger):
    """Appends every logged value to ``<run directory>/metrics.csv``.

    Lightning's own CSV logger deletes the file that it finds when a run is resumed; this one goes
    on where it ended.

    Args:
        save_dir: The run directory; the command line fills it in (``runs/<name>``).
        flush_logs_every_n_steps: Values kept in memory between two writes.
    """

    def __init__(self, save_dir: str = "", flush_logs_every_n_steps: int = 100) -> None:
        super().__init__(
            save_dir=save_dir,
            name="",
            version="",
            flush_logs_every_n_steps=flush_logs_every_n_steps,
        )

    @property
    @override
    def experiment(self) -> ExperimentWriter:
        """The writer; made at the first call, on the first process only."""
        if self._experiment is None:
            path = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
            aside = path.with_suffix(".csv.earlier")
            if path.is_file():
                os.replace(path, aside)
            writer = super().experiment
            if aside.is_file():
                with aside.open(newline="", encoding="utf-8") as file:
                    writer.metrics_keys = next(csv.reader(file), [])
                os.replace(aside, path)
        return super().experiment

    @override
    def log_hyperparams(self, params: Any = None) -> None:
        """Do nothing: the full config is in ``config.yaml`` beside the metrics."""
