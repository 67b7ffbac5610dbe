"""The demo's report as one picture, to look at without a browser."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdm_lightning.demo.charts import FEW_POINTS, smoothed
from sdm_lightning.demo.report_data import DemoRun, verdict
from sdm_lightning.files import atomic_file

INK, SOFT, ACCENT, BEFORE, PAPER = "#1d1d22", "#63636e", "#3b5bdb", "#a9abb8", "#faf9f6"
ROWS = 6


def write_sheet(run: DemoRun, path: Path) -> Path:
    """Draw examples, scores and loss curves on one sheet.

    Args:
        run: What ``read_run`` found.
        path: ``*.png``.
    """
    from matplotlib.figure import Figure

    folders = sorted(p for p in (run.folder / "pictures").iterdir() if p.is_dir())[:ROWS]
    columns = _columns(folders[0]) if folders else []
    sheet = Figure(figsize=(11, 4.9 + 1.24 * len(folders)), dpi=110, facecolor=PAPER)
    height = sheet.get_figheight()
    sheet.text(0.03, 1 - 0.42 / height, "SDM demo", fontsize=22, weight="bold", color=INK)
    lines = [
        f"{run.facts['comparison']['num_images']} windows of four photos it never saw, "
        f"{run.facts['comparison']['hole_ratio']:.0%} of each missing.",
        *textwrap.wrap(verdict(run.scores, run.best_model), 118),
    ]
    sheet.text(0.03, 1 - 0.72 / height, "\n".join(lines), fontsize=10.5, color=SOFT, va="top")
    top, left, size = 1 - 1.75 / height, 0.03, 0.94 / max(len(columns), 1)
    for row, folder in enumerate(folders):
        for column, (name, label) in enumerate(columns):
            cell = (left + column * size, top - (row + 1) * 1.24 / height)
            axes = sheet.add_axes((*cell, size * 0.95, 1.18 / height))
            axes.imshow(np.asarray(Image.open(folder / f"{name}.png")), interpolation="bilinear")
            axes.axis("off")
            if row == 0:
                axes.set_title(label, fontsize=9, color=SOFT, pad=4)
    _draw_scores(sheet.add_axes((0.19, 0.55 / height, 0.27, 2.0 / height)), run)
    _draw_curve(sheet.add_axes((0.56, 0.55 / height, 0.4, 2.0 / height)), run)
    with atomic_file(path) as file:
        sheet.savefig(file, format="png", facecolor=PAPER)
    return path


def _columns(folder: Path) -> list[tuple[str, str]]:
    steps = len(list(folder.glob("step*.png")))
    middle = [(f"step{k}", f"iteration {k}") for k in range(1, steps + 1)]
    ends = [("uncertainty1", "uncertainty"), ("telea", "Telea"), ("target", "truth")]
    return [("input", "input"), *middle, *ends]


def _plain(axes: Any) -> None:
    axes.set_facecolor(PAPER)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(BEFORE)
    axes.tick_params(colors=SOFT, labelsize=9)


def _draw_scores(axes: Any, run: DemoRun) -> None:
    _plain(axes)
    names = list(run.scores)[::-1]
    score, title = "kid[efficientnet-lite2]", "KID x 1000 [efficientnet-lite2], less is better"
    if any(score not in row for row in run.scores.values()):
        score, title = "psnr_hole", "PSNR in the hole, dB"
    values = [run.scores[name][score] for name in names]
    colours = [ACCENT if name.startswith("SDM") else BEFORE for name in names]
    bars = axes.barh(names, values, color=colours, height=0.62)
    axes.bar_label(bars, fmt="%.1f", fontsize=8.5, color=SOFT, padding=3)
    axes.set_xlim(0, max(values) * 1.18)
    axes.set_title(title, fontsize=10, color=INK, loc="left")


def _draw_curve(axes: Any, run: DemoRun) -> None:
    _plain(axes)
    # The newest loss of that name: settings may have changed on the way.
    name = next((name for name in reversed(run.curves) if name.startswith("perceptual")), None)
    name = name or next(iter(run.curves), None)
    for line in run.curves.get(name, []) if name else []:
        colour = ACCENT if line.css == "now" else BEFORE
        axes.plot(line.x, line.y, color=colour, alpha=0.25, linewidth=0.8, marker=".", ms=2)
        soft = smoothed(line.y) if len(line.y) >= FEW_POINTS else line.y
        axes.plot(line.x, soft, color=colour, linewidth=1.8)
    axes.locator_params(axis="x", nbins=5)
    axes.set_title(f"{name or 'loss'} over images seen", fontsize=10, color=INK, loc="left")
