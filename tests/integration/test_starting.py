"""Fine-tuning by one flag, and weights of a run that is named by its directory."""

import numpy as np
import pytest
import torch
from PIL import Image

from sdm_lightning.cli.main import main


def part(saved, prefix):
    return {k: value for k, value in saved["state_dict"].items() if k.startswith(prefix)}


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    mask = np.full((20, 24), 255, np.uint8)
    mask[5:12, 6:14] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return str(tmp_path / "photo.png"), str(tmp_path / "mask.png")


def test_a_run_starts_from_another_by_one_flag(sdm, photo, tmp_path):
    first = sdm("fit", "--budget.max_images=8", name="first")
    # lr 0: what the second run holds at its end is what it started from.
    frozen = ["--model.optimizer_g.lr=0", "--model.optimizer_d.lr=0", "--seed_everything=5"]
    source = torch.load(first / "checkpoints" / "last.ckpt", weights_only=True)
    for start in (first, first / "checkpoints" / "last.ckpt"):
        second = sdm("fit", *frozen, f"--start_from={start}", "--budget.max_images=4",
                     name=f"from-{start.name}")  # fmt: skip
        saved = torch.load(second / "checkpoints" / "last.ckpt", weights_only=True)
        for name, value in part(source, "generator_ema.").items():
            if "mapping.average" in name:
                continue  # moves without the optimizer
            torch.testing.assert_close(saved["state_dict"][name], value)
            live = name.replace("generator_ema.", "generator.")
            assert torch.equal(saved["state_dict"][live], value)
        theirs = part(source, "discriminator.")
        for name, value in part(saved, "discriminator.").items():
            assert torch.equal(value, theirs[name])
        # The budget is this run's; the clock goes on, for the average's ramp.
        assert (saved["images_seen"], saved["images_before"]) == (12, 8)

    # Going on takes the run's own checkpoint, and its budget is still its own.
    again = sdm("fit", *frozen, f"--start_from={first}", "--ckpt_path=last",
                "--budget.max_images=8", name=second.name)  # fmt: skip
    saved = torch.load(again / "checkpoints" / "last.ckpt", weights_only=True)
    assert (saved["images_seen"], saved["images_before"]) == (16, 8)

    # Its config serves other commands, and a directory serves for weights.
    sdm("test", "--config", str(again / "config.yaml"), name=second.name)
    main(["inpaint", *photo, "--weights", str(again), "--output", str(tmp_path / "filled.png")])
    assert Image.open(tmp_path / "filled.png").size == (24, 20)


def test_a_wrong_start_is_one_line(sdm, capsys):
    with pytest.raises(SystemExit):
        sdm("fit", "--start_from=nowhere")
    assert "error: nowhere: no such weights" in capsys.readouterr().err
