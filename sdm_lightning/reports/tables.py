"""``sdm table``: the paper's tables with our numbers beside them, from result lines alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdm_lightning.errors import InputError
from sdm_lightning.files import write_atomically
from sdm_lightning.reports.formats import FORMATS, SUFFIXES, Grid, TableFormat
from sdm_lightning.reports.mixtures import doubts, refuse_mixtures
from sdm_lightning.reports.paper import (
    PaperTable,
    evaluations_left_out,
    read_paper_table,
    select_lines,
    with_own_protocols,
    with_own_rows,
)
from sdm_lightning.reports.results import (
    ResultLine,
    distinct,
    gather,
    metrics_of,
    not_run,
)
from sdm_lightning.reports.seeds import Ours, change, ours
from sdm_lightning.scores import SCORES, better_of, digits_of, split_metric


def print_table(
    name: str,
    scale: str | None = None,
    format: TableFormat | None = None,
    results: list[str] | None = None,
    metrics: list[str] | None = None,
    where: dict[str, Any] | None = None,
    output: str | None = None,
) -> None:
    """Print a table of the paper with our numbers beside the paper's own.

    Numbers come from result lines only; what was not run stays blank. The difference to the paper
    is given where the metric is the paper's own; stand-ins and other metrics have columns of their
    own, each with its change against the table's reference row.

    Args:
        name: table1, table2, table3, table4, tableB1, tableC2, tableD3, or the name of a file of
            yours in experiments/paper.
        scale: Use only runs of this scale: paper, small, tiny, ...
        format: Output format: md, csv or latex; default: by the suffix of output, .csv or .tex,
            else md.
        results: JSON-lines files, folders, or wandb:ENTITY/PROJECT; default:
            results.jsonl, runs/ and experiments/results/.
        metrics: Metrics to show instead of the paper's, such as '["psnr_hole"]'.
        where: Use only runs with these values, such as '{"images_seen": 16384}'.
        output: Write to this file instead of printing.

    Raises:
        InputError: If a cell has results that differ in more than their seed, rows were scored on
            different images or masks, or no result has one of the metrics.
    """
    format = format or SUFFIXES.get(Path(output or "").suffix, "md")
    text = table_text(name, scale, format, results, metrics, where)
    if output is None:
        print(text)
        return
    write_atomically(output, text + "\n")
    print(f"{output} written")


def table_text(
    name: str,
    scale: str | None = None,
    format: TableFormat = "md",
    results: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> str:
    """Return the text that ``print_table`` prints; takes its arguments."""
    table, lines, notes = read_table(name, scale, results, metrics, where)
    if metrics is None:
        # As the paper's tables: its own metric, then what stands in for it at smaller scales.
        found = metrics_of(lines)
        own = list(dict.fromkeys(column.metric for column in table.columns))
        stand_ins = [m for m in found if split_metric(m)[0] in own and m not in own]
        paired = [m for m in ("psnr_hole", "l1_hole") if m in found]
        metrics = own if any(m in found for m in own) or not found else []
        metrics = [*metrics, *stand_ins, *(paired if not metrics or stand_ins else [])]
    grid = build_grid(table, lines, metrics)
    return FORMATS[format](replace(grid, notes=[*grid.notes, *notes]))


def read_table(
    name: str,
    scale: str | None = None,
    results: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> tuple[PaperTable, list[ResultLine], list[str]]:
    """Read a table of the paper and the result lines that belong to it.

    Takes the arguments of ``print_table``.

    Returns:
        The table, with the rows that only the lines have; its lines; notes on what was left out
        or may not be comparable.

    Raises:
        InputError: As ``print_table``.
    """
    gathered = gather(results)
    table = with_own_protocols(read_paper_table(name), gathered, scale)
    lines = select_lines(gathered, table, scale, where)
    refuse_mixtures(table, lines)
    found = metrics_of(lines)
    if unknown := [m for m in metrics or [] if lines and m not in found]:
        raise InputError(f"no result has {unknown[0]!r}; there are {', '.join(found)}")
    scales = distinct(select_lines(gathered, table, None, where), "scale")
    notes = [] if lines else [not_run(results)]
    if scale is not None and scales and scale not in scales:
        notes.append(f"No run has scale {scale}; there are runs of scale {', '.join(scales)}.")
    if left_out := evaluations_left_out(gathered, table):
        notes.append(_left_out_note(left_out, table))
    any_iterations = select_lines(gathered, replace(table, as_trained=False), scale, where)
    if others := len(any_iterations) - len(lines):
        notes.append(
            f"Left out: {others} result(s) tested with other iterations than trained; --where "
            "'{\"num_iterations\": VALUE}' shows them."
        )
    return with_own_rows(table, lines), lines, [*notes, *doubts(table, lines)]


def build_grid(table: PaperTable, lines: Sequence[ResultLine], metrics: Sequence[str]) -> Grid:
    """Build headings, cells and notes of a table, still without a format.

    A table whose columns name places (a test set, a number of iterations) gets one line for each
    row and place, so that every metric has its three columns: paper, ours, difference; a metric of
    the paper that no line has keeps the first alone.
    """
    places = table.places
    keys = [(row, place) for place in places for row in table.rows]
    if len(places) > len(table.rows):
        keys = [(row, place) for row in table.rows for place in places]
    own = list(dict.fromkeys(column.metric for column in table.columns))
    missing = [m for m in own if lines and m not in metrics_of(lines)]
    metrics = [m for m in metrics if m not in missing]
    own_columns = {(c.metric, str(c.where)): c for c in table.columns}

    def paper(metric: str, row: dict[str, Any], place: dict[str, Any]) -> float | None:
        column = own_columns.get((metric, str(place)))
        return None if column is None else row.get(column.key)

    def found(metric: str, row: dict[str, Any], place: dict[str, Any]) -> Ours | None:
        return ours(lines, row["row"], place, metric)

    def text(value: Ours | None, digits: int, sign: str = "") -> str:
        return "" if value is None else value.text(digits, sign, seeds)

    seeds = len(distinct(lines, "seed"))
    grid: dict[str, list[str]] = {table.row_heading: [str(row["name"]) for row, _ in keys]}
    if len(places) > 1:
        grid[table.place_heading] = [" ".join(map(str, place.values())) for _, place in keys]
    for metric in own:
        score = SCORES[metric]
        name = (score.heading or metric) + (f" ({score.unit})" if score.unit else "")
        grid[f"{name}, paper"] = [_number(paper(metric, *key), table.digits) for key in keys]
        if metric in missing:
            continue
        grid[f"{name}, ours"] = [text(found(metric, *key), table.digits) for key in keys]
        grid["difference" if len(own) == 1 else f"{name}, difference"] = [
            _difference(found(metric, *key), paper(metric, *key), table.digits) for key in keys
        ]
    others = [metric for metric in metrics if metric not in own]
    for metric in others:
        grid[f"{metric}, ours"] = [text(found(metric, *k), digits_of(metric)) for k in keys]
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
                text(
                    change(lines, row["row"], reference["row"], place, metric),
                    table.digits if metric in own else digits_of(metric),
                    "+",
                )
                if row is not reference
                else ""
                for row, place in keys
            ]
    rows = [list(cells) for cells in zip(*grid.values(), strict=True)]
    notes = _notes(table, lines, metrics)
    return Grid(table.name, table.number, table.title, list(grid), rows, notes)


def _difference(value: Ours | None, base: float | None, digits: int) -> str:
    return _against(None if value is None else value.mean, base, digits)


def _against(value: float | None, base: float | None, digits: int) -> str:
    return "" if value is None or base is None else f"{value - base:+.{digits}f}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _notes(table: PaperTable, lines: Sequence[ResultLine], metrics: Sequence[str]) -> list[str]:
    notes = [f"Paper: {table.setting}."]
    if not lines:
        return notes

    several = len(distinct(lines, "seed")) > 1
    notes.append(
        described(lines)
        + (" (mean ± sample standard deviation; changes seed by seed)." if several else ".")
    )
    notes.append(f"Hardware: {'; '.join(_hardware(lines))}. Code: {_commits(lines)}.")
    scales = distinct(lines, "scale")
    if scales and scales != ["paper"]:
        notes.append(
            "These runs are scaled down: their numbers do not reproduce the paper's, and only the "
            "order of the rows can be compared."
        )
    labels = sorted({split_metric(m)[1] for m in metrics if split_metric(m)[1]})
    if labels:
        notes.append(
            f"[{', '.join(labels)}] names a stand-in for the paper's network or sample size: it is "
            "not the paper's metric, and its values can be compared only with each other."
        )
    others = [m for m in metrics if m not in {c.metric for c in table.columns}]
    better = [f"{m} {better_of(m, lines)}" for m in others]
    if better:
        notes.append(f"Better is: {', '.join(better)}.")
    return notes


def described(lines: Sequence[ResultLine]) -> str:
    """Say in one phrase what our numbers are of: scale, images seen, protocol, images, seeds."""

    def listed(key: str) -> str:
        return ", ".join(distinct(lines, key)) or "not recorded"

    def counted(key: str, what: str) -> str:
        found = distinct(lines, key)
        return f"{', '.join(found)} {what}" if found else f"{what}: not recorded"

    return (
        f"Ours: scale {listed('scale')}; {counted('images_seen', 'images seen')}; protocol "
        f"{listed('protocol')}; {counted('num_images', 'test images')}; seeds {listed('seed')}"
    )


def _left_out_note(lines: Sequence[ResultLine], table: PaperTable) -> str:
    names = sorted({f"{x.get('method') or 'no method'} ({x.get('protocol')})" for x in lines})
    return (
        f"Left out: {len(lines)} result(s) of sdm evaluate without a method, or with a protocol "
        f"that this table does not have: {_first_of(names)}. Its protocols: "
        f"{', '.join(table.protocols)}."
    )


def _hardware(lines: Sequence[ResultLine]) -> list[str]:
    machines = set()
    for line in lines:
        hardware = line.get("hardware") or {}
        gpus = hardware.get("gpus") or []
        if gpus and line.get("device") != "cpu":  # older lines do not have it
            machines.add(f"{len(gpus)} x {gpus[0]}")
        elif hardware:
            machines.add(f"CPU {hardware.get('cpu')}, {hardware.get('threads')} thread(s)")
    return sorted(machines) or ["not recorded"]


def _commits(lines: Sequence[ResultLine]) -> str:
    commits = {str(line.get("git_commit") or "unknown") for line in lines}
    short = sorted({c[:10] + ("+ (changed)" if c.endswith("+") else "") for c in commits})
    return _first_of(short)


def _first_of(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
