import itertools
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sdm_lightning.cli.main import main
from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.errors import InputError
from sdm_lightning.inference import Inpainter, Inpainting, WeightsInfo, load_generator
from sdm_lightning.inference.calibrate import calibrate, draw, fit, score_window
from sdm_lightning.inference.certainty import (
    Calibration,
    HoleDeviations,
    calibration_file,
    read_calibration,
    write_calibration,
)
from sdm_lightning.inference.locating import DEFAULT_WEIGHTS
from tests.inference.conftest import Recorder

DOCS = Path(__file__).parents[2] / "docs"

RNG = np.random.default_rng(0)
CALIBRATION = Calibration(2.0, 3.0, 0.1, "0" * 64, 20, 100, 0.8, 0.9, 0.02)


def test_each_hole_has_the_mean_deviation_of_its_pixels(recorder: Recorder) -> None:
    known = np.ones((16, 16), bool)
    known[2:5, 0:2] = False
    known[10:14, 8:16] = False
    known[9, 7] = False  # touches the second by a corner
    deviations = HoleDeviations(known)
    inpainter = Inpainter(recorder, SpatialDiffusion(num_iterations=3))
    inpainter(np.zeros((16, 16, 3), np.uint8), known, num_samples=2, on_step=deviations)
    # The Recorder's log variance runs from -4 to 0 from left to right.
    columns = np.exp(np.linspace(-4, 0, 16) / 2)
    expected = [columns[:2].mean(), (columns[7] + 4 * columns[8:].sum()) / 33]
    for sample in (0, 1):
        np.testing.assert_allclose(deviations.means(sample), expected, rtol=1e-5)
    worst, best = deviations.records(0, CALIBRATION)
    assert (worst["box"], worst["pixels"]) == ([7, 9, 9, 5], 33)
    assert (best["box"], best["pixels"]) == ([0, 2, 2, 3], 6)
    logit = 2 + 3 * np.log(expected[1])
    assert worst["certainty"] == pytest.approx(1 / (1 + np.exp(logit)), abs=1e-4)
    assert worst["certainty"] < best["certainty"]
    assert deviations.records(0, None)[0]["certainty"] is None
    assert HoleDeviations(np.ones((4, 4), bool)).records(0, None) == []


def test_deviations_of_shrunken_cut_outs_add_up_to_every_hole(recorder: Recorder) -> None:
    known = RNG.random((90, 120)) < 0.97
    known[10:60, 20:80] = False
    deviations = HoleDeviations(known)
    Inpainter(recorder, work_size=24)(np.zeros((90, 120, 3), np.uint8), known, on_step=deviations)
    means = deviations.means(0)
    # Between the smallest and the largest that the Recorder answers: no pixel is left out.
    assert means.min() > np.exp(-2) - 1e-3
    assert means.max() < 1 + 1e-3
    assert deviations.pixels.sum() == (~known).sum()


def test_a_calibration_belongs_to_its_weights(tiny_weights: Path) -> None:
    _, info = load_generator(tiny_weights)
    path = calibration_file(info.path)
    assert read_calibration(info) is None
    try:
        write_calibration(path, CALIBRATION)
        assert read_calibration(info) is None  # of other weights
        own = replace(CALIBRATION, weights_sha256=info.sha256)
        write_calibration(path, own)
        assert read_calibration(info) == own
        raw = replace(info, parameters="raw")
        assert read_calibration(raw) == own, "a file of raw weights was itself calibrated"
        path.write_text("{}")
        with pytest.raises(InputError, match=r"tiny.safetensors.certainty.json: not written by"):
            read_calibration(info)
    finally:
        path.unlink()


def test_raw_weights_of_a_checkpoint_are_not_those_that_were_calibrated(
    tiny_weights: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "last.ckpt"
    info = replace(load_generator(tiny_weights)[1], path=checkpoint)
    own = replace(CALIBRATION, weights_sha256=info.sha256)
    write_calibration(calibration_file(checkpoint), own)
    assert read_calibration(replace(info, parameters="ema")) == own
    assert read_calibration(replace(info, parameters="raw")) is None


def test_copies_of_the_weights_keep_the_calibration(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(tiny_weights.read_bytes())
    own = replace(CALIBRATION, weights_sha256=load_generator(weights)[1].sha256)
    write_calibration(calibration_file(weights), own)
    main(["export", str(weights), str(tmp_path / "copy.safetensors"), "--half", "true"])
    Inpainter.from_pretrained(weights).save_pretrained(tmp_path / "repository")
    for copy in ("copy.safetensors", "repository"):
        assert read_calibration(Inpainter.from_pretrained(tmp_path / copy).info) == own
    # Made anew for the copy: that one counts.
    path, info = tmp_path / "copy.safetensors", load_generator(tmp_path / "copy.safetensors")[1]
    anew = replace(own, slope=1.0, weights_sha256=info.sha256)
    write_calibration(calibration_file(path), anew)
    assert read_calibration(info) == anew


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"intercept": "x"}, "intercept is 'x'"),
        ({"slope": None}, "slope is None"),
        ({"slope": float("nan")}, "slope is nan"),
        ({"auroc": True}, "auroc is True"),
        ({"bad_error": 10**400}, "bad_error is 1000"),
        ({"weights_sha256": 1}, "weights_sha256 is 1"),
        ({"more": 1}, "more"),
    ],
)
def test_values_that_no_calibration_has(tmp_path: Path, changes: dict, says: str) -> None:
    content = {**asdict(CALIBRATION), **changes}
    info = WeightsInfo({}, {}, tmp_path / "w.safetensors")
    inside = replace(info, extra={"calibration": content})
    with pytest.raises(InputError, match=rf"w\.safetensors: the calibration inside: .*{says}"):
        read_calibration(inside)
    beside = calibration_file(info.path)
    for text in (json.dumps(content), "[" * 100_000):
        beside.write_text(text)
        with pytest.raises(InputError, match=r"w\.safetensors\.certainty\.json: not written by"):
            read_calibration(info)


