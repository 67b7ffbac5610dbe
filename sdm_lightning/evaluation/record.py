"""The record of an evaluation: one JSON line with everything that its numbers depend on."""

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sdm_lightning import __version__
from sdm_lightning.evaluation.evaluator import Evaluation
from sdm_lightning.files import append_lines
from sdm_lightning.scores import protocol_name

VERSIONED = ("torch", "torchvision", "torchmetrics", "torch-fidelity", "lightning", "scikit-learn",
             "lpips", "timm", "numpy", "pillow")  # fmt: skip

RESERVED = frozenset(
    {
        "time", "protocol", "metrics", "counts", "refused", "better", "num_images", "images_digest",
        "masks_digest", "results_digest", "networks", "command", "checkpoint", "device",
        "processes", "precision", "parameters", "num_parameters", "num_iterations",
        "train_iterations", "diffusion", "alpha", "schedule", "repredict", "uncertainty_scale",
        "uncertainty_channels", "seed", "training_seed", "images_seen", "data", "wall_seconds",
        "versions", "hardware", "git_commit",
    }
)  # fmt: skip
"""What a record says by itself, under names that its other facts cannot take."""


def versions() -> dict[str, str]:
    """Return the versions of this package and of the libraries that a score may depend on."""
    found = {"sdm-lightning": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def hardware() -> dict[str, Any]:
    """Describe this machine: CPU, cores, GPUs."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"cpu": model, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpus": gpus}


def git_commit() -> str | None:
    """Return the commit of the checkout that holds this package, with ``+`` after changes."""
    folder = Path(__file__).resolve().parent

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=10
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        # An installed copy may lie inside somebody's unrelated repository.
        if not git("ls-files", "--error-unmatch", Path(__file__).name):
            return None
        commit = git("rev-parse", "HEAD")
        return (commit + ("+" if git("status", "--porcelain", "-uno") else "")) or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def make_record(
    evaluation: Evaluation, protocol: str, seconds: float, **facts: Any
) -> dict[str, Any]:
    """Build the record of one evaluation.

    Args:
        evaluation: The scores.
        protocol: Data, number and masks, such as ``places36500-512-large``.
        seconds: Wall time.
        facts: What else the numbers depend on: ``command``, ``checkpoint``, ``parameters`` (``ema``
            or ``raw``), ``num_iterations``, ``alpha``, ``seed``, ``crop``, ``mask_set``, ...

    Returns:
        A dictionary that JSON can hold.
    """
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "protocol": protocol,
        "metrics": {protocol_name(n, protocol): v for n, v in evaluation.metrics.items()},
        "counts": {protocol_name(n, protocol): v for n, v in evaluation.counts.items()},
        "refused": {protocol_name(n, protocol): v for n, v in evaluation.refused.items()},
        "better": evaluation.better,
        "num_images": evaluation.num_images,
        "images_digest": evaluation.images_digest,
        "masks_digest": evaluation.masks_digest,
        "results_digest": evaluation.results_digest,
        "networks": evaluation.networks,
        **facts,
        "wall_seconds": round(seconds, 3),
        "versions": versions(),
        "hardware": hardware(),
        "git_commit": git_commit(),
    }


def to_json(record: Mapping[str, Any]) -> str:
    """Write a record as one line of strict JSON; infinities become strings that ``float`` reads."""
    return json.dumps(_plain(record), ensure_ascii=False, allow_nan=False)


def append_record(path: str | Path, record: Mapping[str, Any]) -> None:
    """Append one line to a JSON-lines file, whole or not at all.

    Several processes may append at once. A line that a crash cut short is ended first, so that it
    does not corrupt the new one.
    """
    # A path that is not UTF-8 is written as JSON escapes it.
    append_lines(path, to_json(record).encode(errors="backslashreplace") + b"\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)
