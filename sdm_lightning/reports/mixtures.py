"""Results that must not be averaged: a cell is a mean over training seeds and nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from sdm_lightning.errors import InputError
from sdm_lightning.reports.paper import PaperTable, same_value
from sdm_lightning.reports.results import ResultLine, distinct, label_of
from sdm_lightning.reports.seeds import cell_lines

SETTINGS = (
    "scale", "protocol", "num_iterations", "images_seen", "num_images", "images_digest",
    "masks_digest",
)  # fmt: skip
"""What all runs of a cell have in common."""


def refuse_mixtures(table: PaperTable, lines: Sequence[ResultLine]) -> None:
    """Refuse lines of which one cell would average more than the seeds of one setting.

    Args:
        table: The table.
        lines: Its lines, as :func:`~sdm_lightning.reports.paper.select_lines` gives them.

    Raises:
        InputError: If a cell has several settings, or several results of one seed; the message
            says which, and how to choose.
    """
    places = {str(column.where): column.where for column in table.columns}
    for row in dict.fromkeys(str(label_of(line, "row")) for line in lines):
        for where in places.values():
            name = f"{table.name}, row {row}{_shown(where)}"
            _refuse_cell(name, cell_lines(lines, row, where))


def _refuse_cell(name: str, lines: Sequence[ResultLine]) -> None:
    for key in SETTINGS:
        values = distinct(lines, key)
        if all(same_value(key, value, values[0]) for value in values):
            continue
        listed = " and ".join(value[:12] if "digest" in key else value for value in values)
        choose = f"--scale {values[0]}" if key == "scale" else f"--where '{{\"{key}\": VALUE}}'"
        raise InputError(
            f"{name}: its results differ in {key} ({listed}) and are not averaged; choose with "
            f"{choose}, or name the files with --results"
        )
    seeds = [label_of(line, "seed") for line in lines]
    for seed in dict.fromkeys(seeds):
        if seeds.count(seed) > 1 or (seed is None and len(seeds) > 1):
            paths = [_checkpoint(x) for x, s in zip(lines, seeds, strict=True) if s == seed]
            whose = f"of seed {seed}" if seed is not None else "without a seed"
            raise InputError(
                f"{name}: {len(paths)} results {whose} ({', '.join(paths)}) are not averaged; name "
                "the file of one with --results"
            )


def _shown(where: Mapping[str, Any]) -> str:
    return "".join(f", {key} {value}" for key, value in where.items())


def _checkpoint(line: ResultLine) -> str:
    return str((line.get("checkpoint") or {}).get("path") or line.get("time") or "unknown")
