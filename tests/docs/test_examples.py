"""Every example of docs/extend, run as it is printed: its files, then its commands."""

import csv
import io
import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdm_lightning import Inpainter
from sdm_lightning.cli.main import main
from sdm_lightning.reports.results import read_result_lines

PAGES = Path(__file__).parents[2] / "docs" / "extend"
README = (PAGES.parents[1] / "README.md").read_text()
BLOCK = re.compile(r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def commands(script):
    """Split a shell block into the words of each command."""
    lines = script.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def run(words):
    if words[0] == "sdm":
        main(words[1:])
    elif words[0] == "export":
        os.environ.update([words[1].split("=")])
    else:
        program, script = words
        assert program == "python", words
        runpy.run_path(script, run_name="__main__")


@pytest.fixture
def project(workdir, tiny_images, tiny_shards, monkeypatch):
    """A working directory with photos, packed as the first page says, and a photo to fill."""
    (workdir / "shards").mkdir()
    (workdir / "shards" / "mine").symlink_to(tiny_shards)
    (workdir / "my_photos").symlink_to(tiny_images)
    photo = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    mask = np.full((40, 56), 255, np.uint8)
    mask[12:30, 16:40] = 0
    Image.fromarray(photo).save("photo.png")
    Image.fromarray(mask).save("mask.png")
    monkeypatch.syspath_prepend(workdir)
    monkeypatch.setenv("SDM_TRUSTED_PACKAGES", "")
    before = set(sys.modules)
    yield workdir
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(workdir)):
            del sys.modules[name]


def run_page(name, project):
    """Write the page's titled files and run its shell blocks, in the order of the page."""
    text = (PAGES / f"{name}.md").read_text()
    for language, title, block in BLOCK.findall(text):
        if title:
            (project / title).write_text(block)
        elif language == "bash":
            for words in commands(block):
                run(words)


def logged(project, name):
    """Return the logged numbers of a run: name -> last value."""
    with (project / "runs" / name / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key: float(value) for row in rows for key, value in row.items() if value}


def checkpoint(project, name):
    path = project / "runs" / name / "checkpoints" / "last.ckpt"
    return torch.load(path, map_location="cpu", weights_only=True)


def test_every_page_has_a_test():
    tested = {"network", "loss", "schedule", "picking", "data", "score"}
    assert {page.stem for page in PAGES.glob("*.md")} == {"index"} | tested


def test_schedule(project, capsys):
    run_page("schedule", project)
    output = capsys.readouterr().out
    for name in ("late", "later"):
        schedule = checkpoint(project, name)["hyper_parameters"]["diffusion"]["init_args"][
            "schedule"
        ]
        assert schedule["class_path"] == "my_schedules.Power"
        assert schedule["init_args"] == {"exponent": 3.0}
    # (t / 4) ** 3 of the 432 pixels of the hole.
    for known in ("0.02", "0.12", "0.42", "1.00"):
        assert f"{known} of the hole is known" in output


def test_picking(project, capsys):
    run_page("picking", project)
    diffusion = checkpoint(project, "regions")["hyper_parameters"]["diffusion"]
    assert diffusion["class_path"] == "my_picking.RegionDiffusion"
    assert diffusion["init_args"]["size"] == 5
    assert diffusion["init_args"]["alpha"] == 0.01, "settings of the config it replaces are kept"
    shown = re.findall(r"(\d+) pixels in (\d+) regions", capsys.readouterr().out)
    (pixels, single), (_, wide) = [map(int, line) for line in shown]
    assert pixels == 108, "a quarter of the hole of 432 pixels"
    assert 0 < wide <= single


def test_loss(project):
    run_page("loss", project)
    assert 0 < logged(project, "gradient")["train/perceptual[gradient]"] < 2
    weighted = [key for key in logged(project, "weighted") if "perceptual" in key]
    assert len(weighted) == 1
    assert "gradient" in weighted[0]
    assert "pixel-pyramid" in weighted[0]
    assert 0 < logged(project, "calibrated")["train/calibration"] < 2
    settings = checkpoint(project, "calibrated")["hyper_parameters"]
    assert settings["terms"] == [
        {"class_path": "my_terms.Calibration", "init_args": {"largest": 2.0, "weight": 0.1}}
    ]
    run(
        shlex.split("""sdm test --config runs/calibrated/config.yaml --data.test shards/mine
        --evaluation.max_padding 1 --ckpt_path runs/calibrated/checkpoints/last.ckpt""")
    )
    (project / "my_terms.py").unlink()  # who uses the weights does not need the class
    run(shlex.split("sdm inpaint photo.png mask.png --weights runs/calibrated"))