@pytest.mark.parametrize("weights", ["demo", "photos-128"])
def test_the_packaged_calibration_is_that_of_the_packaged_weights(weights: str) -> None:
    _, info = load_generator(weights)
    calibration = read_calibration(info)
    if calibration is None:
        pytest.skip(f"{weights} is newer than its calibration: run sdm calibrate")
    assert calibration.auroc > 0.8


def test_the_documented_certainties_are_those_of_the_default_weights() -> None:
    calibration = read_calibration(load_generator(DEFAULT_WEIGHTS)[1])
    page = (DOCS / "certainty.md").read_text()
    pairs = re.findall(r'"deviation": ([\d.]+), "certainty": ([\d.]+)', page)
    assert len(pairs) == 2
    for deviation, certainty in pairs:
        assert calibration.certainty(float(deviation)) == pytest.approx(float(certainty), abs=1e-4)


def test_the_fit_recovers_a_known_function() -> None:
    """Errors drawn around a power of the deviation: probabilities are right on average."""
    groups = np.repeat(np.arange(100), 40).astype(float)
    deviations = np.exp(RNG.normal(-2, 0.7, 4000))
    errors = 0.5 * deviations * np.exp(RNG.normal(0, 0.5, 4000))
    calibration, probability = fit(groups, deviations, errors, "a")
    assert calibration.bad_error == pytest.approx(np.quantile(errors, 0.75))
    # The sum of two normal deviations: correlation 0.7 / sqrt(0.7^2 + 0.5^2) = 0.81.
    assert calibration.spearman == pytest.approx(0.81, abs=0.03)
    assert calibration.calibration_error < 0.03
    assert probability.mean() == pytest.approx(0.25, abs=0.01)
    # At the deviation whose median error is bad_error, half the fillings are bad.
    assert calibration.certainty(2 * calibration.bad_error) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("lowest", [0.03, 0.06])
def test_the_figures_labels_do_not_overlap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lowest: float
) -> None:
    charts = []
    monkeypatch.setattr(Figure, "savefig", lambda chart, *args, **options: charts.append(chart))
    values = np.linspace(lowest, 0.55, 40)
    draw(tmp_path / "figure.png", values, values, values, CALIBRATION)
    charts[0].draw_without_rendering()
    axis = charts[0].axes[0].xaxis
    low, high = axis.get_view_interval()
    extents = sorted(
        tuple(tick.label1.get_window_extent().intervalx)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        if low <= tick.get_loc() <= high and tick.label1.get_text()
    )
    assert len(extents) >= 2
    assert all(one[1] < other[0] for one, other in itertools.pairwise(extents))


def test_holes_that_are_all_alike_are_refused() -> None:
    same = np.ones(50)
    with pytest.raises(InputError, match="50 holes are too few or too alike"):
        fit(np.arange(50.0), same, same, "a")
    with pytest.raises(InputError, match="50 holes are too few or too alike"):
        fit(np.arange(50.0), same, RNG.random(50), "a")


