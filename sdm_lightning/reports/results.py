"""Read what evaluations recorded: JSON lines from folders and files, or from a W&B project.

Nothing here runs a model. A line is what `sdm test` appends (metrics under ``name/protocol``, and
everything that they depend on).
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdm_lightning.errors import InputError, one_line, parse_json
from sdm_lightning.scores import metric_name, split_metric
from sdm_lightning.shipped import shipped_folder

ResultLine = dict[str, Any]
"""What one evaluation recorded; see ``sdm_lightning.evaluation.record.make_record``."""

_log = logging.getLogger(__name__)

_LABELS = ("table", "row", "setting", "scale", "seed", "training_seed", "protocol", "method")

DEFAULT_PLACES = ("results.jsonl", "runs", "experiments/results")


def experiments_folder() -> Path:
    """Return ``experiments/`` of the working directory, of the checkout, or of the package."""
    here = Path("experiments")
    return here if (here / "paper").is_dir() else shipped_folder("experiments")


def read_result_lines(path: str | Path) -> list[ResultLine]:
    """Read all lines of a JSON-lines file, oldest first.

    Lines that a crash cut short or another program wrote are left out and counted in a warning.

    Raises:
        InputError: If the file is missing.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file; give a results.jsonl, or a folder with such files")
    lines, foreign = [], 0
    # Not splitlines(): a name may hold one of the other line ends that Unicode knows.
    for text in file.read_bytes().split(b"\n"):
        if not text.strip():
            continue
        try:
            line = parse_json(text)
        except ValueError:
            line = None
        if _is_result(line):
            lines.append(line)
        else:
            foreign += 1
    if foreign:
        _log.warning("%s: left out %d lines that are no whole results", file, foreign)
    return lines


def _is_result(line: Any) -> bool:
    """Whether a parsed line is one that ``sdm test`` or ``sdm evaluate`` writes."""
    if not isinstance(line, dict) or not isinstance(line.get("metrics"), dict):
        return False
    nested = ("counts", "better", "checkpoint", "hardware")
    if not all(isinstance(line.get(key) or {}, dict) for key in nested):
        return False
    if not isinstance((line.get("hardware") or {}).get("gpus") or [], list):
        return False
    try:  # infinities are strings that float() reads
        [float(value) for value in line["metrics"].values()]
    except (TypeError, ValueError, OverflowError):
        return False
    plain = (str, int, float, type(None))
    return all(isinstance(line.get(key), plain) for key in _LABELS)


def gather(places: Sequence[str | Path] | None = None) -> list[ResultLine]:
    """Gather result lines from files, folders and W&B projects, each line once.

    Args:
        places: JSON-lines files; folders, searched for ``*.jsonl`` except under names that start
            with a dot; ``wandb:ENTITY/PROJECT``. None takes ``DEFAULT_PLACES`` that exist.

    Raises:
        InputError: If a place is missing.
    """
    if places is None:
        places = [place for place in DEFAULT_PLACES if Path(place).exists()]
    lines: list[ResultLine] = []
    for place in places:
        if str(place).startswith("wandb:"):
            lines += read_wandb_project(str(place).removeprefix("wandb:"))
            continue
        path = Path(place)
        if not path.is_dir():
            lines += read_result_lines(path)
            continue
        for file in sorted(path.rglob("*.jsonl")):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if not hidden:
                lines += read_result_lines(file)
    return list({json.dumps(line): line for line in lines}.values())


def not_run(places: Sequence[str | Path] | None) -> str:
    """Return the note of a table or figure without lines: the places that ``gather`` looked in."""
    return f"Ours: not run yet (looked in {', '.join(map(str, places or DEFAULT_PLACES))})."


def read_wandb_project(name: str) -> list[ResultLine]:
    """Read a W&B project: the result line of each run that was tested or validated.

    Args:
        name: ``ENTITY/PROJECT`` or ``PROJECT``.

    Raises:
        InputError: If the project cannot be read (no server, no login, no such project).
    """
    import wandb

    try:
        runs = list(wandb.Api().runs(name))
    except Exception as error:  # the client's errors share no public base class
        raise InputError(
            f"wandb:{name}: cannot be read ({one_line(error)}); log in, or give files"
        ) from None
    return [line for run in runs if (line := wandb_line(run.summary))]


def wandb_line(summary: Mapping[str, Any]) -> ResultLine | None:
    """Return the result line that a run left in its W&B summary; None if it was not tested."""
    try:
        record = parse_json(summary.get("record") or "null")
    except (TypeError, ValueError):
        return None
    return record if _is_result(record) else None


def metric_values(line: ResultLine) -> dict[str, float]:
    """Return the metrics of a line without the protocol's name; stand-ins keep their brackets."""
    values = {}
    for name, value in line["metrics"].items():
        base, label, _ = split_metric(name)
        values[metric_name(base, label)] = float(value)
    return values


def metrics_of(lines: Iterable[ResultLine]) -> list[str]:
    """List the metrics of some lines, sorted; see ``metric_values``."""
    return sorted({metric for line in lines for metric in metric_values(line)})


def label_of(line: ResultLine, key: str) -> Any:
    """Return a fact of a line: ``row``, ``seed``, ``networks.features.sha256``, ...; None without.

    The seed is that of the training, which a test of a given checkpoint may not share. Points lead
    into a fact that has parts.
    """
    if key == "seed" and line.get("training_seed") is not None:
        return line["training_seed"]
    if line.get(key) is not None:
        return line[key]
    part: Any = line
    for name in key.split("."):
        part = part.get(name) if isinstance(part, dict) else None
    return part


def having(lines: Iterable[ResultLine], facts: Mapping[str, Any]) -> list[ResultLine]:
    """Select the lines that have these facts; see ``label_of``."""
    return [x for x in lines if all(str(label_of(x, k)) == str(v) for k, v in facts.items())]


def distinct(lines: Iterable[ResultLine], key: str) -> list[str]:
    """List the different values of a label over some lines, sorted; see ``label_of``."""
    return sorted({str(v) for line in lines if (v := label_of(line, key)) is not None})
