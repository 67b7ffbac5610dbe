"""The demo's small charts, as PNG files in memory."""

import math
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure

from sdm_lightning.reports.figures import COLOURS, plot

FEW_POINTS = 30


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Average exponentially, without the usual bias towards the first value."""
    result, total, norm = [], 0.0, 0.0
    for value in values:
        if math.isfinite(value):  # a skipped batch logs NaN
            total = weight * total + (1 - weight) * value
            norm = weight * norm + (1 - weight)
        result.append(total / norm if norm else value)
    return result


def line_chart(x: Sequence[float], y: Sequence[float]) -> Figure:
    """Draw a curve over the images seen, faintly, with its smoothed self on top."""
    figure, axes = plot(3.2, 1.6)
    finite = np.asarray(y)[np.isfinite(y)]
    # Few points are not noise around a trend: they are the curve.
    few = len(finite) < FEW_POINTS
    axes.plot(x, y, COLOURS[0], linewidth=0.8, alpha=0.3)
    axes.plot(x, y if few else smoothed(y), COLOURS[0], marker="o" if few else "", markersize=3)
    if not few:  # a wild first batch must not flatten the curve
        axes.set_ylim(*np.percentile(finite, [1, 99]))
    axes.set_xlabel("images seen")
    axes.locator_params(nbins=4)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,g}")
    return figure


def bar_chart(values: Sequence[float], first: str, last: str) -> Figure:
    """Draw bars from left to right, the leftmost and the rightmost labelled."""
    figure, axes = plot(3.2, 1.6)
    axes.bar(range(len(values)), values, color=COLOURS[0], zorder=2)
    axes.set_xticks([0, len(values) - 1], [first, last])
    axes.locator_params("y", nbins=4)
    return figure


def png(figure: Figure) -> BytesIO:
    """Draw a chart without a background; on a dark page, ``report.css`` inverts its colours."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=240, transparent=True)
    return buffer
