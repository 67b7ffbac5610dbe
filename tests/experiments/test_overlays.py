"""Every overlay says what it asks, and every row of every table builds the model that it names."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
import yaml

from sdm_lightning.cli.main import main
from sdm_lightning.cli.trainer import SDMCommandLine
from sdm_lightning.data.datamodule import batch_share
from sdm_lightning.reports.results import read_result_lines
from sdm_lightning.sweeps import runner
from sdm_lightning.sweeps.grid import Cell, read_sweep, setting
from sdm_lightning.sweeps.runner import run_sweep

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
OVERLAYS = sorted(p for p in EXPERIMENTS.glob("table*/*.yaml"))
SWEEPS = sorted(p for p in (EXPERIMENTS / "sweeps").glob("*.yaml") if p.stem != "search")
MOST_LINES = 15


def test_overlays_are_short_and_say_what_they_ask() -> None:
    for path in OVERLAYS:
        lines = path.read_text().splitlines()
        assert lines[0].startswith("# "), f"{path}: begins with what it asks"
        assert len([line for line in lines if not line.startswith("#")]) <= MOST_LINES, path
        content = yaml.safe_load(path.read_text())
        assert set(content) <= {"model", "data", "budget", "evaluation", "trainer"}, path
        facts = (content.get("evaluation") or {}).get("facts")
        if facts is not None:
            paper = yaml.safe_load((EXPERIMENTS / "paper" / f"{facts['table']}.yaml").read_text())
            assert facts["row"] in {row["row"] for row in paper["rows"]}, path


def first_of_each_row(path: Path, scale: str) -> list[Cell]:
    """One seed of each row, one number of iterations."""
    cells = read_sweep(path).cells(scale)
    return [c for c in cells if "seed" not in c.name or c.name.endswith(("seed0", "seed0-t4"))]


def cells_of(scale: str) -> list[Any]:
    found = [(path, cell) for path in SWEEPS for cell in first_of_each_row(path, scale)]
    return [pytest.param(cell, id=f"{path.stem}/{cell.name}") for path, cell in found]


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks with downloaded weights are not at hand; everything else is built for real."""
    import sdm_lightning.cli.trainer as trainer

    monkeypatch.setattr(trainer, "resolve_checkpoint", lambda *_: None)
    monkeypatch.setattr(
        "sdm_lightning.training.callbacks.evaluation.build_features", lambda *_: None
    )
    monkeypatch.setattr("sdm_lightning.training.callbacks.evaluation.LPIPS", lambda *_: None)
    monkeypatch.setenv("WANDB_MODE", "disabled")


WITHOUT_DOWNLOADS = (
    "--model.perceptual=sdm_lightning.losses.PixelPyramidLoss",
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
)


# Seen from the paper's tables, independently of the overlays.
EXPECTED = {
    "table1/A-seed0": {"num_iterations": 3, "test_iterations": 3},
    "table1/B-seed0": {"num_iterations": 1, "test_iterations": 1},
    "table1/C-seed0": {"num_iterations": 2, "test_iterations": 2},
    "table1/D-seed0": {"num_iterations": 3, "test_iterations": 3, "decoupled": False},
    "table1/E-seed0": {"num_iterations": 3, "test_iterations": 3, "alpha": 0.0},
    "table1/F-seed0": {"num_iterations": 3, "test_iterations": 3, "guided": False},
    "table1/G-seed0": {"num_iterations": 3, "test_iterations": 3, "attention": 1},
    "table4/cubic-seed0": {"num_iterations": 3, "schedule": "CubicSchedule"},
    "table4/cosine-seed0": {"num_iterations": 3, "schedule": "CosineSchedule"},
    "table4/sqrt-seed0": {"num_iterations": 3, "schedule": "SquareRootSchedule"},
    "table2A/A-seed0-t4": {"num_iterations": 3, "test_iterations": 4},
    "table2B/B-seed0-t4": {"num_iterations": 1, "test_iterations": 4},
    "table3_places2/run": {
        "num_iterations": 2,
        "test_iterations": 4,
        "size": 512,
        "images": 20_000_000,
    },
    "table3_celebahq/run": {
        "num_iterations": 2,
        "test_iterations": 4,
        "size": 512,
        "images": 20_000_000,
    },
    "table3_places2_test/places2-small": {
        "test_iterations": 4,
        "size": 512,
        "masks": "mat512_small",
    },
    "table3_places2_test/places2-large": {
        "test_iterations": 4,
        "size": 512,
        "masks": "mat512_large",
    },
    "tableB1/run": {"test_iterations": 4, "size": 1024, "masks": "mat512_large"},
    "table3_celebahq_test/celebahq-small": {"size": 512, "masks": "mat512_small"},
    "table3_celebahq_test/celebahq-large": {"size": 512, "masks": "mat512_large"},
    "tableD3_train/run": {"num_iterations": 2, "size": 256, "images": 12_000_000},
    "tableD3/celebahq-small": {"test_iterations": 4, "size": 256, "masks": "mat256_small"},
    "tableD3/celebahq-large": {"test_iterations": 4, "size": 256, "masks": "mat256_large"},
}
ABLATION = ("table1/", "table2", "table4/")


