"""The paper's figures, drawn from arrays and result lines; nothing here runs a model."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sdm_lightning.files import atomic_file
from sdm_lightning.reports.paper import PaperTable
from sdm_lightning.reports.results import ResultLine
from sdm_lightning.reports.seeds import Ours, ours, run_values
from sdm_lightning.scores import better_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#1d1d22", "#63636e", "#e4e4ea"
TILE_INCHES = 1.5  # height of a picture and the gap to the next
FILLED = 0.97  # part of a tile that the picture fills
LEAST_PIXELS, LARGEST_SIDE = 233, 8000  # of a picture's height in the PNG, and of the figure
COLOURS = ("#3b5bdb", "#d9480f", "#2b8a3e", "#9c36b5", "#0b7285")
MARKERS = ("o", "s", "^", "D", "v", "P")  # one more than colours: thirty rows differ

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32] | npt.NDArray[np.bool_]


def panels(
    rows: Sequence[Sequence[Pixels]],
    column_titles: Sequence[str],
    row_titles: Sequence[str] | None = None,
    caption: str = "",
) -> Figure:
    """Draw pictures in rows and columns.

    Each pixel becomes one of the figure's, or a square of them (before Matplotlib 3.11 a row or
    column may be one off); only pictures so large that the figure would have more than 8000 pixels
    a side are made smaller.

    Args:
        rows: ``(H, W, 3)`` uint8 pictures; ``(H, W)`` float32 in [0, 1], drawn as a heat map (dark
            = 0); ``(H, W)`` bool, drawn black and white.
        column_titles: One for each column.
        row_titles: One for each row, or None.
        caption: Below the whole.
    """
    from matplotlib.figure import Figure

    columns = len(column_titles)
    left = 0.9 if row_titles else 0.1
    lines = textwrap.wrap(caption, max(40, int(15 * columns * TILE_INCHES)))
    below = 0.18 * len(lines) + 0.15
    shape = np.shape(rows[0][0])
    width = TILE_INCHES * shape[1] / shape[0]
    size = (left + columns * width + 0.1, 0.3 + len(rows) * TILE_INCHES + below)
    exact = shape[0] * math.ceil(LEAST_PIXELS / shape[0]) / (FILLED * TILE_INCHES)
    dpi = min(exact, LARGEST_SIDE / max(size))
    interpolation = "nearest" if dpi == exact else "antialiased"

    def whole(inches: float) -> float:
        """Round to the figure's pixels: pictures between them would be resampled."""
        return round(inches * dpi) / dpi

    size = whole(size[0]), whole(size[1])
    figure = Figure(figsize=size, dpi=dpi, facecolor="white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            box = whole(left + x * width), whole(below + (len(rows) - 1 - y) * TILE_INCHES)
            axes = figure.add_axes(
                (
                    box[0] / size[0],
                    box[1] / size[1],
                    FILLED * width / size[0],
                    FILLED * TILE_INCHES / size[1],
                )
            )
            _show(axes, picture, interpolation)
            if y == 0:
                axes.set_title(column_titles[x], fontsize=9, color=INK, pad=4)
            if x == 0 and row_titles:
                axes.text(
                    -0.06,
                    0.5,
                    "\n".join(textwrap.wrap(row_titles[y], 12)),
                    transform=axes.transAxes,
                    ha="right",
                    va="center",
                    fontsize=9,
                    color=INK,
                )
    figure.text(0.1 / size[0], 0.08 / size[1], "\n".join(lines), fontsize=7.5, color=SOFT)
    return figure


def _show(axes: Axes, picture: Pixels, interpolation: str) -> None:
    from matplotlib.patches import Rectangle

    array = np.asarray(picture)
    colours = "gray" if array.dtype == bool else "magma"  # of what has no colours itself
    axes.imshow(array, cmap=colours, vmin=0, vmax=1, interpolation=interpolation)
    axes.set_axis_off()
    if array.dtype == bool:  # a frame, since a mask without holes is white on white
        whole = Rectangle((0, 0), 1, 1, fill=False, edgecolor=SOFT, linewidth=0.5, clip_on=False)
        axes.add_artist(whole).set_transform(axes.transAxes)


def schedule_curves(
    curves: Mapping[str, npt.NDArray[np.float64]], progress: npt.NDArray[np.float64]
) -> Figure:
    """Draw Fig. 7: the filled part of the hole over the progress of the iterations.

    Args:
        curves: Name -> filled fraction at each progress.
        progress: t / T, from 0 to 1.
    """
    figure, axes = plot(4.2, 3.4)
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(progress, curve, color=colour, linewidth=2, label=name)
        thirds = np.interp([1 / 3, 2 / 3], progress, curve)
        axes.plot([1 / 3, 2 / 3], thirds, "o", color=colour, markersize=4)
    axes.set_xlabel("progress of the iterations, t / T")
    axes.set_ylabel("filled part of the hole")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.set_title("Mask schedules (dots: T = 3)", fontsize=9, color=INK)
    return figure


def iteration_curves(
    table: PaperTable, lines: Sequence[ResultLine], metrics: Sequence[str], notes: str
) -> Figure:
    """Draw Table 2 as curves: the paper's on the left, then one panel for each of our metrics.

    Args:
        table: ``table2``.
        lines: Its result lines.
        metrics: Exact names.
        notes: Below: scale, seeds, protocol.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    count = 1 + len(metrics)
    figure = Figure(figsize=(3.2 * count + 0.3, 3.3), dpi=160, facecolor="white")
    axes_list = figure.subplots(1, count, squeeze=False)[0]
    iterations = [int(column.where["num_iterations"]) for column in table.columns]
    for axes in axes_list:
        _dress(axes)
        axes.set_xlabel("testing iterations")
        axes.set_xticks(iterations)
    for row, colour, marker in zip(table.rows, cycle(COLOURS), cycle(MARKERS), strict=False):
        style = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.5}
        # The legend is here: a row without numbers of the paper has no curve, but its name.
        values = [row.get(column.key, math.nan) for column in table.columns]
        axes_list[0].plot(iterations, values, label=row["name"], **style)
        for axes, metric in zip(axes_list[1:], metrics, strict=True):
            found = [
                (t, value)
                for t, column in zip(iterations, table.columns, strict=True)
                if (value := ours(lines, row["row"], column.where, metric)) is not None
                and math.isfinite(value.mean)
            ]
            if found:
                axes.errorbar(
                    [t for t, _ in found],
                    [v.mean for _, v in found],
                    yerr=[v.deviation or 0.0 for _, v in found],
                    capsize=2,
                    label=row["name"],
                    **style,
                )
    axes_list[0].set_title("paper: FID (lower is better)", fontsize=9, color=INK)
    axes_list[0].legend(frameon=False, fontsize=8, loc="upper right")
    for axes, metric in zip(axes_list[1:], metrics, strict=True):
        axes.set_title(
            f"ours: {metric} ({better_of(metric, lines)} is better)", fontsize=9, color=INK
        )
        heights = [y for item in axes.get_lines() for y in np.asarray(item.get_ydata())]
        if heights and 0 < 10 * min(heights) < max(heights):
            axes.set_yscale("log")  # else one distant row would flatten the others
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
    below = textwrap.wrap(notes, 46 * count)
    figure.tight_layout(rect=(0, 0.02 + 0.036 * len(below), 1, 1))
    figure.text(0.01, 0.015, "\n".join(below), fontsize=7, color=SOFT)
    return figure


def row_dots(
    table: PaperTable, lines: Sequence[ResultLine], metrics: Sequence[str], notes: str
) -> Figure:
    """Draw a table as dots: the paper's numbers, then one panel for each of our metrics.

    Each dot is a run, so that the noise is seen beside the differences; a bar is the mean over
    seeds, the dashed line that of the table's reference row.

    Args:
        table: ``table1`` or ``table4``, with one column of numbers.
        lines: Its result lines.
        metrics: Exact names.
        notes: Below: scale, seeds, protocol.
    """
    from matplotlib.figure import Figure

    count, names = 1 + len(metrics), [str(row["name"]) for row in table.rows]
    height = 1.3 + 0.32 * len(names)
    figure = Figure(figsize=(2.7 * count + 0.9, height), dpi=160, facecolor="white")
    axes_list = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    (column,) = table.columns
    places = {str(row["row"]): y for y, row in enumerate(table.rows)}
    for axes in axes_list:
        _dress(axes)
        axes.set_yticks(range(len(names)), names)
    axes_list[0].invert_yaxis()
    for row, y in places.items():
        colour = COLOURS[1] if row == table.reference else COLOURS[0]
        if (value := table.rows[y].get(column.key)) is not None:
            axes_list[0].plot(value, y, "D", color=colour, markersize=5)
        for axes, metric in zip(axes_list[1:], metrics, strict=True):
            values = run_values(lines, row, column.where, metric)
            axes.plot(values, [y] * len(values), "o", color=colour, markersize=4, alpha=0.65)
            if (mean := Ours.of(values)) is not None and math.isfinite(mean.mean):
                axes.plot([mean.mean] * 2, [y - 0.3, y + 0.3], color=colour, linewidth=2)
                if row == table.reference:
                    axes.axvline(mean.mean, color=colour, linewidth=0.8, linestyle="--", zorder=0)
    axes_list[0].set_title(f"paper: {column.metric.upper()}", fontsize=9, color=INK)
    axes_list[0].set_xlabel(f"{better_of(column.metric)} is better")
    for axes, metric in zip(axes_list[1:], metrics, strict=True):
        axes.set_title(f"ours: {metric}", fontsize=9, color=INK)
        axes.set_xlabel(f"{better_of(metric, lines)} is better")
    below = textwrap.wrap(notes, 42 * count)
    figure.tight_layout(rect=(0, (0.2 + 0.12 * len(below)) / height, 1, 1))
    figure.text(0.01, 0.02, "\n".join(below), fontsize=7, color=SOFT)
    return figure


def plot(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure of one plot in this module's style; sizes are in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, facecolor="white", layout="tight")
    axes = figure.subplots()
    _dress(axes)
    return figure, axes


def _dress(axes: Axes) -> None:
    axes.grid(color=GRID, linewidth=0.7)
    axes.tick_params(labelsize=8, colors=SOFT)
    axes.xaxis.label.set(color=INK, fontsize=8.5)
    axes.yaxis.label.set(color=INK, fontsize=8.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(SOFT)


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write ``STEM.png`` and ``STEM.pdf``, each whole or not at all."""
    from matplotlib import rc_context

    targets = [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")]
    for target in targets:
        # No date inside: the same numbers give the same file.
        metadata = {"CreationDate": None} if target.suffix == ".pdf" else None
        # Type 42 fonts: many publishers refuse matplotlib's default, Type 3.
        with atomic_file(target) as file, rc_context({"pdf.fonttype": 42}):
            figure.savefig(file, format=target.suffix[1:], metadata=metadata)
    return targets
