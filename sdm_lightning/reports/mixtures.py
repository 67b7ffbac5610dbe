"""Results that must not stand together.

A cell is a mean over training seeds and nothing else, and the rows of a column are scores of the
same images and masks.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from sdm_lightning.errors import InputError
from sdm_lightning.reports.paper import PaperTable, is_hash, same_value
from sdm_lightning.reports.results import ResultLine, having, label_of, metric_values
from sdm_lightning.scores import find_score, split_metric

EVALUATION = ("protocol", "num_images", "images_digest", "masks_digest")
"""What all rows of a column have in common, beside the networks of their scores."""

SETTINGS = (
    "scale", *EVALUATION, "num_iterations", "train_iterations", "images_seen", "parameters",
    "alpha", "schedule", "composite",
)  # fmt: skip
"""What all runs of a cell have in common, beside the networks of their scores."""


LATER_SETTINGS = ("diffusion", "repredict", "uncertainty_scale", "uncertainty_channels")
"""The same, but for lines of older versions, which do not have them."""


def refuse_mixtures(table: PaperTable, lines: Sequence[ResultLine]) -> None:
    """Refuse lines that cannot be averaged or compared.

    Args:
        table: The table.
        lines: Its lines, as ``sdm_lightning.reports.paper.select_lines`` gives them.

    Raises:
        InputError: If a cell has several settings or several results of one seed, or the rows of a
            column were scored on different images or masks, or by different networks of one name;
            the message says which, and how to choose.
    """
    for row in dict.fromkeys(str(label_of(line, "row")) for line in lines):
        for where in table.places:
            name = "".join(f", {key} {value}" for key, value in {"row": row, **where}.items())
            _refuse_cell(table.name + name, having(lines, {"row": row, **where}))
    for setting, shown in _test_sets(table, lines).items():
        _refuse_test_set(table.name + (f", setting {setting}" if setting else ""), shown)


def doubts(table: PaperTable, lines: Sequence[ResultLine]) -> list[str]:
    """List notes on rows that may not be comparable: other known pixels, or facts not recorded.

    Takes the arguments of ``refuse_mixtures``.
    """
    notes = []
    changed: dict[str, float] = {}
    for line in (line for shown in _test_sets(table, lines).values() for line in shown):
        error = line.get("known_error")
        if isinstance(error, float) and error > 0 and not line.get("composite"):
            row = str(label_of(line, "row"))
            changed[row] = max(changed.get(row, 0), error)
    if changed:
        listed = ", ".join(f"{row} ({error:.2f} levels)" for row, error in changed.items())
        notes.append(
            f"Known pixels differ from the originals' in {listed}: do not compare with composites "
            "(--composite true), which published numbers are of."
        )
    for key in ("images_digest", "masks_digest"):
        rows = {
            str(label_of(line, "row")): None
            for shown in _test_sets(table, lines).values()
            if len({label_of(line, "row") for line in shown}) > 1
            for line in shown
            if label_of(line, key) is None
        }
        if rows:
            what = key.partition("_")[0]
            notes.append(
                f"Rows without {key}, whose {what} may not be those of the others: "
                f"{', '.join(rows)}."
            )
    return notes


def _test_sets(table: PaperTable, lines: Sequence[ResultLine]) -> dict[str, list[ResultLine]]:
    """Return the lines that a table shows, by their test set (a column's setting, if it has one).

    Columns of one test set, such as the numbers of iterations of Table 2, are compared too.
    """
    found: dict[str, list[ResultLine]] = {}
    for where in table.places:
        found.setdefault(str(where.get("setting", "")), []).extend(having(lines, where))
    return found


def _refuse_cell(name: str, lines: Sequence[ResultLine]) -> None:
    later = ((key, [x for x in lines if label_of(x, key) is not None]) for key in LATER_SETTINGS)
    for key, sharing in (*_compared(lines, SETTINGS), *later):
        values = sorted({str(label_of(line, key)) for line in sharing})
        if all(same_value(key, one, other) for one, other in combinations(values, 2)):
            continue
        listed = " and ".join(_shown(key, value) for value in values)
        scale = f"--scale {values[0]}" if key == "scale" else None
        raise InputError(
            f"{name}: its results differ in {key} ({listed}) and are not averaged; "
            f"{_how_to_choose(key, scale)}"
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


def _refuse_test_set(name: str, lines: Sequence[ResultLine]) -> None:
    for key, sharing in _compared(lines, EVALUATION):
        rows: dict[str, dict[str, None]] = {}
        for line in sharing:
            if (value := label_of(line, key)) is not None:
                rows.setdefault(str(value), {})[str(label_of(line, "row"))] = None
        if len(rows) > 1:
            listed = "; ".join(f"{', '.join(who)}: {_shown(key, v)}" for v, who in rows.items())
            raise InputError(
                f"{name}: its rows differ in {key} ({listed}) and cannot be compared; "
                f"{_how_to_choose(key)}"
            )


def _compared(
    lines: Sequence[ResultLine], keys: Sequence[str]
) -> Iterator[tuple[str, Sequence[ResultLine]]]:
    """List facts that have to agree, each with the lines among which it has to."""
    for key in keys:
        yield key, lines
    measured: dict[str, list[ResultLine]] = {}
    for line in lines:
        for metric in metric_values(line):
            measured.setdefault(metric, []).append(line)
    for metric, having_it in measured.items():
        score = find_score(metric)
        network = "features" if score is not None and score.feature else split_metric(metric)[0]
        yield f"networks.{network}.sha256", having_it


def _shown(key: str, value: str) -> str:
    return "not recorded" if value == "None" else value[:12] if is_hash(key) else value


def _how_to_choose(key: str, option: str | None = None) -> str:
    option = option or f"--where '{{\"{key}\": VALUE}}'"
    return f"choose with {option}, or name the files with --results"


def _checkpoint(line: ResultLine) -> Any:
    return label_of(line, "checkpoint.path") or line.get("time") or "unknown"
