"""``sdm table``: the paper's tables with our numbers beside them, made from result lines."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from sdm_lightning.errors import InputError
from sdm_lightning.reports.formats import FORMATS, Grid, TableFormat
from sdm_lightning.reports.results import (
    Line,
    experiments_folder,
    gather,
    label_of,
    metric_values,
    split_metric,
)

METRIC_NAMES = {"fid": "FID", "p_ids": "P-IDS", "u_ids": "U-IDS", "lpips": "LPIPS"}
LOWER_IS_BETTER = {"fid", "lpips", "l1", "l1_hole"}


@dataclass(frozen=True)
class Column:
    """A column of numbers in a table of the paper."""

    key: str
    heading: str
    metric: str
    better: Literal["lower", "higher"]
    unit: str
    where: dict[str, Any]


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper with its own numbers; ``experiments/paper/NAME.yaml``.

    Attributes:
        name: ``table1``.
        number: As the paper prints it.
        title: What it compares.
        setting: What the paper's numbers were measured on.
        row_heading: Heading of the rows' names.
        columns: Columns of numbers.
        rows: ``row`` (short name), ``name``, and a value for each column's key.
        place_heading: Heading of what ``where`` of the columns names.
        reference: Row that the others are compared with.
        same_as: Row -> table and row of which it is the same run.
        protocols: Protocol of ``sdm evaluate`` -> setting of a column, for other methods' folders.
        digits: After the point.
    """

    name: str
    number: str
    title: str
    setting: str
    row_heading: str
    columns: list[Column]
    rows: list[dict[str, Any]]
    place_heading: str
    reference: str | None
    same_as: dict[str, dict[str, str]]
    protocols: dict[str, str]
    digits: int


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

    def text(self, digits: int) -> str:
        """``2.36 ± 0.02 (3)``, or the number alone for one run."""
        if self.deviation is None:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} ± {self.deviation:.{digits}f}"


def print_table(
    name: str,
    scale: str | None = None,
    format: TableFormat = "md",
    results: list[str] | None = None,
    metrics: list[str] | None = None,
    output: str | None = None,
) -> None:
    """Print a table of the paper with our numbers beside the paper's own.

    Numbers come from result lines only; what was not run stays blank. The difference to the paper
    is given where the metric is the paper's own; stand-ins and other metrics stand in columns of
    their own, each with its change against the table's reference row.

    Args:
        name: table1, table2, table3, table4, tableB1, tableC2 or tableD3.
        scale: Use only runs of this scale: paper, small, tiny, ...
        format: md, csv, latex or html.
        results: JSON-lines files, folders, or wandb:ENTITY/PROJECT; runs/ and
            experiments/results/ if not given.
        metrics: Metrics to show instead of the paper's, such as '["psnr_hole"]'.
        output: Write to this file instead of printing.
    """
    text = table_text(name, scale, format, results, metrics)
    if output is None:
        print(text)
        return
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
    print(f"{path} written")


def table_names() -> list[str]:
    """Tables whose numbers are in ``experiments/paper``."""
    return sorted(path.stem for path in (experiments_folder() / "paper").glob("*.yaml"))


def has_table(name: str) -> bool:
    """Whether the paper has this table, as far as ``experiments/`` is at hand."""
    try:
        return name in table_names()
    except InputError:
        return False


def read_paper_table(name: str) -> PaperTable:
    """Reads the paper's own numbers.

    Raises:
        InputError: If there is no such table.
    """
    if name not in (names := table_names()):
        raise InputError(f"no table {name!r}; there are {', '.join(names)}")
    content = yaml.safe_load((experiments_folder() / "paper" / f"{name}.yaml").read_text())
    columns = [
        Column(c["key"], str(c["heading"]), c["metric"], c["better"], c["unit"], c.get("where", {}))
        for c in content["columns"]
    ]
    return PaperTable(
        name=name,
        number=content["number"],
        title=content["title"],
        setting=content["setting"],
        row_heading=content["row_heading"],
        columns=columns,
        rows=content["rows"],
        place_heading=content.get("place_heading", "Test set"),
        reference=content.get("reference"),
        same_as=content.get("same_as", {}),
        protocols=content.get("protocols", {}),
        digits=content.get("digits", 2),
    )


