"""The paper's own tables, and which result lines belong to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from sdm_lightning.errors import InputError, one_line
from sdm_lightning.reports.results import ResultLine, experiments_folder, label_of


@dataclass(frozen=True)
class Column:
    """A column of numbers in a table of the paper."""

    key: str
    metric: str
    where: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper with its own numbers; ``experiments/paper/NAME.yaml``.

    Attributes:
        name: ``table1``.
        title: What it compares.
        setting: What the paper's numbers were measured on.
        row_heading: Heading of the rows' names.
        columns: Columns of numbers.
        rows: ``row`` (short name), ``name``, and a value for each column's key.
        number: As the paper prints it; empty for a table that is not in the paper.
        place_heading: Heading of what ``where`` of the columns names.
        reference: Row that the others are compared with.
        same_as: Row -> table and row of which it is the same run.
        protocols: Protocol of ``sdm evaluate`` -> setting of a column, for other methods' folders.
        as_trained: Whether its rows are tested with as many iterations as they were trained with.
        digits: Digits after the point.
    """

    name: str
    title: str
    setting: str
    row_heading: str
    columns: list[Column]
    rows: list[dict[str, Any]]
    number: str = ""
    place_heading: str = "Test set"
    reference: str | None = None
    same_as: dict[str, dict[str, str]] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    as_trained: bool = False
    digits: int = 2

    @property
    def places(self) -> list[dict[str, Any]]:
        """What the columns' ``where`` name, each once, whatever the metric."""
        return list({str(column.where): column.where for column in self.columns}.values())


def table_names() -> list[str]:
    """List the tables whose numbers are in ``experiments/paper``."""
    return sorted(path.stem for path in (experiments_folder() / "paper").glob("*.yaml"))


def has_table(name: str) -> bool:
    """Return whether the paper has this table."""
    return name in table_names()


def read_paper_table(name: str) -> PaperTable:
    """Read the paper's own numbers.

    Raises:
        InputError: If there is no such table, or its file has a wrong key or lacks one.
    """
    if name not in (names := table_names()):
        raise InputError(f"no table {name!r}; there are {', '.join(names)}")
    path = experiments_folder() / "paper" / f"{name}.yaml"
    content = yaml.safe_load(path.read_text())
    try:
        columns = [Column(**column) for column in content.pop("columns")]
        return PaperTable(columns=columns, **content)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: {one_line(error)}") from error


SAME_LENGTH = 0.05
"""Runs that a time limit ended saw nearly as many images; a shorter training is another one."""


def is_hash(key: str) -> bool:
    """Return whether a fact is a hash, of which the first digits suffice."""
    return key.endswith(("digest", "sha256"))


def same_value(key: str, found: Any, wanted: Any) -> bool:
    """Return whether a line's fact is the one that is looked for, as it is printed.

    Hashes may be cut short, and images seen differ by ``SAME_LENGTH``.
    """
    one, other = str(found), str(wanted)
    if is_hash(key):
        return one.startswith(other)
    if key == "images_seen" and one.isdecimal() and other.isdecimal():
        return abs(int(one) - int(other)) <= SAME_LENGTH * max(int(one), int(other))
    return one == other


def select_lines(
    lines: Sequence[ResultLine],
    table: PaperTable,
    scale: str | None,
    where: Mapping[str, Any] | None = None,
) -> list[ResultLine]:
    """Select the lines of this table; of several lines of one run, the newest.

    A run is what shares scale, row, setting, iterations, protocol, seed and checkpoint: its place,
    or its contents. Validations are left out, and runs that only train for a table (a setting that
    none of its columns has); of a table ``as_trained`` also tests with another number of
    iterations, unless ``where`` names one. Results that ``sdm evaluate`` scored have no scale and
    belong to any; as they have no checkpoint, the newest of the same seed, images, masks and
    compositing counts.

    Args:
        lines: Result lines.
        table: The table.
        scale: Only this scale; None for all.
        where: Only lines with these values, such as ``{"images_seen": 16384}``.

    Raises:
        InputError: If no line has them, but lines there are.
    """
    chosen, others = [], 0
    for found in lines:
        line = _as_row_of(found, table)
        if line is None or line.get("command") == "validate":
            continue
        other = scale is not None and label_of(line, "scale") != scale
        if other and not (line.get("command") == "evaluate" and label_of(line, "scale") is None):
            continue
        if all(same_value(key, label_of(line, key), v) for key, v in (where or {}).items()):
            chosen.append(line)
        else:
            others += 1
    if others and not chosen:
        raise InputError(f"{table.name}: none of {others} results has {where}")
    if table.as_trained and "num_iterations" not in (where or {}):
        chosen = [line for line in chosen if not _has_other_iterations(line)]
    return _newest(_newest(chosen, "path"), "sha256")


