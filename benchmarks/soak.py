"""A run that is signalled, killed and restarted for a while, and what it uses meanwhile.

    python benchmarks/soak.py OUT [--minutes 20] [--every 400] [--seed 0]

Trains the smallest model (tests/conf/micro.yaml) on shards of random images with validations and
checkpoints every few batches. The first run gets SIGTERM about every ``--every`` images, every
second time SIGKILL, and is started again with ``--ckpt_path auto``. Then a second run trains as
many images without a stop. Both are compared bit by bit: weights, optimizers, average, clock, data
position. Memory, open files, threads and disk are read from /proc every two seconds.

Writes OUT/soak.jsonl (samples and a summary line) and OUT/soak.png.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sdm_lightning.inference.checkpoints import newest_checkpoint

ROOT = Path(__file__).resolve().parents[1]
PERIOD = 2.0


def make_shards(folder: Path) -> Path:
    """Forty random images in five shards."""
    images, shards = folder / "images", folder / "shards"
    if not shards.is_dir():
        images.mkdir(parents=True, exist_ok=True)
        for index in range(40):
            pixels = np.random.default_rng(index).integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((20, 18), Image.Resampling.BICUBIC).save(
                images / f"{index:02d}.png"
            )
        sdm = [sys.executable, "-m", "sdm_lightning"]
        pack = [*sdm, "shards", str(images), str(shards), "--max_samples", "8"]
        subprocess.run([*pack, "--num_workers", "0"], check=True)
    return shards


def command(folder: Path, shards: Path, name: str, *more: str) -> list[str]:
    """The fit of one run."""
    data = [f"--data.{split}={shards}" for split in ("train", "val", "test")]
    config = str(ROOT / "tests" / "conf" / "micro.yaml")
    return [
        sys.executable, "-m", "sdm_lightning", "fit", "--config", config,
        *data, "--runs_dir", str(folder / "runs"), "--name", name, "--data.num_workers=1",
        "--model.losses.r1_interval=4", "--trainer.val_check_interval=50",
        "--trainer.limit_val_batches=4", "--checkpoint.every_n_batches=30", "--checkpoint.keep=2",
        "--checkpoint.monitor=val/psnr", "--trainer.log_every_n_steps=10",
        "--budget.max_images=100000000", *more,
    ]  # fmt: skip


def usage(pid: int) -> dict[str, float] | None:
    """Memory in MB with child processes, open files and threads of a process."""
    try:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        files = len(os.listdir(f"/proc/{pid}/fd"))
        return {
            "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
            "files": files,
            "threads": int(status["Threads"]),
            "children": len(children),
        }
    except (OSError, KeyError):
        return None


def saved_images(run: Path) -> int:
    """Images after which the newest numbered checkpoint was written."""
    names = [path.stem for path in (run / "checkpoints").glob("[0-9]*.ckpt")]
    return max((int(name) for name in names), default=0)


def disk(folder: Path) -> tuple[float, int]:
    """Megabytes and number of files of the checkpoints."""
    sizes = []
    for path in (folder / "checkpoints").glob("*"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:
            continue
    return sum(sizes) / 1e6, len(sizes)


def watch(
    process: subprocess.Popen[Any],
    run: Path,
    label: str,
    start: int,
    began: float,
    images: int,
    end: float,
) -> list[dict[str, Any]]:
    """Sample a process until it ends, has saved so many images, or a point in time."""
    samples = []
    while process.poll() is None and saved_images(run) < images and time.monotonic() < end:
        found = usage(process.pid)
        if found is not None:
            size, count = disk(run)
            samples.append(
                {
                    "run": label, "start": start, "seconds": round(time.monotonic() - began, 1),
                    "images": saved_images(run), "disk_mb": round(size, 3),
                    "checkpoint_files": count, **found,
                }
            )  # fmt: skip
        time.sleep(PERIOD)
    return samples


def contents(path: Path) -> dict[str, Any]:
    """Everything of a checkpoint that a stopped run must share with one that was not."""
    checkpoint = torch.load(path, weights_only=True)
    kept = ("state_dict", "optimizer_states", "images_seen", "InpaintingDataModule")
    return dict(_flat({key: checkpoint[key] for key in kept}))


def _flat(value: Any, path: str = "") -> Any:
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            yield from _flat(item, f"{path}/{key}")
    else:
        yield path, value


def differences(one: Path, other: Path) -> list[str]:
    """Entries in which two checkpoints differ in any bit."""
    left, right = contents(one), contents(other)
    return [
        key
        for key in sorted(left.keys() | right.keys())
        if key not in left
        or key not in right
        or not (
            torch.equal(left[key], right[key])
            if torch.is_tensor(left[key])
            else left[key] == right[key]
        )
    ]


def draw(samples: list[dict[str, Any]], path: Path) -> None:
    """Five curves over time: memory, files, threads, disk, images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(12, 5), sharex=True, layout="constrained")
    curves = (
        ("rss_mb", "memory of the training process, MB"), ("files", "open files"),
        ("threads", "threads"), ("disk_mb", "checkpoints on disk, MB"),
        ("images", "images after which a checkpoint was kept"),
    )  # fmt: skip
    for axis, (key, title) in zip(axes.flat, curves, strict=False):
        for run, color in (("stopped", "tab:orange"), ("uninterrupted", "tab:blue")):
            for start in sorted({s["start"] for s in samples if s["run"] == run}):
                own = [s for s in samples if s["run"] == run and s["start"] == start]
                axis.plot(
                    [s["seconds"] / 60 for s in own], [s[key] for s in own], color=color, lw=1,
                    label=run if start == 1 else None,
                )  # fmt: skip
        axis.set_title(title, fontsize=9)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.set_xlabel("minutes")
    axes[0, 0].legend(fontsize=8)
    axes[1, 2].axis("off")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(description="Signal, kill and restart a run; compare its end.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--every", type=float, default=400, help="images")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder: Path = options.out.absolute()
    shards, rng = make_shards(folder), random.Random(options.seed)
    began, samples, statuses = time.monotonic(), [], []
    end = began + 60 * options.minutes
    stopped, start = folder / "runs" / "stopped", 0
    with (folder / "log.txt").open("w") as log:
        while True:
            start += 1
            process = subprocess.Popen(
                command(folder, shards, "stopped", "--ckpt_path=auto"), stdout=log, stderr=log
            )
            goal = saved_images(stopped) + round(options.every * rng.uniform(0.5, 1.5))
            samples += watch(process, stopped, "stopped", start, began, goal, end)
            time.sleep(rng.uniform(0, 2))  # not right after a checkpoint
            last = time.monotonic() >= end
            process.send_signal(signal.SIGKILL if start % 2 == 0 and not last else signal.SIGTERM)
            statuses.append(process.wait())
            print(f"start {start}: status {statuses[-1]} after {time.monotonic() - began:.0f} s")
            # A signal at start-up ends the run without a batch; the end needs a checkpoint.
            if last and (newest := newest_checkpoint(stopped)) is not None:
                break
        images = int(torch.load(newest, weights_only=True)["images_seen"])
        budget = f"--budget.max_images={images}"
        began_again = time.monotonic()
        process = subprocess.Popen(
            command(folder, shards, "uninterrupted", budget), stdout=log, stderr=log
        )
        whole = folder / "runs" / "uninterrupted"
        samples += watch(process, whole, "uninterrupted", 1, began_again, images + 1, float("inf"))
    found = differences(newest, whole / "checkpoints" / "last.ckpt")
    leaked = [path.name for path in (stopped / "checkpoints").glob(".*.partial")]
    summary = {
        "minutes": options.minutes, "starts": start, "statuses": statuses, "images": images,
        "differences": found, "leaked_files": leaked, "cores": os.cpu_count(),
        "torch": torch.__version__,
    }  # fmt: skip
    with (folder / "soak.jsonl").open("w") as file:
        for line in (*samples, summary):
            file.write(json.dumps(line) + "\n")
    draw(samples, folder / "soak.png")
    print(json.dumps(summary, indent=1))
    sys.exit(1 if found or leaked else 0)


if __name__ == "__main__":
    main()
