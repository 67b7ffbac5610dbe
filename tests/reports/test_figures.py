"""What is drawn, where, and that files are whole and repeatable."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from sdm_lightning.reports.figures import (
    iteration_curves,
    panels,
    row_dots,
    save_figure,
    schedule_curves,
)
from sdm_lightning.reports.paper import read_paper_table, with_own_rows


def picture(value: int, size: int = 8) -> np.ndarray:
    return np.full((size, size, 3), value, np.uint8)


def test_panels_show_each_picture_in_its_place() -> None:
    rows = [[picture(10 * r + c) for c in range(3)] for r in range(2)]
    figure = panels(rows, ["a", "b", "c"], ["first", "second"], "below")
    shown = [axes.get_images()[0].get_array() for axes in figure.axes]
    assert [int(array[0, 0, 0]) for array in shown] == [0, 1, 2, 10, 11, 12]
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", "", "", ""]
    lefts = [axes.get_position().x0 for axes in figure.axes]
    tops = [axes.get_position().y1 for axes in figure.axes]
    assert lefts[:3] == lefts[3:]
    assert lefts[0] < lefts[1] < lefts[2]
    assert tops[0] > tops[3]
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 <= b.x0 < b.x1 <= 1 and 0 <= b.y0 < b.y1 <= 1 for b in boxes)


def test_schedule_curves_hold_the_values() -> None:
    progress = np.linspace(0, 1, 4)
    (axes,) = schedule_curves({"linear": progress, "cubic": progress**3}, progress).axes
    lines = {item.get_label(): item for item in axes.get_lines()}
    np.testing.assert_allclose(lines["cubic"].get_ydata(), [0, 1 / 27, 8 / 27, 1])
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["linear", "cubic"]


def line(row: str, iterations: int, seed: int, value: float) -> dict[str, Any]:
    return {
        "table": "table2", "row": row, "num_iterations": iterations, "seed": seed, "scale": "cpu",
        "metrics": {"psnr_hole/p": value}, "protocol": "p",
    }  # fmt: skip


def test_iteration_curves_hold_means_and_deviations() -> None:
    lines = [line("A", t, seed, t + seed) for t in (4, 6) for seed in (0, 2)]
    left, right = iteration_curves(read_paper_table("table2"), lines, ["psnr_hole"], "").axes
    paper = {item.get_label(): list(item.get_ydata()) for item in left.get_lines()}
    assert paper["Model A"] == [2.23, 2.16, 2.12, 2.09, 2.07, 2.05, 2.05]
    (container,) = right.containers
    points, _, (bars,) = container
    assert list(points.get_xdata()) == [4, 6]
    assert list(points.get_ydata()) == [5, 7]
    ends = bars.get_segments()[0]
    assert ends[1][1] - ends[0][1] == pytest.approx(2 * 2**0.5)


def test_curves_of_rows_that_the_paper_does_not_have() -> None:
    lines = [line(f"mine{k}", 4, 0, k) for k in range(6)]
    table = with_own_rows(read_paper_table("table2"), lines)
    left, right = iteration_curves(table, lines, ["psnr_hole"], "").axes
    names = [text.get_text() for text in left.get_legend().get_texts()]
    assert names == ["Model A", "Model B", *(f"mine{k}" for k in range(6))]
    looks = [(c[0].get_color(), c[0].get_marker()) for c in right.containers]
    assert len(set(looks)) == 6


def test_row_dots_show_every_run() -> None:
    lines = [{**line("A", 3, seed, 15.0 + seed), "table": "table1"} for seed in (0, 1)]
    lines += [{**line("D", 3, 0, 14.0), "table": "table1"}]
    paper, ours = row_dots(read_paper_table("table1"), lines, ["psnr_hole"], "").axes
    assert [float(item.get_xdata()[0]) for item in paper.get_lines()] == [
        2.36, 2.95, 2.55, 2.49, 2.45, 2.44, 2.64,
    ]  # fmt: skip
    dots = [list(item.get_xdata()) for item in ours.get_lines() if item.get_marker() == "o"]
    assert dots == [[15.0, 16.0], [], [], [14.0], [], [], []]
    bars = [item for item in ours.get_lines() if item.get_linewidth() == 2]
    assert [bar.get_xdata()[0] for bar in bars] == [15.5, 14.0]
    assert ours.get_xlabel() == "higher is better"


@pytest.mark.skipif(
    matplotlib.__version_info__ < (3, 11), reason="nearest pixels of older versions are one off"
)
@pytest.mark.parametrize("shape", [(8, 8), (64, 64), (128, 128), (300, 450), (512, 512)])
def test_the_png_holds_every_pixel(shape: tuple[int, int], tmp_path: Path) -> None:
    """Two rows of two, one pixel of the picture as a square of the file's pixels."""
    given = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    given[0, 0] = corner = (255, 0, 255)
    path, _ = save_figure(panels([[given] * 2] * 2, ["a", "b"], ["c", "d"]), tmp_path / "f")
    found = np.asarray(Image.open(path).convert("RGB"))
    factor = -(-233 // shape[0])
    expected = given.repeat(factor, 0).repeat(factor, 1)
    rows, columns = (found == corner).all(axis=2).nonzero()
    assert len(rows) == 4 * factor**2
    for top, left in ((rows[0], columns[0]), (rows[-1] - factor + 1, columns[-1] - factor + 1)):
        crop = found[top : top + expected.shape[0], left : left + expected.shape[1]]
        assert (crop == expected).all()


def test_very_large_pictures_make_no_larger_figure() -> None:
    figure = panels([[picture(3, 3000)] * 5] * 2, list("abcde"))
    assert max(figure.get_size_inches()) * figure.dpi == pytest.approx(8000)


def test_a_mask_without_holes_has_a_frame(tmp_path: Path) -> None:
    path, _ = save_figure(panels([[np.ones((64, 64), bool)]], [""]), tmp_path / "f")
    dark = np.asarray(Image.open(path).convert("L")) < 250
    assert all((dark.sum(axis=k) > 200).sum() >= 2 for k in (0, 1)), "both sides, top and bottom"


def test_files_are_whole_and_repeatable(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        paths = save_figure(panels([[picture(3)]], ["x"]), tmp_path / "f" / "one")
        contents.append([path.read_bytes() for path in paths])
    assert [path.name for path in paths] == ["one.png", "one.pdf"]
    assert contents[0] == contents[1]
    assert contents[0][1].startswith(b"%PDF")
    assert b"/Type3" not in contents[0][1]
    assert not list((tmp_path / "f").glob(".*"))
