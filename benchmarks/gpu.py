"""``make gpu``: in a few minutes on a lent GPU, its tests, its figures, and more training.

Everything lands in one folder of small files: ``tests.txt``, ``bench.jsonl`` and ``bench.txt``,
``fit.txt`` with the run in ``run/``, and ``summary.json``. The training goes on from the run's
newest checkpoint, or from one that is given, and leaves one behind, so that several calls make
one long training. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from sdm_lightning.errors import PREEMPTED

ROOT = Path(__file__).parents[1]
SAVING = 40.0  # seconds kept for the last batch, the checkpoint and the summary


def main(words: list[str] | None = None) -> int:
    """Run the three parts; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything together")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--checkpoint", type=Path, help="to go on from, if the run has none yet")
    parser.add_argument("--shards", type=Path, help="training images; those of the demo if absent")
    parser.add_argument("--device", default="cuda", help="cpu: to try the program itself")
    parser.add_argument(
        "fit", nargs="*", help="options of sdm fit, after --; configs/model/demo.yaml if absent"
    )
    arguments = parser.parse_args(words)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu tries the program itself")
    began, whole = time.monotonic(), 60 * arguments.minutes
    output: Path = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    quick = arguments.device == "cpu"

    def left() -> float:
        return whole - (time.monotonic() - began)

    summary: dict[str, Any] = {"device": arguments.device, "minutes": arguments.minutes}
    # A line for each test, with its fault: a run that is cut short tells what it has found.
    tests = ["-m", "pytest", "-v", "--tb=short", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu"]
    summary["tests"] = run(tests, output / "tests.txt", 0.3 * whole)
    sizes = ["32", "--quick", "--rounds", "2", "--sizes", "64"] if quick else ["256", "512"]
    bench = [
        "-m", "benchmarks", "generator", "memory", "checkpoint", "training",
        "--device", arguments.device, "--output", str(output / "bench.jsonl"), "--training", *sizes,
    ]  # fmt: skip
    summary["bench"] = run(bench, output / "bench.txt", min(0.4 * whole, left() - SAVING))
    summary |= train(arguments, output, left)
    summary["seconds"] = round(time.monotonic() - began, 1)
    (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=1))
    # Status 5 of pytest: no test was there to run; -15: cut short, not failed.
    cut = -signal.SIGTERM
    parts = (
        summary["tests"] in (0, 5, cut), summary["bench"] in (0, cut),
        summary["fit"] in (0, PREEMPTED),
    )  # fmt: skip
    return int(not all(parts))


def run(words: list[str], log: Path, seconds: float) -> int:
    """Run Python with its output in a file; return its status, -15 if its time was over."""
    process = start(words, log)
    return stop(process, seconds)


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start Python in the repository's root, so that ``configs/`` is found."""
    print(f"$ python {' '.join(words)} > {log}", flush=True)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=environment, stdout=file, stderr=file
        )


def stop(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait so long, then ask the process to end: ``sdm fit`` saves and ends with status 75."""
    try:
        return process.wait(max(seconds, 1.0))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(SAVING)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def train(arguments: argparse.Namespace, output: Path, left: Any) -> dict[str, Any]:
    """Train for what is left of the time."""
    checkpoints = output / "run" / "checkpoints"
    if arguments.checkpoint is not None and not any(checkpoints.glob("*.ckpt")):
        checkpoints.mkdir(parents=True, exist_ok=True)
        shutil.copy(arguments.checkpoint, checkpoints / "last.ckpt")
    shards = arguments.shards.resolve() if arguments.shards else demo_shards(output, arguments)
    before = images_seen(checkpoints)
    model = arguments.fit or [
        "--config", "configs/model/demo.yaml", "--config", "configs/data/demo.yaml",
        "--config", "configs/trainer/cpu.yaml",
    ]  # fmt: skip
    words = [
        "-m", "sdm_lightning", "fit", *model,
        *(f"--data.{split}={shards}" for split in ("train", "val", "test")),
        "--trainer.accelerator", "gpu" if arguments.device == "cuda" else "cpu",
        "--trainer.precision", "bf16-mixed" if arguments.device == "cuda" else "32-true",
        "--runs_dir", str(output), "--name", "run", "--ckpt_path", "auto",
    ]  # fmt: skip
    began = time.monotonic()
    status = run(words, output / "fit.txt", left() - SAVING)
    after, seconds = images_seen(checkpoints), time.monotonic() - began
    return {
        "fit": status,
        "images_before": before,
        "images_after": after,
        "images_per_second_with_start_up": round((after - before) / seconds, 2),
    }


def demo_shards(output: Path, arguments: argparse.Namespace) -> Path:
    """Cut windows from the photos that come with Python packages, once."""
    from sdm_lightning.data.shards.packing import pack_shards
    from sdm_lightning.demo.photos import make_demo_images

    shards, images = output / "shards", output / "images"
    if not (shards / "index.json").is_file():
        count = 100 if arguments.device == "cpu" else 6000
        make_demo_images(images, num_train=count, num_test=10)
        pack_shards(str(images / "train"), str(shards))
        shutil.rmtree(images)
    return shards


def images_seen(folder: Path) -> int:
    """Return the training images behind the newest checkpoint; 0 without one."""
    files = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not files:
        return 0
    checkpoint = torch.load(files[-1], map_location="cpu", weights_only=True, mmap=True)
    return int(checkpoint["images_seen"])


if __name__ == "__main__":
    sys.exit(main())