def test_network(project):
    run_page("network", project)
    generator = checkpoint(project, "plain")["hyper_parameters"]["generator"]
    assert generator["class_path"] == "my_networks.PlainGenerator"
    before, after = (
        np.asarray(Image.open(name)).astype(int) for name in ("photo.png", "filled.png")
    )
    known = np.asarray(Image.open("mask.png")) == 255
    assert (before == after)[known].all()
    assert (before != after)[~known].any(axis=-1).mean() > 0.9
    assert (project / "plain.safetensors").is_file()
    # The model's own settings, which the scale of a CPU replaces in part.
    real = """sdm fit --config configs/model/sdm_256.yaml --config plain.yaml --name real
        --model.perceptual sdm_lightning.losses.PixelPyramidLoss --data.train shards/mine
        --data.resolution 32 --data.batch_size 2 --data.num_workers 0 --data.train_masks lama_thick
        --trainer.accelerator cpu --trainer.limit_val_batches 0 --budget.max_images 2"""
    run(shlex.split(real))
    assert checkpoint(project, "real")["images_seen"] == 2


def test_score(project, capsys):
    pixels = np.random.default_rng(1).integers(0, 200, (6, 32, 32, 3), dtype=np.uint8)
    for folder, change in (("originals", 0), ("results", 8)):
        (project / folder).mkdir()
        for number, image in enumerate(pixels):
            image = image.copy()
            image[:16] += np.uint8(change)
            Image.fromarray(image).save(project / folder / f"{number}.png")
    (project / "masks").mkdir()
    mask = np.full((32, 32), 255, np.uint8)
    mask[:16] = 0
    for number in range(6):
        Image.fromarray(mask).save(project / "masks" / f"{number}.png")
    (project / "shards" / "mine").unlink()
    run(shlex.split("sdm shards originals shards/mine"))
    run_page("score", project)
    assert re.search(r"hole_colour/custom +8\.0000 +6  lower is better", capsys.readouterr().out)
    (tested,) = read_result_lines(project / "runs" / "mine" / "results.jsonl")
    (evaluated,) = read_result_lines(project / "results.jsonl")
    assert evaluated["metrics"]["hole_colour/custom"] == 8
    assert 0 < tested["metrics"]["hole_colour/custom"] < 255
    for record in (tested, evaluated):
        assert record["counts"]["hole_colour/custom"] == 6
        assert record["better"] == {"hole_colour": "lower"}


def test_data(project, capsys):
    run_page("data", project)
    assert "16 samples in 2 shards" in capsys.readouterr().out.replace("images", "samples")
    assert checkpoint(project, "own-images")["images_seen"] == 16
    assert checkpoint(project, "arrays")["images_seen"] == 16
    assert checkpoint(project, "own-masks")["images_seen"] == 16
    drawn = [np.asarray(Image.open(path)) for path in sorted(Path("test_masks").glob("*.png"))]
    assert len({mask.tobytes() for mask in drawn}) == 16
    assert set(np.unique(drawn)) == {0, 255}
    assert Inpainter.from_pretrained("mine.safetensors").info.images_seen == 16
    assert Image.open("filled.png").size == (56, 40)


def test_serving(project):
    text = (PAGES.parent / "deploy.md").read_text()
    (script,) = [block for _, title, block in BLOCK.findall(text) if title == "fill.py"]
    scope: dict = {}
    exec(compile(script, "fill.py", "exec"), scope)
    filled, holes = scope["fill"](Path("photo.png").read_bytes(), Path("mask.png").read_bytes())
    assert Image.open(io.BytesIO(filled)).size == (56, 40)
    assert [hole["box"] for hole in holes] == [[16, 12, 24, 18]]
    assert 0 < holes[0]["certainty"] < 1


def test_readme_python(project):
    (block,) = [text for language, _, text in BLOCK.findall(README) if language == "python"]
    Image.open("photo.png").save("photo.jpg")
    exec(compile(block, "README.md", "exec"), {})
    assert Image.open("filled.png").size == (56, 40)
