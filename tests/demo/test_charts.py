import math
import re
import xml.etree.ElementTree as ET

import pytest

from sdm_lightning.demo.charts import Curve, bar_chart, line_chart, short, smoothed, thinned


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12, "12"), (0.01234, "0.0123"), (1500, "1.5k"), (2.5e6, "2.5M"), (-3e9, "-3G")],
)
def test_short(value: float, text: str) -> None:
    assert short(value) == text


def test_smoothing_keeps_constants_and_starts_at_the_first_value() -> None:
    assert smoothed([3.0] * 5) == pytest.approx([3.0] * 5)
    after_a_skipped_batch = smoothed([3.0, math.nan, 3.0])
    assert after_a_skipped_batch == pytest.approx([3.0, 3.0, 3.0])
    assert smoothed([2.0, 4.0], weight=0.5) == pytest.approx([2.0, (2.0 + 2 * 4.0) / 3])


def test_thinning_keeps_both_ends() -> None:
    line = thinned(Curve(range(1000), range(1000)), 50)
    assert len(line.x) == 50
    assert (line.x[0], line.x[-1]) == (0, 999)


def points(svg: str, css: str) -> list[tuple[float, float]]:
    found = re.search(rf'class="{css}" points="([^"]*)"', svg)
    assert found
    return [tuple(map(float, pair.split(","))) for pair in found[1].split()]  # type: ignore[misc]


def test_a_falling_loss_falls_from_left_to_right() -> None:
    svg = line_chart("a <loss>", [Curve([0, 100, 200], [3.0, 2.0, 1.0])])
    ET.fromstring(svg)  # well formed, with the title escaped
    drawn = points(svg, "raw now")
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    assert [y for _, y in drawn] == sorted(y for _, y in drawn)  # SVG counts downwards
    assert drawn[1][0] == pytest.approx((drawn[0][0] + drawn[2][0]) / 2, abs=0.1)


def test_one_wild_value_does_not_flatten_the_curve() -> None:
    values = [1e6] + [1.0 + k / 200 for k in range(200)]
    drawn = points(line_chart("loss", [Curve(range(201), values)]), "raw now")
    heights = [y for _, y in drawn[1:]]
    assert max(heights) - min(heights) > 80


def test_empty_charts_are_drawn_too() -> None:
    ET.fromstring(line_chart("nothing", []))
    ET.fromstring(line_chart("nothing", [Curve([5.0], [float("nan")])]))


def test_bars_are_as_high_as_their_values() -> None:
    svg = bar_chart("bars", [1.0, 2.0, 4.0], "low", "high")
    heights = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"', svg)]
    assert heights == pytest.approx([heights[2] / 4, heights[2] / 2, heights[2]], abs=0.1)


def test_few_points_are_not_smoothed_away() -> None:
    few = line_chart("validation", [Curve([0, 1, 2], [1.0, 5.0, 2.0])])
    assert points(few, "smooth now") == points(few, "raw now")
    many = line_chart("loss", [Curve(range(60), [k % 2 for k in range(60)])])
    assert points(many, "smooth now") != points(many, "raw now")
