"""Every YAML under configs/ parses, and builds its model and trainer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ProgressBar, Timer
from lightning.pytorch.strategies import DDPStrategy

from sdm_lightning import shipped
from sdm_lightning.cli.configs import max_time
from sdm_lightning.cli.trainer import SDMCommandLine
from sdm_lightning.data.datamodule import batch_share
from sdm_lightning.models import Discriminator
from sdm_lightning.training.checkpointing import AtomicCheckpointIO
from sdm_lightning.training.loggers import MetricsFile

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


def with_bases(path: Path) -> list[Any]:
    """A fit with a config file and those that it needs around it."""
    chosen = {"model": "sdm_256", "data": "demo", "trainer": "cpu", "scale": None}
    chosen[path.parent.name] = None
    words: list[Any] = ["fit"]
    for folder, name in chosen.items():
        if name:
            words += ["--config", CONFIGS / folder / f"{name}.yaml"]
    words += ["--config", path, "--trainer.accelerator=cpu"]
    if path.parent.name == "evaluation":  # without the networks' weights
        words += ["--evaluation.features=random-conv", "--evaluation.lpips=null"]
    return words


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_builds(path: Path, build: Callable[..., SDMCommandLine]) -> None:
    # Scoring networks are built with values: their hash goes into the record.
    cli = build(*with_bases(path), device="cpu" if path.parent.name == "evaluation" else "meta")
    assert isinstance(cli.trainer, pl.Trainer)
    discriminator = cli.model.discriminator
    if isinstance(discriminator, Discriminator):  # others take any size
        assert discriminator.resolution == cli.datamodule.resolution


def test_parameters_of_the_512_model(build: Callable[..., SDMCommandLine]) -> None:
    cli = build(*with_bases(CONFIGS / "model" / "sdm_512.yaml"), "--data.resolution=512")
    count = sum(p.numel() for p in cli.model.generator.parameters())
    assert count == pytest.approx(74e6, rel=0.02)


def test_config_of_the_demo_weights_builds(build: Callable[..., SDMCommandLine]) -> None:
    config = CONFIGS.parent / "sdm_lightning" / "assets" / "demo.config.yaml"
    assert build("fit", "--config", config).datamodule.resolution == 64


def test_defaults_of_the_trainer(build: Callable[..., SDMCommandLine]) -> None:
    trainer = build(*with_bases(CONFIGS / "model" / "demo.yaml")).trainer
    assert trainer.max_epochs == -1
    assert not trainer._accelerator_connector.use_distributed_sampler
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert isinstance(trainer.logger, MetricsFile)
    assert trainer.default_root_dir == "runs/sdm"
    names = [type(c).__name__ for c in trainer.callbacks]  # type: ignore[attr-defined]
    for name in ("ImageBudget", "RunCheckpoint", "EvaluationCallback", "Preemption", "RunRecord"):
        assert names.count(name) == 1


def test_torchrun_inside_slurm_tells_the_ranks(
    build: Callable[..., SDMCommandLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One srun task on each node, which starts torchrun: SLURM knows only of the tasks."""
    slurm = {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
             "SLURM_JOB_NAME": "sdm", "SLURM_NTASKS_PER_NODE": "1"}  # fmt: skip
    elastic = {"TORCHELASTIC_RUN_ID": "1", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4",
               "GROUP_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
               "MASTER_PORT": "12345"}  # fmt: skip
    for name, value in (slurm | elastic).items():
        monkeypatch.setenv(name, value)
    demo = with_bases(CONFIGS / "model" / "demo.yaml")
    trainer = build(*demo, "--trainer.devices=2", "--trainer.num_nodes=2").trainer
    environment = trainer.strategy.cluster_environment  # type: ignore[attr-defined]
    assert type(environment).__name__ == "TorchElasticEnvironment"
    assert environment.global_rank() == 3


