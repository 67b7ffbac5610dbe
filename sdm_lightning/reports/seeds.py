"""Mean and deviation over the seeds of a row, and of its change against another row."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sdm_lightning.reports.results import ResultLine, having, label_of, metric_values


@dataclass(frozen=True)
class Ours:
    """Our value of one cell: mean and deviation over seeds.

    Attributes:
        mean: Mean over the runs whose value is finite; over all if none is.
        deviation: Sample standard deviation; None for one run.
        count: Number of runs in the mean.
        runs: Number of all runs.
    """

    mean: float
    deviation: float | None
    count: int
    runs: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Ours | None":
        """Summarise the values of a row's runs; None if there is none."""
        values = list(values)
        if not values:
            return None
        finite = [value for value in values if math.isfinite(value)]
        if not finite:  # diverged, or the PSNR of identical images
            return cls(sum(values) / len(values), None, len(values), len(values))
        deviation = statistics.stdev(finite) if len(finite) > 1 else None
        return cls(statistics.fmean(finite), deviation, len(finite), len(values))

    def text(self, digits: int, sign: str = "", seeds: int = 0) -> str:
        """Format as ``2.36 ± 0.02``, or ``2.36`` for one run.

        Args:
            digits: Digits after the point.
            sign: ``+`` shows the plus.
            seeds: Number of seeds in the table: ``2.36 (n = 1)`` says that this value has fewer.
                Runs that are left out as not finite are always told: ``2.36 (1 of 3 seeds)``.
        """
        text = f"{self.mean:{sign}.{digits}f}"
        if self.deviation is not None:
            text += f" ± {self.deviation:.{digits}f}"
        if self.count < self.runs:
            return f"{text} ({self.count} of {self.runs} seeds)"
        return f"{text} (n = {self.count})" if self.count < seeds else text


def ours(lines: Sequence[ResultLine], row: str, where: dict[str, Any], metric: str) -> Ours | None:
    """Average the runs of a row; None if there is none.

    Args:
        lines: Lines of one table and scale.
        row: As in the paper's file.
        where: What a line must have to belong to the column.
        metric: Exact name: ``fid`` does not match ``fid[random-conv]``.
    """
    return Ours.of(run_values(lines, row, where, metric))


def run_values(
    lines: Sequence[ResultLine], row: str, where: dict[str, Any], metric: str
) -> list[float]:
    """List the value of each run of a row; takes the arguments of ``ours``."""
    return [value for _, value in _values(lines, row, where, metric)]


def change(
    lines: Sequence[ResultLine], row: str, reference: str, where: dict[str, Any], metric: str
) -> Ours | None:
    """Compute how a row differs from another, ours; None unless both were run.

    Runs of one seed saw the same images and masks in the same order. The change is therefore taken
    seed by seed over the seeds that both rows have, once each, and its deviation is that of the
    changes. Without such seeds it is the difference of the means alone.
    """
    found, base = (_values(lines, name, where, metric) for name in (row, reference))
    of_row, of_base = dict(found), dict(base)
    once = len(of_row) == len(found) and len(of_base) == len(base)
    if once and (common := [seed for seed in of_row if seed in of_base]):
        return Ours.of(of_row[seed] - of_base[seed] for seed in common)
    mean, base_mean = (Ours.of(value for _, value in values) for values in (found, base))
    if mean is None or base_mean is None:
        return None
    count, runs = min(mean.count, base_mean.count), min(mean.runs, base_mean.runs)
    return Ours(mean.mean - base_mean.mean, None, count, runs)


def _values(
    lines: Sequence[ResultLine], row: str, where: dict[str, Any], metric: str
) -> list[tuple[str, float]]:
    """List seed and value of each run of a row."""
    return [
        (str(label_of(line, "seed")), metric_values(line)[metric])
        for line in having(lines, {"row": row, **where})
        if metric in metric_values(line)
    ]
