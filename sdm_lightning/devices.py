"""The device that a command runs on."""

import torch

from sdm_lightning.errors import InputError


def choose_device(device: str | torch.device, *, float64: bool = False) -> torch.device:
    """Return a device that this machine has.

    Args:
        device: Its name, or ``"auto"`` for the best there is.
        float64: Whether it has to compute in float64, which ``mps`` cannot.

    Raises:
        InputError: If it is not a device, or not one that this machine can use.
    """
    mps = torch.backends.mps.is_available() and not float64
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device '{device}': choose cpu, cuda, mps or auto")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device}: this machine has no usable CUDA GPU; use cpu or auto")
    if chosen.type == "cuda" and (chosen.index or 0) >= (count := torch.cuda.device_count()):
        raise InputError(f"device {device}: this machine's last GPU is cuda:{count - 1}")
    if chosen.type == "mps" and not mps:
        reason = (
            "cannot compute these scores" if float64 else "this machine has no usable Apple GPU"
        )
        raise InputError(f"device {device}: {reason}; use cpu or auto")
    return chosen