def table_text(
    name: str,
    scale: str | None = None,
    format: TableFormat = "md",
    results: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> str:
    """The text of ``print_table``; takes its arguments."""
    table = read_paper_table(name)
    lines = select_lines(gather(results), table, scale)
    if metrics is None:
        # As the paper's tables: its own metric, then what stands in for it at smaller scales.
        found = {m for line in lines for m in metric_values(line)}
        own = list(dict.fromkeys(column.metric for column in table.columns))
        stand_ins = [m for m in sorted(found) if split_metric(m)[0] in own and m not in own]
        paired = [m for m in ("psnr_hole", "l1_hole") if m in found]
        metrics = own if any(m in found for m in own) or not found else []
        metrics = [*metrics, *stand_ins, *(paired if not metrics or stand_ins else [])]
    grid = build_grid(table, lines, metrics)
    return FORMATS[format](grid)


def select_lines(lines: Sequence[Line], table: PaperTable, scale: str | None) -> list[Line]:
    """The lines of this table and scale; of several lines of one run, the newest.

    A run is what shares scale, row, setting, iterations, protocol, seed and checkpoint's place.
    """
    newest: dict[tuple[str, ...], Line] = {}
    for found in lines:
        line = _as_row_of(found, table)
        if line is None or (scale is not None and label_of(line, "scale") != scale):
            continue
        keys = ("scale", "row", "setting", "num_iterations", "protocol", "seed")
        checkpoint = (line.get("checkpoint") or {}).get("path")
        key = (*(str(label_of(line, k)) for k in keys), str(checkpoint))
        if key not in newest or str(line.get("time", "")) >= str(newest[key].get("time", "")):
            newest[key] = line
    return list(newest.values())


def _as_row_of(line: Line, table: PaperTable) -> Line | None:
    """The line under its row of this table; None if it belongs to another."""
    place = (label_of(line, "table"), label_of(line, "row"))
    if place[0] == table.name:
        return line if place[1] is not None else None
    if line.get("method") is not None and line.get("protocol") in table.protocols:
        # A folder of results that `sdm evaluate --method NAME --protocol ...` scored.
        method = _plain(str(line["method"]))
        for known in table.rows:
            if method in (_plain(known["row"]), _plain(known["name"])):
                setting = table.protocols[line["protocol"]]
                return {**line, "table": table.name, "row": known["row"], "setting": setting}
    for row, other in table.same_as.items():
        if place == (other["table"], other["row"]):
            return {**line, "table": table.name, "row": row}
    return None


def _plain(name: str) -> str:
    """``DeepFill v2`` and ``deepfill-v2`` are one method."""
    return "".join(character for character in name.lower() if character.isalnum())


def ours(lines: Sequence[Line], row: str, where: dict[str, Any], metric: str) -> Ours | None:
    """Mean and deviation over the runs of a row; None if there is none.

    Args:
        lines: Of one table and scale.
        row: As in the paper's file.
        where: What a line must have to belong to the column.
        metric: Exact name: ``fid`` does not match ``fid[random-conv]``.
    """
    values = [
        metric_values(line)[metric]
        for line in lines
        if str(label_of(line, "row")) == row
        and all(str(label_of(line, k)) == str(v) for k, v in where.items())
        and metric in metric_values(line)
    ]
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Ours(statistics.fmean(values), deviation, len(values))


def build_grid(table: PaperTable, lines: Sequence[Line], metrics: Sequence[str]) -> Grid:
    """Headings, cells and notes of a table, still without a format.

    A table whose columns name places (a test set, a number of iterations) gets one line for each
    row and place, so that every metric has its three columns: paper, ours, difference.
    """
    places = _places(table)
    keys = [(row, place) for place in places for row in table.rows]
    if len(places) > len(table.rows):
        keys = [(row, place) for row in table.rows for place in places]
    own = list(dict.fromkeys(column.metric for column in table.columns))
    own_columns = {(c.metric, str(c.where)): c for c in table.columns}

    def paper(metric: str, row: dict[str, Any], place: Column) -> float | None:
        column = own_columns.get((metric, str(place.where)))
        return None if column is None else row[column.key]

    def found(metric: str, row: dict[str, Any], place: Column) -> Ours | None:
        return ours(lines, row["row"], place.where, metric)

    grid: dict[str, list[str]] = {table.row_heading: [str(row["name"]) for row, _ in keys]}
    if len(places) > 1:
        grid[table.place_heading] = [_place_name(place) for _, place in keys]
    for metric in own:
        unit = next(f" ({c.unit})" if c.unit else "" for c in table.columns if c.metric == metric)
        name = f"{METRIC_NAMES.get(metric, metric)}{unit}"
        grid[f"{name}, paper"] = [_number(paper(metric, *key), table.digits) for key in keys]
        grid[f"{name}, ours"] = [_ours_text(found(metric, *key), table.digits) for key in keys]
        grid["difference" if len(own) == 1 else f"{name}, difference"] = [
            _change(found(metric, *key), paper(metric, *key), table.digits) for key in keys
        ]
    others = [metric for metric in metrics if metric not in own]
    for metric in others:
        grid[f"{metric}, ours"] = [_ours_text(found(metric, *k), _digits(metric)) for k in keys]
    reference = next((row for row in table.rows if row["row"] == table.reference), None)
    if reference is not None:
        against = f"vs {reference['row']}"
        grid[f"{against}, paper"] = [
            _against(paper(own[0], row, place), paper(own[0], reference, place), table.digits)
            if row is not reference
            else ""
            for row, place in keys
        ]
        for metric in metrics:
            grid[f"{against}, ours ({metric})"] = [
                _change(
                    found(metric, row, place),
                    _mean(found(metric, reference, place)),
                    _digits(metric),
                )
                if row is not reference
                else ""
                for row, place in keys
            ]
    rows = [list(cells) for cells in zip(*grid.values(), strict=True)]
    title = f"Table {table.number}: {table.title}"
    return Grid(title, list(grid), rows, _notes(table, lines, metrics))


def _places(table: PaperTable) -> list[Column]:
    """One column for each place, whatever the metric."""
    places: dict[str, Column] = {}
    for column in table.columns:
        places.setdefault(str(column.where), column)
    return list(places.values())


def _place_name(place: Column) -> str:
    return " ".join(str(value) for value in place.where.values())


def _ours_text(value: Ours | None, digits: int) -> str:
    return "" if value is None else value.text(digits)


def _mean(value: Ours | None) -> float | None:
    return None if value is None else value.mean


def _against(value: float | None, base: float | None, digits: int) -> str:
    return "" if value is None or base is None else f"{value - base:+.{digits}f}"


def _change(value: Ours | None, base: float | None, digits: int) -> str:
    return _against(_mean(value), base, digits)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _digits(metric: str) -> int:
    base, label, _ = split_metric(metric)
    if base == "fid" and label:
        return 3  # stand-ins have scales of their own, often small
    return {"psnr": 2, "psnr_hole": 2, "fid": 2, "p_ids": 2, "u_ids": 2, "lpips": 3}.get(base, 4)


def _notes(table: PaperTable, lines: Sequence[Line], metrics: Sequence[str]) -> list[str]:
    notes = [f"Paper: {table.setting}."]
    if not lines:
        return [*notes, "Ours: nothing was run yet; all of it is blank."]

    def all_of(key: str) -> list[str]:
        return sorted({str(v) for line in lines if (v := label_of(line, key)) is not None})

    def listed(key: str) -> str:
        return ", ".join(all_of(key)) or "not recorded"

    seeds = all_of("seed")
    notes.append(
        f"Ours: scale {listed('scale')}; {listed('images_seen')} images seen; protocol "
        f"{listed('protocol')}; {listed('num_images')} test images; seeds {', '.join(seeds)}"
        + (" (mean ± sample standard deviation)." if len(seeds) > 1 else ".")
    )
    notes.append(f"Hardware: {'; '.join(_hardware(lines))}. Code: {_commits(lines)}.")
    scales = all_of("scale")
    if scales and scales != ["paper"]:
        notes.append(
            "These runs are scaled down: their numbers are no reproduction of the paper's, and "
            "only the order of the rows can be compared."
        )
    labels = sorted({split_metric(m)[1] for m in metrics if split_metric(m)[1]})
    if labels:
        notes.append(
            f"[{', '.join(labels)}] names what stands in for the paper's network or sample size: "
            "not the paper's metric, and its values compare with nothing but each other."
        )
    others = [m for m in metrics if m not in {c.metric for c in table.columns}]
    better = [
        f"{m} {'lower' if split_metric(m)[0] in LOWER_IS_BETTER else 'higher'}" for m in others
    ]
    if better:
        notes.append(f"Better is: {', '.join(better)}.")
    return notes


def _hardware(lines: Sequence[Line]) -> list[str]:
    machines = set()
    for line in lines:
        hardware = line.get("hardware") or {}
        gpus = hardware.get("gpus") or []
        if gpus:
            machines.add(f"{len(gpus)} x {gpus[0]}")
        elif hardware:
            machines.add(f"CPU {hardware.get('cpu')}, {hardware.get('threads')} thread(s)")
    return sorted(machines) or ["not recorded"]


def _commits(lines: Sequence[Line]) -> str:
    commits = {str(line.get("git_commit") or "unknown") for line in lines}
    short = sorted({c[:10] + ("+ (changed)" if c.endswith("+") else "") for c in commits})
    return ", ".join(short[:4]) + (f" and {len(short) - 4} more" if len(short) > 4 else "")