def test_every_row_is_expected() -> None:
    assert {str(p.id) for p in cells_of("paper")} == set(EXPECTED)


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("cell", cells_of("paper"))
def test_row_at_paper_scale(
    cell: Cell, build: Callable[..., SDMCommandLine], request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    cli = build(*cell.argv, *WITHOUT_DOWNLOADS)
    model, data, expected = cli.model, cli.datamodule, EXPECTED[name]
    ablation = name.startswith(ABLATION)
    assert data.resolution == expected.get("size", 256)
    assert model.diffusion.alpha == expected.get("alpha", 0.01)
    assert model.decoupled is expected.get("decoupled", True)
    assert type(model.diffusion.schedule).__name__ == expected.get("schedule", "UniformSchedule")
    if "num_iterations" in expected:
        assert model.diffusion.num_iterations == expected["num_iterations"]
    if "test_iterations" in expected:
        assert model.test_iterations == expected["test_iterations"]
    if "masks" in expected:
        assert data.masks["test"] == expected["masks"]
    assert f"-{data.resolution}-" in cli.settings.evaluation.protocol
    kind = data.masks["test"].rpartition("_")[2]
    assert cli.settings.evaluation.protocol.endswith(kind)
    blocks = [stage for stage in model.generator.encoder if stage.attention is not None]
    assert len(blocks) == expected.get("attention", 2)
    guided = [
        name for name, _ in model.generator.named_modules() if name.endswith("attention.bias")
    ]
    assert bool(guided) is expected.get("guided", True)
    if cell.command == "fit":
        budget = next(c for c in cli.trainer.callbacks if type(c).__name__ == "ImageBudget")
        assert budget.max_images == expected.get("images", 6_000_000 if ablation else None)


def test_rows_at_small_scale_name_its_size() -> None:
    """A row that names a size must name another one here, in its protocol too."""
    for cell in cells_of("small"):
        size = 256 if cell.id == "tableB1/run" else 128
        keys = ("data.resolution", "budget.max_images", "evaluation.protocol", "data.test_masks")
        resolution, images, protocol, masks = (setting(cell.values[0].argv, key) for key in keys)
        assert (resolution, images) == (size, 600_000), cell.id
        assert f"-{size}-" in protocol, cell.id
        assert protocol.endswith(masks.removeprefix("mat256_")), cell.id


# Rows with settings of their own at this scale, and of the others one for each data set.
BUILT_SMALL = [
    cell
    for cell in cells_of("small")
    if cell.id in ("table1/A-seed0", "tableD3_train/run")
    or any(word.endswith(".small.yaml") for word in cell.values[0].argv)
]


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("cell", BUILT_SMALL)
def test_row_at_small_scale(
    cell: Cell, build: Callable[..., SDMCommandLine], request: pytest.FixtureRequest
) -> None:
    cli = build(*cell.argv, *WITHOUT_DOWNLOADS)
    assert cli.datamodule.resolution == setting(cell.argv, "data.resolution")
    assert cli.datamodule.masks["test"] == setting(cell.argv, "data.test_masks")
    if request.node.callspec.id == "table1/G-seed0":
        stage = [k for k, s in enumerate(cli.model.generator.encoder) if s.attention is not None]
        assert [128 // 2**k for k in stage] == [16]


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("scale", ["tiny", "photos", "cpu"])
def test_other_scales_build(scale: str, build: Callable[..., SDMCommandLine]) -> None:
    """One row with a setting of its own at each scale; the last test runs all of them."""
    sweep = read_sweep(EXPERIMENTS / "sweeps" / "table1.yaml")
    wanted = "F-seed0" if scale == "cpu" else "G-seed0"  # one attention size only at cpu
    cell = next(c for c in sweep.cells(scale) if c.name == wanted)
    cli = build(*cell.argv, *WITHOUT_DOWNLOADS)
    assert cli.datamodule.resolution == {"tiny": 64, "photos": 64, "cpu": 32}[scale]
    if wanted == "G-seed0":
        stage = [k for k, s in enumerate(cli.model.generator.encoder) if s.attention is not None]
        sizes = [cli.datamodule.resolution // 2**k for k in stage]
        assert sizes == [{"tiny": 16, "photos": 4}[scale]]


@pytest.mark.parametrize(
    ("path", "scale"),
    [
        pytest.param(path, scale, id=f"{path.stem}/{scale}")
        for path in sorted((EXPERIMENTS / "sweeps").glob("*.yaml"))
        for scale in ("paper", "small", "tiny", "photos", "cpu")
        if scale not in ("photos", "cpu") or path.stem.startswith(("table1", "table2", "table4"))
    ],
)
def test_every_training_cell_has_its_batch_whatever_the_devices(path: Path, scale: str) -> None:
    """``sdm sweep --devices`` gives each cell one GPU, W&B's agents as many as there are."""
    sweep = read_sweep(path)
    if sweep.searched:
        words = [sweep.argv({key: spec["min"] for key, spec in sweep.searched.items()}, scale)]
    else:
        words = [list(cell.argv) for cell in sweep.cells(scale)]
    for argv in (argv for argv in words if argv[0] == "fit"):
        data: dict[str, Any] = {}
        for word in argv:
            if word.startswith("--config="):
                file = ROOT / word.removeprefix("--config=")
                data |= (yaml.safe_load(file.read_text()) or {}).get("data") or {}
        expected = {"paper": 32, "small": 32, "tiny": 16, "photos": 8, "cpu": 8}[scale]
        for processes in (1, 2, 4, 8):
            shares = batch_share(data["global_batch_size"], data["batch_size"], processes)
            assert processes * shares[0] == expected
            assert shares[0] // shares[1] <= data["batch_size"]


class Copy(multiprocessing.get_context("fork").Process):
    """A run as a copy of this process, which need not import the libraries anew."""

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], log: IO[bytes]
    ) -> None:
        super().__init__()
        self.words, self.environment, self.log = words, environment, log
        self.start()

    def run(self) -> None:
        sys.stdout = sys.stderr = os.fdopen(self.log.fileno(), "w", buffering=1, closefd=False)
        os.environ.clear()
        os.environ.update(self.environment)
        main(self.words)
        os._exit(0)  # an orderly end would wait for the sweep's thread, which copied itself

    def wait(self) -> int | None:
        self.join()
        return self.exitcode


# Each sweep that trains, with those that test its checkpoints.
CHAINS = [
    ["table1", "table2A", "table2B"],
    ["table3_celebahq", "table3_celebahq_test"],
    ["table3_places2", "table3_places2_test", "tableB1"],
    ["table4"],
    ["tableD3_train", "tableD3"],
]
# Cells that are only trained: their test is that of the cells beside them.
UNTESTED = {
    "table1": "B-seed0,C-seed0,D-seed0,E-seed0,F-seed0",
    "table4": "cosine-seed0,sqrt-seed0",
}


def test_every_sweep_is_in_a_chain() -> None:
    assert sorted(name for chain in CHAINS for name in chain) == [path.stem for path in SWEEPS]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain[0])