def test_calibrate_and_the_json_of_inpaint(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    photos, weights = tmp_path / "photos", tmp_path / "own.safetensors"
    photos.mkdir()
    weights.write_bytes(tiny_weights.read_bytes())
    for number in range(12):
        for turn in range(3):
            size = (32, 32) if turn else (50, 40)
            array = RNG.integers(0, 20 * number + 10, (*size, 3)).astype(np.uint8)
            Image.fromarray(array).save(photos / f"p{number}-{turn}.png")
    (photos / "p3-2.png").write_bytes(b"no picture")
    Image.fromarray(array[:20]).save(photos / "p4-2.png")
    words = ["calibrate", photos, "--weights", weights, "--windows", 3, "--masks", "lama_medium"]
    main([*map(str, words), "--figure", str(tmp_path / "figure.png")])
    out, err = capsys.readouterr()
    assert f"left out: {photos / 'p3-2.png'}: " in err
    assert f"left out: {photos / 'p4-2.png'}: has 32x20 pixels (WxH); each side needs 32\n" in err
    assert re.search(r"^\d+ holes in 1[012] photos$", out, re.MULTILINE)
    assert Image.open(tmp_path / "figure.png").width > 600
    written = json.loads((tmp_path / "own.safetensors.certainty.json").read_text())
    assert f"(AUROC): {written['auroc']:.3f}" in out
    with pytest.raises(SystemExit):
        main([*map(str, words)])
    assert capsys.readouterr().err == (
        f"error: {weights}.certainty.json: exists already; --overwrite true replaces it\n"
    )

    photo = photos / "p3-1.png"
    main(["inpaint", str(photo), "--box", "2,3,8,9", "--box", "20,20,4,4", "--json",
          "--weights", str(weights)])  # fmt: skip
    (sample,) = json.loads(capsys.readouterr().out)["photos"][0]["samples"]
    assert {tuple(hole["box"]) for hole in sample["holes"]} == {(2, 3, 8, 9), (20, 20, 4, 4)}
    for hole in sample["holes"]:
        expected = 1 / (
            1 + np.exp(written["intercept"] + written["slope"] * np.log(hole["deviation"]))
        )
        assert hole["certainty"] == pytest.approx(expected, abs=2e-3)


def test_photos_are_read_as_a_viewer_shows_them(recorder: Recorder, tmp_path: Path) -> None:
    """Grey of 16 bits, EXIF orientation, transparency; windows keep their pixels."""
    seen: list[np.ndarray] = []
    inpainter = Inpainter(recorder)

    def fill(truth: np.ndarray, known: np.ndarray, **options: Any) -> Inpainting:
        seen.append(truth)
        return inpainter(truth, known, **options)

    window = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    ramp = np.repeat(np.linspace(0, 65535, 32).astype(np.uint16)[None], 32, axis=0)
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    clear = Image.fromarray(window)
    clear.putalpha(0)
    Image.fromarray(window).save(tmp_path / "window.png")
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    Image.fromarray(window).save(tmp_path / "turned.png", exif=turned)
    clear.save(tmp_path / "clear.png")
    known = np.ones((32, 32), bool)
    known[8:20, 8:20] = False
    for name in ("window", "ramp", "turned", "clear"):
        score_window(cast(Inpainter, fill), tmp_path / f"{name}.png", known, 0)
    grey = np.rint(ramp / 257).astype(np.uint8)
    expected = [window, np.repeat(grey[:, :, None], 3, axis=2), np.rot90(window, -1),
                np.full_like(window, 255)]  # fmt: skip
    for found, wanted in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("windows", [1, 8])
def test_masks_and_windows_are_spread(
    windows: int, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    presets: list[str] = []
    names: list[str] = []

    def drawn(preset: str, side: int, seed: int) -> np.ndarray:
        presets.append(preset)
        return np.ones((side, side), bool)

    def scored(inpainter: Inpainter, path: Path, known: np.ndarray, seed: int) -> list:
        names.append(path.stem)
        return [(0.1 * len(names), 0.2 * len(names))]

    monkeypatch.setattr("sdm_lightning.inference.calibrate.free_form_mask", drawn)
    monkeypatch.setattr("sdm_lightning.inference.calibrate.score_window", scored)
    for number in range(10):
        for turn in range(15):
            (tmp_path / f"p{number}-{turn:02d}.png").touch()
    calibrate(str(tmp_path), str(tiny_weights), windows=windows, output=str(tmp_path / "c.json"))
    assert presets.count("mat256_small") == presets.count("mat256_large") == 5 * windows
    if windows == 8:
        assert names[:8] == [f"p0-{turn:02d}" for turn in (0, 1, 3, 5, 7, 9, 11, 13)]


def test_too_few_photos(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["calibrate", str(tmp_path)])
    assert capsys.readouterr().err.endswith("holds 0 photos; at least 10 are needed\n")
    for number in range(12):
        (tmp_path / f"photo-{number}.png").touch()
    with pytest.raises(SystemExit):
        main(["calibrate", str(tmp_path)])
    said = capsys.readouterr().err
    assert "holds 1 photos (12 files: NAME-0, NAME-1, ..." in said
    assert "; rename photos that are not); at least 10" in said
    for number in range(12):
        (tmp_path / f"photo{number}.png").touch()
    with pytest.raises(SystemExit):
        main(["calibrate", str(tmp_path)])
    assert "belongs to the installed package; say with --output" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["calibrate", str(tmp_path), "--output", str(tmp_path / "new.json")])
    assert "0 photos could be used; at least 10 are needed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["calibrate", str(tmp_path / "nowhere")])
    assert "nowhere: no such folder" in capsys.readouterr().err
