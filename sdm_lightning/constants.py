"""Small constant tensors on a device, without a wait for it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def constant(values: Sequence[Any], device: torch.device) -> Tensor:
    """Make a float32 tensor of nested numbers.

    ``torch.tensor(values, device="cuda")`` copies from ordinary memory, for which the host waits
    until the GPU has finished all that it was given; from pinned memory it does not.
    """
    if device.type != "cuda":
        return torch.tensor(values, dtype=torch.float32, device=device)
    return torch.tensor(values, dtype=torch.float32, pin_memory=True).to(device, non_blocking=True)
