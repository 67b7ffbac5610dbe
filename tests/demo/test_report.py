import base64
import csv
import json
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.cli.errors import user_errors
from sdm_lightning.demo.report import write_report
from sdm_lightning.demo.report_data import read_run, verdict
from sdm_lightning.errors import InputError

SCORES = {
    "SDM, 1 iteration": {"psnr_hole": 17.0, "l1_hole": 0.1, "psnr": 21.0, "ssim": 0.7},
    "SDM, 2 iterations": {"psnr_hole": 16.0, "l1_hole": 0.11, "psnr": 20.0, "ssim": 0.71},
    "mean": {"psnr_hole": 14.1, "l1_hole": 0.18, "psnr": 18.7, "ssim": 0.62},
    "telea": {"psnr_hole": 17.86, "l1_hole": 0.095, "psnr": 22.4, "ssim": 0.75},
    "navier-stokes": {"psnr_hole": 16.04, "l1_hole": 0.094, "psnr": 22.5, "ssim": 0.74},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A demo run as ``sdm demo`` leaves it, with pictures of noise."""
    folder = tmp_path / "run-1"
    rng = np.random.default_rng(0)

    def picture(path: Path, height: int = 8, width: int = 8) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)

    for index in range(2):
        names = ["input", "target", "mean", "telea", "navier-stokes"]
        names += [f"{kind}{k}" for kind in ("step", "state", "uncertainty") for k in (1, 2)]
        for name in names:
            picture(folder / "pictures" / f"{index:02d}" / f"{name}.png")
    for place in ("photos", "photo-inputs", "inpainted"):
        picture(folder / place / "coffee.png", 20, 30)
    comparison = {
        "scores": SCORES,
        "error_by_uncertainty": [0.05 * (k + 1) for k in range(10)],
        "num_images": 24,
        "hole_ratio": 0.41,
        "keys": ["0000-coffee", "0001-<cat>"],
        "masks": "mat256_large",
    }
    facts = {
        "start": "scratch", "minutes": 1.0, "seed": 3, "comparison": comparison,
        "commands": [{"command": "sdm fit --config a.yaml && rm", "seconds": 61.2}],
        "seconds": 125.0, "time": "2030-01-01 00:00",
    }  # fmt: skip
    (folder / "demo.json").write_text(json.dumps(facts))
    record = {
        "metrics": {"psnr_hole/custom": 16.0, "uncertainty_error_correlation/custom": 0.4},
        "num_images": 24, "num_parameters": 1_500_000, "num_iterations": 2, "train_iterations": 2,
        "images_seen": 4321, "masks_digest": "m" * 64, "images_digest": "i" * 64,
        "checkpoint": {"sha256": "c" * 64}, "versions": {"torch": "2.6"}, "git_commit": "abc",
        "hardware": {"cpu": "Z80", "cores": 2, "gpus": []},
    }  # fmt: skip
    (folder / "results.jsonl").write_text("{}\n" + json.dumps(record) + "\n")
    with (folder / "metrics.csv").open("w", newline="") as file:
        names = ["images_seen", "train/perceptual[pixel-pyramid]", "train/r1", "val/psnr_hole"]
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([["8", "0.5", "", ""], ["", "", "", "12.5"], ["16", "0.25", "0.1", ""]])
    return folder


class Reader(HTMLParser):
    """Collects what a browser would load, and checks that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("img", "meta", "input"):
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_needs_no_network(run: Path, tmp_path: Path) -> None:
    text = write_report(run, tmp_path).read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.sources
    assert all(source.startswith("data:image/") for source in reader.sources)
    assert not re.search(r"url\(|@import|https?://", text)
    for source in reader.sources:
        with Image.open(BytesIO(base64.b64decode(source.split(",")[1]))) as image:
            image.load()


def test_the_page_says_what_the_files_say(run: Path, tmp_path: Path) -> None:
    reader = Reader()
    reader.feed(write_report(run, tmp_path).read_text(encoding="utf-8"))
    text = " ".join(" ".join(reader.text).split())
    for expected in (
        "16.0 dB", "+1.9 dB", "-1.9 dB", "4,321", "mat256_large", "24 held-out windows", "Z80",
        "sdm fit --config a.yaml && rm", "perceptual[pixel-pyramid]", "No FID, P-IDS, U-IDS, LPIPS",
        "10.0 times as large", "0.40", "coffee: a spoon", "1 minute, to 4,321", "2 min 5 s",
        "Stefan van der Walt", "1.5 M parameters, 64×64) trained on about a dozen",
    ):  # fmt: skip
        assert expected in text, expected
    assert "Validation" not in text  # one point is no curve


def test_verdict_names_ahead_behind_and_level(run: Path) -> None:
    assert verdict(read_run(run).scores, "SDM, 2 iterations") == (
        "16.0 dB in the hole: 1.9 dB ahead of filling with the mean colour (14.1), 1.9 dB behind "
        "OpenCV Telea (17.9) and level with OpenCV Navier-Stokes (16.0)."
    )


def test_curves_give_validations_the_clock_of_the_training_before_them(run: Path) -> None:
    curves = read_run(run).curves
    assert curves["val/psnr_hole"] == ([8.0], [12.5])
    assert curves["perceptual[pixel-pyramid]"] == ([8.0, 16.0], [0.5, 0.25])


@pytest.mark.parametrize("name", ["demo.json", "metrics.csv", "results.jsonl"])
def test_a_run_that_stopped_half_way_is_named(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(InputError, match=name):
        read_run(run)


def test_a_full_disk_leaves_the_earlier_report(run, tmp_path, room_for, capsys) -> None:
    page = write_report(run, tmp_path)
    before = page.read_bytes()
    capsys.readouterr()
    with room_for(10_000), pytest.raises(SystemExit) as stopped, user_errors():
        write_report(run, tmp_path)
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {page}: File too large; earlier files are intact")
    assert page.read_bytes() == before
    assert list(tmp_path.glob("*.*")) == [page]
