"""What an offline W&B run holds, read from its file: labels, config, values, media, tables."""

import json
import os
from pathlib import Path

import pytest

from sdm_lightning.errors import DivergedError
from sdm_lightning.evaluation.record import git_commit
from sdm_lightning.reports.results import read_result_lines, wandb_line
from sdm_lightning.training.module import SDMModule

pytest.importorskip("wandb.proto.wandb_internal_pb2")
from tests.integration.offline_wandb import read_offline_runs

LABELS = [
    "--config=configs/logger/wandb.yaml",
    "--evaluation.facts={table: table1, row: B, scale: small}",
    "--evaluation.features=random-conv",
    "--evaluation.protocol=five",
    "--seed_everything=3",
]


def test_offline_run_holds_everything(sdm, monkeypatch):
    monkeypatch.setenv("WANDB_TAGS", "mine,small")
    directory = sdm("fit", *LABELS)
    sdm("test", *LABELS, "--ckpt_path=last")
    fit, test = read_offline_runs(directory)
    for run, command in ((fit, "fit"), (test, "test")):
        assert (run.name, run.exit_code) == ("run", 0)
        assert (run.group, run.job_type) == ("table1/B", command)
        assert run.tags == ["table1", "table1/B", "small", "seed3", "mine"]
        assert run.config["seed_everything"] == 3
        assert run.config["commit"] == git_commit()
        assert run.config["model"]["diffusion"]["init_args"]["num_iterations"] == 2
        assert run.config["evaluation"]["facts"]["row"] == "B"

    seen = [row["images_seen"] for row in fit.history if "train/likelihood" in row]
    assert seen == [2, 4, 6, 8]
    assert any("val/psnr_hole" in row for row in fit.history)
    assert any(row.get("val/samples._type") == "images/separated" for row in fit.history)

    assert any(row.get("test/samples._type") == "images/separated" for row in test.history)
    media = next(directory.glob("wandb/*/files/media/table/test/table_*.table.json"))
    rows = json.loads(media.read_text())["data"]
    written = read_result_lines(directory / "results.jsonl")[-1]
    loop = ("alpha", "schedule", "repredict", "uncertainty_scale", "uncertainty_channels")
    assert [written[name] for name in loop] == [0.01, "UniformSchedule", True, "minmax", "mean"]
    assert {f"{metric}/{protocol}": value for metric, protocol, value in rows} == pytest.approx(
        written["metrics"]
    )
    assert wandb_line(test.summary) == written, "a table can be made of what W&B keeps"
    assert (written["table"], written["row"], written["seed"]) == ("table1", "B", 3)
    assert written["training_seed"] == 3
    assert written["hardware"]["cpu"]


def test_wandb_is_told_of_a_run_that_ended_otherwise(sdm, monkeypatch):
    def diverge(*_):
        raise DivergedError("the model holds NaN")

    monkeypatch.setattr(SDMModule, "_generator_phase", diverge)
    with pytest.raises(SystemExit):
        sdm("fit", *LABELS)
    (run,) = read_offline_runs(Path("runs/run"))
    assert run.exit_code == 1


def test_an_offline_run_leaves_the_next_one_its_mode(sdm, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    sdm("fit", *LABELS, "--budget.max_images=2")
    assert "WANDB_MODE" not in os.environ