def _has_other_iterations(line: ResultLine) -> bool:
    """Return whether a test had another number of iterations than the training.

    A training with random numbers records a list, which none differs from.
    """
    tested, trained = label_of(line, "num_iterations"), label_of(line, "train_iterations")
    return isinstance(tested, int) and isinstance(trained, int) and tested != trained


def _newest(lines: Sequence[ResultLine], identity: str) -> list[ResultLine]:
    """Keep the newest of the lines of one run, told apart by a fact about the checkpoint."""
    keys = ("scale", "row", "setting", "num_iterations", "protocol", "seed")
    evaluated = ("num_images", "images_digest", "masks_digest", "composite")
    newest: dict[tuple[str, ...], ResultLine] = {}
    for number, line in enumerate(lines):
        checkpoint = label_of(line, f"checkpoint.{identity}")
        if checkpoint is None and identity == "sha256":
            checkpoint = number  # not recorded: no reason to take two lines for one run
        told_by = (*keys, *evaluated) if line.get("command") == "evaluate" else keys
        key = (*(str(label_of(line, k)) for k in told_by), str(checkpoint))
        if key not in newest or str(line.get("time", "")) >= str(newest[key].get("time", "")):
            newest[key] = line
    return list(newest.values())


def _as_row_of(line: ResultLine, table: PaperTable) -> ResultLine | None:
    """Return the line under its row of this table; None if it belongs to another."""
    place = (label_of(line, "table"), label_of(line, "row"))
    settings = {c.where["setting"] for c in table.columns if "setting" in c.where}
    elsewhere = bool(settings) and label_of(line, "setting") not in settings
    if place[0] == table.name:
        return None if place[1] is None or elsewhere else line
    if line.get("method") is not None and line.get("protocol") in table.protocols:
        # A folder of results that `sdm evaluate --method NAME --protocol ...` scored.
        method, setting = str(line["method"]), table.protocols[line["protocol"]]
        names = {_plain(row[key]): row["row"] for row in table.rows for key in ("row", "name")}
        row = names.get(_plain(method), method)
        return {**line, "table": table.name, "row": row, "setting": setting}
    for row, other in table.same_as.items():
        if place == (other["table"], other["row"]) and not elsewhere:
            return {**line, "table": table.name, "row": row}
    return None


def with_own_protocols(
    table: PaperTable, lines: Sequence[ResultLine], scale: str | None
) -> PaperTable:
    """Add the protocols by which a scale's own tests of the table were scored.

    By these other methods are scored at this scale. Of two settings with one protocol, the first
    line's counts; tables without protocols get none.

    Args:
        table: The table.
        lines: Result lines, of any table.
        scale: Only tests of this scale; None for all.
    """
    own: dict[str, str] = {}
    for line in lines if table.protocols else ():
        tested = line.get("command") not in ("evaluate", "validate")
        if tested and scale in (None, label_of(line, "scale")) and _as_row_of(line, table):
            own.setdefault(str(label_of(line, "protocol")), str(label_of(line, "setting") or ""))
    return replace(table, protocols=own | table.protocols)


def evaluations_left_out(lines: Sequence[ResultLine], table: PaperTable) -> list[ResultLine]:
    """List what ``sdm evaluate`` scored without a method, or by a protocol that this table lacks.

    Tables without protocols have no place for such results at all: none are listed.
    """
    evaluated = [line for line in lines if line.get("command") == "evaluate" and table.protocols]
    return [
        line
        for line in evaluated
        if label_of(line, "table") is None and _as_row_of(line, table) is None
    ]


def _plain(name: str) -> str:
    """Reduce a name to letters and digits: ``DeepFill v2`` and ``deepfill-v2`` are one method."""
    return "".join(character for character in name.lower() if character.isalnum())


def with_own_rows(table: PaperTable, lines: Sequence[ResultLine]) -> PaperTable:
    """Append the rows that only the lines have, for which the paper has no numbers."""
    known = {str(row["row"]) for row in table.rows}
    own = sorted({str(label_of(line, "row")) for line in lines} - known)
    return replace(table, rows=[*table.rows, *({"row": row, "name": row} for row in own)])
