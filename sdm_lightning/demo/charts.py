"""Small charts as inline SVG: sharp at any size, and their colours follow the page's theme."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 170
FEW_POINTS = 30
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 24


@dataclass(frozen=True)
class Curve:
    """Points of one curve and the CSS class that colours it."""

    x: Sequence[float]
    y: Sequence[float]
    css: str = "now"


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Average exponentially, without the usual bias towards the first value."""
    result, total, norm = [], 0.0, 0.0
    for value in values:
        if math.isfinite(value):  # a skipped batch logs NaN
            total = weight * total + (1 - weight) * value
            norm = weight * norm + (1 - weight)
        result.append(total / norm if norm else value)
    return result


def thinned(curve: Curve, most: int = 400) -> Curve:
    """Take at most ``most`` points, evenly, the last one included."""
    count = len(curve.x)
    if count <= most:
        return curve
    chosen = sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})
    return Curve([curve.x[k] for k in chosen], [curve.y[k] for k in chosen], curve.css)


def short(value: float) -> str:
    """Format a number in few characters: 12.3k, 0.0123, 4.56M."""
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.3g}{unit}"
    return "0" if value == 0 else f"{value:.3g}"


def _range(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the range of the middle 98 %: a wild first batch must not flatten the curve."""
    values = sorted(v for curve in curves for v in curve.y if math.isfinite(v))
    if not values:
        return 0.0, 1.0
    low = values[int(0.01 * (len(values) - 1))]
    high = values[math.ceil(0.99 * (len(values) - 1))]
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def line_chart(title: str, curves: Sequence[Curve]) -> str:
    """Draw curves over the images seen, each faintly with its smoothed self on top.

    Args:
        title: What is drawn; for readers that speak the page, too.
        curves: The curves.
    """
    curves = [curve for curve in curves if len(curve.x)]
    low, high = _range(curves)
    first = min((min(curve.x) for curve in curves), default=0.0)
    last = max((max(curve.x) for curve in curves), default=1.0)
    span = (last - first) or 1.0

    def place(x: float, y: float) -> str:
        px = LEFT + (x - first) / span * (WIDTH - LEFT - RIGHT)
        py = TOP + (high - min(max(y, low), high)) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return f"{px:.1f},{py:.1f}"

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}">'
    ]
    for share in (0.0, 0.5, 1.0):
        y = TOP + share * (HEIGHT - TOP - BOTTOM)
        value = high - share * (high - low)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{short(value)}</text>')
    for share, anchor in ((0.0, "start"), (1.0, "end")):
        x = LEFT + share * (WIDTH - LEFT - RIGHT)
        label = short(first + share * span)
        parts.append(f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="{anchor}">{label}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">images seen</text>')
    for curve in curves:
        # Few points are not noise around a trend: they are the curve.
        few = len(curve.x) < FEW_POINTS
        soft = Curve(curve.x, curve.y if few else smoothed(curve.y), curve.css)
        for drawn, weight in ((curve, "raw"), (soft, "smooth")):
            drawn = thinned(drawn)
            points = " ".join(
                place(x, y) for x, y in zip(drawn.x, drawn.y, strict=True) if math.isfinite(y)
            )
            parts.append(f'<polyline class="{weight} {curve.css}" points="{points}"/>')
        if few:
            for x, y in zip(curve.x, curve.y, strict=True):
                if math.isfinite(y):
                    cx, cy = place(x, y).split(",")
                    parts.append(f'<circle class="{curve.css}" cx="{cx}" cy="{cy}" r="2.6"/>')
    return "".join([*parts, "</svg>"])


def bar_chart(title: str, values: Sequence[float], first: str, last: str) -> str:
    """Draw bars from left to right, labelled at both ends.

    Args:
        title: What is drawn.
        values: Not negative.
        first: Label of the leftmost bar.
        last: Label of the rightmost bar.
    """
    top = max(values, default=0.0) or 1.0
    width = (WIDTH - LEFT - RIGHT) / max(len(values), 1)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}">'
    ]
    floor = HEIGHT - BOTTOM
    for share in (0.0, 0.5, 1.0):
        y = floor - share * (floor - TOP)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        label = short(share * top)
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{label}</text>')
    for index, value in enumerate(values):
        height = value / top * (floor - TOP)
        parts.append(
            f'<rect x="{LEFT + index * width + 2:.1f}" y="{floor - height:.1f}" '
            f'width="{width - 4:.1f}" height="{height:.1f}" rx="2"/>'
        )
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">{html.escape(first)}</text>')
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{html.escape(last)}</text>'
    )
    return "".join([*parts, "</svg>"])