def test_launchers_world_size_counts(
    build: Callable[..., SDMCommandLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    trainer = build(*with_bases(CONFIGS / "model" / "demo.yaml")).trainer
    assert isinstance(trainer.strategy, DDPStrategy)


@pytest.mark.parametrize(
    ("minutes", "written"),
    [(0.001, "00:00:00:01"), (2, "00:00:02:00"), (30, "00:00:30:00"), (59.999, "00:01:00:00"),
     (130, "00:02:10:00"), (2000.25, "01:09:20:15")],
)  # fmt: skip
def test_minutes_as_lightning_takes_them(minutes: float, written: str) -> None:
    assert max_time(minutes) == written
    seconds = Timer(written)._duration
    assert seconds == max(1, round(60 * minutes))


def test_wandb_runs_in_the_run_directory(build: Callable[..., SDMCommandLine]) -> None:
    cli = build(*with_bases(CONFIGS / "logger" / "wandb.yaml"), "--name=x")
    metrics_file, wandb_logger = cli.trainer.loggers
    assert isinstance(metrics_file, MetricsFile)
    assert metrics_file.save_dir == "runs/x"
    assert wandb_logger.save_dir == str(Path.cwd() / "runs" / "x")
    saved = [entry.init_args.save_dir for entry in cli.settings.trainer.logger]
    assert not any(
        "runs/x" in folder for folder in saved
    )  # another run may start from the saved config


def test_a_resumed_fit_stays_one_wandb_run(
    build: Callable[..., SDMCommandLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb = {"class_path": "lightning.pytorch.loggers.WandbLogger"}

    def id_of(offline: bool = False) -> Any:
        entry = wandb | {"init_args": {"offline": offline}}
        words = ["--config", json.dumps({"trainer": {"logger": [entry]}}), "--ckpt_path=auto"]
        return build(*with_bases(CONFIGS / "model" / "demo.yaml"), *words).trainer.logger.version

    first, anew = id_of(), id_of()
    assert first is not None
    assert anew != first, "no checkpoint to resume from"
    checkpoint = Path("runs/sdm/checkpoints/last.ckpt")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    torch.save({}, checkpoint)
    assert id_of() == anew
    assert id_of(offline=True) is None
    monkeypatch.setenv("WANDB_RUN_ID", "own")
    assert id_of() is None


def test_wandbs_variables_choose_project_and_name(
    build: Callable[..., SDMCommandLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = with_bases(CONFIGS / "logger" / "wandb.yaml")

    def label(key: str) -> Any:
        return build(*words).trainer.loggers[1]._wandb_init[key]

    assert (label("project"), label("name")) == ("sdm-lightning", "sdm")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_NAME", "first")
    assert (label("project"), label("name")) == ("mine", None)  # W&B reads the name by itself


def test_a_progress_bar_of_the_users_replaces_ours(build: Callable[..., SDMCommandLine]) -> None:
    words = [*with_bases(CONFIGS / "model" / "demo.yaml"), "--trainer.callbacks+=RichProgressBar"]
    cli = build(*words)
    bars = [c for c in cli.trainer.callbacks if isinstance(c, ProgressBar)]
    assert [type(bar).__name__ for bar in bars] == ["RichProgressBar"]


@pytest.mark.parametrize(("name", "devices"), [("8gpu", 4), ("8gpu", 8), ("multinode", 32)])
def test_any_number_of_gpus_has_the_papers_batch(name: str, devices: int) -> None:
    data = yaml.safe_load((CONFIGS / "trainer" / f"{name}.yaml").read_text())["data"]
    share, parts = batch_share(data["global_batch_size"], data["batch_size"], devices)
    assert (share * devices, share // parts) == (32, min(4, share))


def test_seed_leads(build: Callable[..., SDMCommandLine]) -> None:
    cli = build(*with_bases(CONFIGS / "model" / "demo.yaml"), "--seed_everything=7")
    assert (cli.model.seed, cli.datamodule.seed) == (7, 7)


def test_shipped_configs_are_found_from_anywhere(workdir: Path) -> None:
    assert shipped.find_config("configs/model/demo.yaml") == str(CONFIGS / "model" / "demo.yaml")
    assert shipped.find_config("configs/absent.yaml") == "configs/absent.yaml"
    inline = f"{{model: {'x' * 300}}}"
    assert shipped.find_config(inline) == inline, "longer than a file's name may be"
    row = CONFIGS.parent / "experiments" / "table1" / "A.yaml"
    assert shipped.find_config("experiments/table1/A.yaml") == str(row)
    mine = workdir / "configs" / "model" / "demo.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    assert shipped.find_config("configs/model/demo.yaml") == "configs/model/demo.yaml"


def test_a_part_from_a_file_in_the_working_directory(
    build: Callable[..., SDMCommandLine], workdir: Path
) -> None:
    (workdir / "lateness.py").write_text(
        "class Late:\n    def __call__(self, progress: float) -> float:\n"
        "        return progress**5\n"
    )
    cli = build(
        *with_bases(CONFIGS / "model" / "demo.yaml"),
        "--model.diffusion.schedule=lateness.Late",
    )
    assert cli.model.diffusion.schedule(0.5) == 0.5**5
