"""What a demo run left in its folder, read back, and what can be said of it."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdm_lightning.errors import InputError
from sdm_lightning.reports.results import read_result_lines

Curve = tuple[list[float], list[float]]
"""Images seen, and a value at each."""

METHODS = {
    "mean": "mean-colour fill",
    "telea": "OpenCV Telea",
    "navier-stokes": "OpenCV Navier-Stokes",
}
"""Headings of the classical methods."""


@dataclass(frozen=True)
class DemoRun:
    """Everything that a demo run left.

    Attributes:
        folder: The run folder.
        facts: ``demo.json``.
        record: The last line of ``results.jsonl``.
        curves: Name of a training term -> its curve over images seen.
    """

    folder: Path
    facts: dict[str, Any]
    record: dict[str, Any]
    curves: dict[str, Curve]

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Heading of a method -> score -> value."""
        found: dict[str, dict[str, float]] = self.facts["comparison"]["scores"]
        return {METHODS.get(name, name): scores for name, scores in found.items()}

    @property
    def best_model(self) -> str:
        """The model's row with the most iterations."""
        return [name for name in self.scores if name.startswith("SDM")][-1]

    @property
    def images_seen(self) -> int:
        """Images that the tested checkpoint has seen."""
        return int(self.record.get("images_seen") or 0)


def read_run(run: Path) -> DemoRun:
    """Read a demo run's files.

    Raises:
        InputError: If one is missing.
    """
    for name in ("demo.json", "metrics.csv", "results.jsonl"):
        if not (run / name).is_file():
            raise InputError(f"{run / name}: missing; the demo did not get that far")
    facts = json.loads((run / "demo.json").read_text(encoding="utf-8"))
    record = read_result_lines(run / "results.jsonl")[-1]
    return DemoRun(run, facts, record, read_curves(run / "metrics.csv"))


def read_curves(path: Path) -> dict[str, Curve]:
    """Read the training columns of a metrics file."""
    curves: dict[str, Curve] = {}
    seen = ""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            # Rows of a validation do not repeat the clock.
            seen = row.get("images_seen") or seen
            for name, value in row.items():
                kept = name.startswith("train/") or name == "val/psnr_hole"
                if kept and value and seen:
                    x, y = curves.setdefault(name.removeprefix("train/"), ([], []))
                    x.append(float(seen))
                    y.append(float(value))
    return curves


# ---------------------------------------------------------------------- text


def verdict(scores: Mapping[str, Mapping[str, float]], model: str) -> str:
    """Say where the model stands, in one plain sentence."""
    ours = scores[model]["psnr_hole"]
    parts = []
    for method in scores:
        if method.startswith("SDM"):
            continue
        gap = ours - scores[method]["psnr_hole"]
        where = "level with" if abs(gap) < 0.05 else f"{abs(gap):.1f} dB "
        where += "" if abs(gap) < 0.05 else ("ahead of" if gap > 0 else "behind")
        name = "filling with the mean colour" if method.startswith("mean") else method
        parts.append(f"{where} {name} ({scores[method]['psnr_hole']:.1f})")
    joined = ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else "".join(parts)
    return f"{ours:.1f} dB in the hole: {joined}.{_realism(scores, model)}"


def _realism(scores: Mapping[str, Mapping[str, float]], model: str) -> str:
    name = "kid[efficientnet-lite2]"
    if name not in scores[model]:
        return ""
    others = ", ".join(
        f"{row[name]:.0f} for {method}"
        for method, row in scores.items()
        if not method.startswith("SDM")
    )
    return f" {name} x 1000 (realism, less is better): {scores[model][name]:.0f}; {others}."
