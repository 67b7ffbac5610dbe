import math

import pytest
from PIL import Image

from sdm_lightning.demo.charts import bar_chart, line_chart, png, smoothed


def test_smoothing_keeps_constants_and_starts_at_the_first_value() -> None:
    assert smoothed([3.0] * 5) == pytest.approx([3.0] * 5)
    after_a_skipped_batch = smoothed([3.0, math.nan, 3.0])
    assert after_a_skipped_batch == pytest.approx([3.0, 3.0, 3.0])
    assert smoothed([2.0, 4.0], weight=0.5) == pytest.approx([2.0, (2.0 + 2 * 4.0) / 3])


def test_one_wild_value_does_not_flatten_the_curve() -> None:
    figure = line_chart(range(201), [1e6] + [1.0 + k / 200 for k in range(200)])
    low, high = figure.axes[0].get_ylim()
    assert 1 <= low < 1.1
    assert 1.9 < high <= 2


@pytest.mark.parametrize("values", [[], [math.nan], [math.nan] * 60, [1.0, math.inf] * 60])
@pytest.mark.filterwarnings("ignore:Attempting to set identical")
def test_curves_without_a_range_are_drawn_too(values: list[float]) -> None:
    with Image.open(png(line_chart(range(len(values)), values))) as image:
        assert image.getpixel((0, 0))[3] == 0  # no background


def test_few_points_are_not_smoothed_away() -> None:
    raw, bold = line_chart([0, 1, 2], [1.0, 5.0, 2.0]).axes[0].lines
    assert list(bold.get_ydata()) == list(raw.get_ydata())
    raw, bold = line_chart(range(60), [k % 2 for k in range(60)]).axes[0].lines
    assert list(bold.get_ydata()) != list(raw.get_ydata())


def test_bars_are_labelled_at_both_ends() -> None:
    (axes,) = bar_chart([1.0, 2.0, 4.0], "low", "high").axes
    assert [bar.get_height() for bar in axes.patches] == [1, 2, 4]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["low", "high"]
