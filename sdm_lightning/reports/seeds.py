"""Mean and deviation over the seeds of a row, and of its change against another row."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdm_lightning.reports.results import ResultLine, label_of, metric_values


@dataclass(frozen=True)
class Ours:
    """Our value of one cell: mean and deviation over seeds.

    Attributes:
        mean: Mean over runs.
        deviation: Sample standard deviation; None for one run.
        count: Number of runs.
    """

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Ours | None":
        """Summarise the finite values; None if there is none."""
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return None
        deviation = statistics.stdev(finite) if len(finite) > 1 else None
        return cls(statistics.fmean(finite), deviation, len(finite))

    def text(self, digits: int, sign: str = "") -> str:
        """Format as ``2.36 ± 0.02``, or ``2.36`` for one run; ``sign="+"`` shows the plus."""
        mean = f"{self.mean:{sign}.{digits}f}"
        return mean if self.deviation is None else f"{mean} ± {self.deviation:.{digits}f}"


def ours(lines: Sequence[ResultLine], row: str, where: dict[str, Any], metric: str) -> Ours | None:
    """Average the runs of a row; None if there is none.

    Args:
        lines: Of one table and scale.
        row: As in the paper's file.
        where: What a line must have to belong to the column.
        metric: Exact name: ``fid`` does not match ``fid[random-conv]``.
    """
    return Ours.of(run_values(lines, row, where, metric))


def run_values(
    lines: Sequence[ResultLine], row: str, where: dict[str, Any], metric: str
) -> list[float]:
    """List the value of each run of a row; takes the arguments of :func:`ours`."""
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
    return Ours(mean.mean - base_mean.mean, None, min(mean.count, base_mean.count))


def cell_lines(lines: Iterable[ResultLine], row: str, where: Mapping[str, Any]) -> list[ResultLine]:
    """Select the lines of a row that belong to a column; see :func:`ours`."""
    wanted = {"row": row, **where}
    return [x for x in lines if all(str(label_of(x, k)) == str(v) for k, v in wanted.items())]


def _values(
    lines: Sequence[ResultLine], row: str, where: dict[str, Any], metric: str
) -> list[tuple[str, float]]:
    """List seed and value of each run of a row."""
    return [
        (str(label_of(line, "seed")), metric_values(line)[metric])
        for line in cell_lines(lines, row, where)
        if metric in metric_values(line)
    ]
