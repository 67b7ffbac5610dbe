"""``sdm figure``: figures of folders, models and result lines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.cli import figures
from sdm_lightning.errors import InputError
from tests.reports.test_figures import line


def folders(tmp_path: Path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks", "mat", "wrong"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        pixels = rng.integers(0, 255, (16, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(255 - pixels).save(tmp_path / "mat" / f"{name}.png")
        Image.fromarray(pixels[:8]).save(tmp_path / "wrong" / f"{name}.png")
        mask = np.full((16, 24), 255, np.uint8)
        mask[4:8, 6:9] = 0
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    return {name: str(tmp_path / name) for name in ("images", "masks", "mat", "wrong")}


def test_side_by_side_from_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folders(tmp_path)
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, stem: drawn.append(figure) or [])
    figures.draw_figure("fig8", images=place["images"], masks=place["masks"],
                        methods={"MAT": place["mat"]})  # fmt: skip
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes[:3]] == ["input", "original", "MAT"]
    given, original, mat = (np.asarray(a.get_images()[0].get_array()) for a in figure.axes[:3])
    assert (given[5, 7] == figures.GREY).all()
    assert (given[0, 0] == original[0, 0]).all()
    assert (mat == 255 - original).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fig8", {}, "needs images, masks and methods"),
        ("fig8", {"methods": "wrong"}, "a.png: 24x8 pixels, but the original has 24x16"),
        ("fig8", {"methods": "none"}, "none: does not exist"),
        ("fig5", {"weights": "x.ckpt"}, "fig5 compares models"),
        ("fig2", {"weights": {"a": "demo", "b": "demo"}}, "fig2 shows one model, weights name 2"),
    ],
)
def test_bad_input(tmp_path: Path, name: Any, options: dict[str, Any], message: str) -> None:
    place = {**folders(tmp_path), "none": str(tmp_path / "none")}
    if "methods" in options:
        label = options["methods"]
        options = {
            "methods": {label: place[label]},
            "images": place["images"],
            "masks": place["masks"],
        }
    with pytest.raises(InputError, match=message):
        figures.draw_figure(name, output=str(tmp_path / "out"), **options)


def test_examples_need_masks_of_their_size(tmp_path: Path) -> None:
    place = folders(tmp_path)
    with pytest.raises(InputError, match="masks is missing"):
        figures.read_examples(place["images"], None, 2, 0)
    Image.new("L", (6, 6)).save(tmp_path / "masks" / "a.png")
    cut, _ = figures.read_examples(place["images"], place["masks"], 2, 0)
    picture = np.asarray(Image.open(Path(place["images"], "a.png")))
    assert (cut.image == picture[5:11, 9:15]).all(), "the square of sdm evaluate"
    Image.new("L", (6, 5)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(InputError, match=r"a.png: its size is not that of .*a.png"):
        figures.read_examples(place["images"], place["masks"], 2, 0)


def test_model_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Iterations, process, ablation and samples of an untrained network: layout and content."""
    from sdm_lightning.diffusion import SpatialDiffusion
    from sdm_lightning.inference import Inpainter
    from sdm_lightning.models import Generator

    network = Generator(
        base_channels=4, max_channels=8, num_downsamples=2, attention_strides=(4,),
        attention_heads=2, latent_dim=8, mapping_layers=1, bias_channels=4,
    )  # fmt: skip
    model = Inpainter(network, SpatialDiffusion(num_iterations=3, alpha=0.5), work_size=16)
    monkeypatch.setattr(figures, "_models", lambda *_: {"x": model, "y": model})
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, stem: drawn.append(figure) or [])
    for name in ("fig2", "fig3", "fig5", "fig6"):
        figures.draw_figure(name, num_images=2, num_samples=2)  # type: ignore[arg-type]
    titles = [[a.get_title() for a in f.axes if a.get_title()] for f in drawn]
    assert titles[0] == ["input", "iteration 1", "iteration 2", "iteration 3", "original"]
    assert titles[1] == ["t = 0", "t = 1", "t = 2", "t = 3"]
    assert titles[2] == ["input", "x", "y", "original"]
    assert titles[3] == ["input", "sample 1", "sample 2", "deviation", "original"]
    masks = [np.asarray(a.get_images()[0].get_array()) for a in drawn[1].axes[8:]]
    holes = [int((~mask.astype(bool)).sum()) for mask in masks]
    assert holes[0] > holes[1] > holes[2] > holes[3] == 0
    assert holes[0] - holes[1] == pytest.approx(holes[0] / 3, abs=1)
    x, y = (np.asarray(drawn[2].axes[k].get_images()[0].get_array()) for k in (1, 2))
    assert (x == y).all()
    samples = [np.asarray(drawn[3].axes[k].get_images()[0].get_array()) for k in (1, 2)]
    assert (samples[0] != samples[1]).any()


def test_table2_from_lines(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text("".join(json.dumps(line("B", t, 0, 10 + t)) + "\n" for t in range(4, 11)))
    figures.draw_figure("table2", output=str(tmp_path), results=[str(file)])
    assert Image.open(tmp_path / "table2.png").width > 800
    figures.draw_figure("table4", output=str(tmp_path), results=[str(file)])
    assert (tmp_path / "table4.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_a_figure_has_the_rows_and_notes_of_its_table(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps({**line("mine", 4, 0, 15.0), "table": name, "images_seen": 7}))
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, stem: drawn.append(figure) or [])
    figures.draw_figure(name, results=[str(file)])
    figures.draw_figure(name, results=[str(file)], scale="smal")
    ours, none = (" ".join(figure.texts[0].get_text().split()) for figure in drawn)
    assert [15.0] in [list(item.get_xdata() if name == "table1" else item.get_ydata())
                      for item in drawn[0].axes[1].get_lines()]  # fmt: skip
    assert "scale cpu; 7 images seen; protocol p" in ours
    assert "No run has scale smal; there are runs of scale cpu." in none
    with pytest.raises(InputError, match="no result has 'psnr'; there are psnr_hole"):
        figures.draw_figure(name, results=[str(file)], metrics=["psnr"])


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_what_a_figure_leaves_out_is_said(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{**line("A", 4, seed, 15.0), "table": name} for seed in (0, 1)]
    lines += [{**x, "row": "B", "metrics": {"psnr_hole/p": "nan"}} for x in lines]
    lines[0]["masks_digest"] = lines[1]["masks_digest"] = "1"
    file = tmp_path / "r.jsonl"
    file.write_text("".join(json.dumps(found) + "\n" for found in lines))
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, stem: drawn.append(figure) or [])
    figures.draw_figure(name, output=str(tmp_path), results=[str(file)])
    (notes,) = (" ".join(text.get_text().split()) for text in drawn[0].texts)
    assert "Not finite and left out: 2 value(s)." in notes
    assert "Rows without masks_digest, whose masks may not be those of the others: B." in notes
    lines[2]["masks_digest"] = lines[3]["masks_digest"] = "2"
    file.write_text("".join(json.dumps(found) + "\n" for found in lines))
    with pytest.raises(InputError, match="its rows differ in masks_digest"):
        figures.draw_figure(name, output=str(tmp_path), results=[str(file)])
