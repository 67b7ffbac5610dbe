"""The metrics file of a run."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from sdm_lightning.files import append_lines, write_atomically


class MetricsFile(CSVLogger):
    """Appends every logged value to ``<run directory>/metrics.csv``.

    Lightning's own CSV logger deletes the file that it finds when a run is resumed, and writes over
    it when a value of a new name is logged. This one goes on where the file ended, and neither a
    full disk nor a power cut takes rows that were written.

    Args:
        save_dir: The run directory; the command line fills it in (``runs/<name>``).
    """

    _experiment: "MetricsTable | None"  # type: ignore[assignment]

    def __init__(self, save_dir: str = "") -> None:
        super().__init__(save_dir=save_dir, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> "MetricsTable":
        """The writer; made at the first call, on the first process only."""
        if self._experiment is None:
            self._experiment = MetricsTable(Path(self.log_dir) / "metrics.csv")
        return self._experiment

    def log_hyperparams(self, params: Any = None) -> None:
        """Do nothing: the full config is in ``config.yaml`` beside the metrics."""


class MetricsTable:
    """Rows of a CSV file, a column for each name.

    Args:
        path: The file; what it holds stays, but for a last line that a power cut left half written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics: list[dict[str, Any]] = []
        if path.is_file():
            content = path.read_bytes()
            if not content.endswith(b"\n"):
                os.truncate(path, content.rfind(b"\n") + 1)

    def log_metrics(self, values: Mapping[str, Any], step: int) -> None:
        """Add a row, in memory until ``save``."""
        row = {key: getattr(value, "item", lambda v=value: v)() for key, value in values.items()}
        self.metrics.append({**row, "step": step})

    def save(self) -> None:
        """Write the rows: appended, or with all earlier ones anew where a column is missing."""
        if not self.metrics:
            return
        rows = self.metrics
        # Read each time: another command may have added columns, such as sdm test beside sdm fit.
        columns = self._columns()
        missing = {name for row in rows for name in row}.difference(columns)
        if missing:
            if columns:
                with self.path.open(newline="", encoding="utf-8") as file:
                    rows = [*csv.DictReader(file), *rows]
            columns = sorted({*columns, *missing})
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        if missing:
            writer.writeheader()
        writer.writerows(rows)
        if missing:
            write_atomically(self.path, text.getvalue())
        else:
            append_lines(self.path, text.getvalue().encode())
        self.metrics = []

    def _columns(self) -> list[str]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), [])