def test_every_row_trains_and_tests_at_tiny_scale(
    chain: list[str], tiny_shards: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the sweep's own runner; a test row finds the checkpoint of its training row."""
    monkeypatch.setattr(runner, "start_process", Copy)
    extra = [f"--data.{split}={tiny_shards}" for split in ("train", "val", "test")]
    extra += ["--budget.max_images=4", "--data.batch_size=2", "--data.num_workers=0"]
    # The test's images are smaller than the crops.
    extra += ["--data.global_batch_size=2", "--evaluation.max_padding=1.0"]
    extra += [
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--trainer.limit_val_batches=0",
    ]
    # Fewer channels through the same stages.
    for network in ("generator", "discriminator"):
        init = f"--model.{network}.init_args"
        extra += [f"{init}.base_channels=8", f"{init}.max_channels=8"]
    for name in chain:
        path, untested = EXPERIMENTS / "sweeps" / f"{name}.yaml", UNTESTED.get(name, "")
        cells = {cell.name for cell in first_of_each_row(path, "tiny")} - {*untested.split(",")}
        if untested:
            run_sweep(str(path), "tiny", extra=extra, test=False, only=untested)
        run_sweep(str(path), "tiny", extra=extra, only=",".join(cells))
        lines = read_result_lines(workdir / "runs" / "tiny" / name / "results.jsonl")
        assert len(lines) == len(cells)
        for line in lines:
            assert line["scale"] == "tiny"
            assert line["command"] == "test"
            scores = {metric.partition("/")[0] for metric in line["metrics"]}
            kinds = ("fid", "kid", "feature_distance")
            assert {f"{kind}[efficientnet-lite2]" for kind in kinds} <= scores
            assert not any(score.startswith("lpips") for score in scores)


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", ["filled_train", "filled_B", "filled_B-image"])
def test_rows_beside_the_paper_build(name: str, build: Callable[..., SDMCommandLine]) -> None:
    """``experiments/filled``: what becomes of pixels that earlier iterations filled."""
    for cell in first_of_each_row(EXPERIMENTS / "filled" / f"{name}.yaml", "cpu"):
        cli = build(*cell.argv, *WITHOUT_DOWNLOADS)
        assert cli.model.losses.mean_region == ("image" if "image" in cell.name else "hole")
        assert cli.model.diffusion.repredict is ("kept" not in " ".join(cell.argv))
        assert cli.settings.evaluation.facts["scale"] == "cpu"
