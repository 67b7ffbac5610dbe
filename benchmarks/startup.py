"""Start-up: processor seconds of whole processes, beside importing torch or Lightning alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.common import Line, Settings, compared, figure, interleaved
from benchmarks.files import make_shards

ROOT = Path(__file__).parents[1]
IMPORTS = "import lightning.pytorch.cli; import sdm_lightning.cli.trainer"
FIRST_BATCH = """
import os
from sdm_lightning.training.module import SDMModule
SDMModule.training_step = lambda *args: os._exit(0)
from sdm_lightning.cli import main
main({words!r})
"""


def fit_words(shards: Path, runs: Path) -> list[str]:
    """Return the arguments of ``sdm`` that start a small training."""
    return [
        "fit", "--config", "configs/model/sdm_256.yaml", "--config", "configs/trainer/cpu.yaml",
        "--config", "configs/scale/tiny.yaml", "--data.train", str(shards),
        "--data.val", str(shards), "--data.test", str(shards), "--data.num_workers", "0",
        "--data.batch_size", "4", "--runs_dir", str(runs), "--trainer.limit_val_batches", "0",
    ]  # fmt: skip


def run(settings: Settings) -> Iterator[Line]:
    """Time commands and imports."""
    cache = settings.folder / "cache"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache),
    }  # fmt: skip

    def python(*words: str) -> Callable[[], float]:
        def measure() -> float:
            process = subprocess.Popen(
                [sys.executable, *words], env=environment, cwd=ROOT,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            _, status, used = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"error: {' '.join(words)} failed with status {status}")
            return used.ru_utime + used.ru_stime

        return measure

    def first_help() -> float:
        for kept in (cache / "sdm_lightning" / "help").glob("*"):
            kept.unlink()
        return python("-m", "sdm_lightning", "fit", "-h")()

    torch_alone = python("-c", "import torch")
    lightning_alone = python("-c", "import lightning.pytorch.cli")
    shards = make_shards(settings.folder / "first", 8, 64)
    fit = fit_words(shards, settings.folder / "runs")
    rows: list[tuple[str, Callable[[], float], Callable[[], float], str]] = [
        ("from sdm_lightning import Inpainter",
         python("-c", "from sdm_lightning import Inpainter"), torch_alone, "import torch"),
        ("sdm fit -h, first time", first_help, lightning_alone, "import lightning.pytorch.cli"),
        ("sdm fit -h, kept", python("-m", "sdm_lightning", "fit", "-h"), lightning_alone,
         "import lightning.pytorch.cli"),
        ("sdm fit to its first batch, tiny model", python("-c", FIRST_BATCH.format(words=fit)),
         lightning_alone, "import lightning.pytorch.cli"),
    ]  # fmt: skip
    for name, work, limit, limit_name in rows:
        found, limits = interleaved([work, limit], max(1, settings.rounds // 2), warm_up=False)
        yield compared("start-up", name, "s", found, limits, limit_name)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", IMPORTS],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    whole, ours = (cumulative(done.stderr, word) for word in IMPORTS.replace(";", "").split()[1::2])
    share = 100 * ours / (whole + ours)
    yield figure("start-up", "what sdm fit imports after Lightning", share, "% of its imports")


def cumulative(report: str, module: str) -> float:
    """Find the microseconds of a module and what it imports in a report of ``-X importtime``."""
    lines = (line.split("|") for line in report.splitlines() if line.count("|") == 2)
    return next(float(whole) for _, whole, name in lines if name.strip() == module)
