"""What a demo run left in its folder, read back, and what can be said of it."""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdm_lightning.demo.charts import Curve
from sdm_lightning.errors import InputError
from sdm_lightning.reports.results import read_result_lines
from sdm_lightning.shipped import ASSETS

METHODS = {
    "mean": "mean-colour fill",
    "telea": "OpenCV Telea",
    "navier-stokes": "OpenCV Navier-Stokes",
}
"""Headings of the classical methods."""

STAND_INS = ("pixel-pyramid", "random")


@dataclass(frozen=True)
class DemoRun:
    """Everything that a demo run left.

    Attributes:
        folder: The run folder.
        facts: ``demo.json``.
        record: The last line of ``results.jsonl``.
        curves: Name of a training term -> curves over images seen, packaged weights' own first.
    """

    folder: Path
    facts: dict[str, Any]
    record: dict[str, Any]
    curves: dict[str, list[Curve]]

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
    curves: dict[str, list[Curve]] = {}
    if facts.get("start") == "pretrained":
        read_curves(ASSETS / "demo.metrics.csv", "before", curves)
    read_curves(run / "metrics.csv", "now", curves)
    return DemoRun(run, facts, read_result_lines(run / "results.jsonl")[-1], curves)


def read_curves(path: Path, css: str, curves: dict[str, list[Curve]]) -> None:
    """Add the training columns of a metrics file; a missing file adds none."""
    if not path.is_file():
        return
    found: dict[str, tuple[list[float], list[float]]] = {}
    seen = ""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            # Rows of a validation do not repeat the clock.
            seen = row.get("images_seen") or seen
            for name, value in row.items():
                kept = name.startswith("train/") or name == "val/psnr_hole"
                if kept and value and seen:
                    x, y = found.setdefault(name.removeprefix("train/"), ([], []))
                    x.append(float(seen))
                    y.append(float(value))
    for name, (x, y) in found.items():
        curves.setdefault(name, []).append(Curve(x, y, css))


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


def stand_ins(run: DemoRun) -> list[tuple[str, str]]:
    """List what differs from the paper's set-up: a name each, and the rest of the sentence."""
    found = []
    for name in run.curves:
        label = re.fullmatch(r"perceptual\[(.+)\]", name)
        if label and any(mark in label[1] for mark in STAND_INS):
            found.append((
                name,
                " stands in for the paper's perceptual network, a ResNet-50 whose weights are "
                "a download.",
            ))  # fmt: skip
    names = {name.split("/")[0].split("[")[0] for name in run.record.get("metrics", {})}
    needed = {"fid": "FID", "p_ids": "P-IDS", "u_ids": "U-IDS", "lpips": "LPIPS"}
    missing = [label for name, label in needed.items() if name not in names]
    if missing:
        found.append((
            f"No {', '.join(missing)}",
            ": their networks' weights are downloads too, and "
            f"{run.record.get('num_images')} images are few for them. Nothing replaces them.",
        ))  # fmt: skip
    started = "continued from weights trained on 218 photos, on "
    found.append((
        "A small model",
        f" ({run.record.get('num_parameters', 0) / 1e6:.1f} M parameters, 64×64) "
        f"{started if run.facts.get('start') == 'pretrained' else 'trained on '}about "
        "a dozen photos and made-up scenes; the paper's has 74 M, 512×512, and millions of photos. "
        "None of these numbers can be compared with the paper's.",
    ))  # fmt: skip
    return found
