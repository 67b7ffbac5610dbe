"""The device that a command runs on."""

import torch
from torch import Tensor

from sdm_lightning.errors import InputError

WITHOUT_FLOAT64 = {"mps"}
"""Types of devices that refuse tensors of float64."""


def where_float64_is(tensor: Tensor) -> Tensor:
    """Return a tensor as it is, or its copy on the CPU if its device has no float64."""
    return tensor.cpu() if tensor.device.type in WITHOUT_FLOAT64 else tensor


def choose_device(device: str | torch.device) -> torch.device:
    """Return a device that this machine has.

    Args:
        device: Its name, or ``"auto"`` for the best there is.

    Raises:
        InputError: If it is not a device, or not one that this machine can use.
    """
    mps = torch.backends.mps.is_available()
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
        raise InputError(f"device {device}: this machine has no usable Apple GPU; use cpu or auto")
    return chosen
