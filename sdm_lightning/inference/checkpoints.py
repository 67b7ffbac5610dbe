"""The checkpoints in a run's directory, and which of them to take."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdm_lightning.errors import InputError, load_failure

CHECKPOINTS = "checkpoints"


def newest_checkpoint(directory: str | Path) -> Path | None:
    """Find the newest checkpoint of a run that can be read, or None where there is none.

    The run may still be active: files that it replaces meanwhile are skipped.

    Args:
        directory: ``runs/<name>``, or its folder ``checkpoints`` itself.

    Raises:
        InputError: If there are checkpoints and none of them can be read.
    """
    folder = Path(directory) / CHECKPOINTS
    if not folder.is_dir():
        folder = Path(directory)
    written = {path: time for path in folder.glob("*.ckpt") if (time := _written(path)) is not None}
    found = sorted(written, key=lambda path: (written[path], path.name), reverse=True)
    for path in found:
        try:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            warnings.warn(
                f"{path} cannot be read ({load_failure(error)}); trying the one before",
                stacklevel=2,
            )
        else:
            return path
    if found:
        raise InputError(f"{folder}: none of its {len(found)} checkpoints can be read")
    return None


def _written(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def open_checkpoint(path: Path) -> Mapping[str, Any]:
    """Map a checkpoint's tensors and settings, without unpickling objects.

    Raises:
        InputError: If it cannot be read, or its tensors or settings are of another kind.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise InputError(
            f"{path}: cannot be read as a checkpoint: {load_failure(error)}"
        ) from error
    if not isinstance(checkpoint, Mapping) or "state_dict" not in checkpoint:
        raise InputError(f"{path}: not a Lightning checkpoint: it has no state_dict")
    state, settings = checkpoint["state_dict"], checkpoint.get("hyper_parameters")
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise InputError(f"{path}: its state_dict is no mapping of names to tensors")
    if not (settings is None or isinstance(settings, Mapping)):
        raise InputError(f"{path}: its hyper_parameters are no mapping")
    return checkpoint
