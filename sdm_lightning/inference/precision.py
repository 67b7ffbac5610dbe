"""The number format of the network's convolutions while it is used."""

from typing import Literal, TypeAlias, get_args

import torch

from sdm_lightning.errors import InputError

Precision: TypeAlias = Literal["32-true", "bf16-mixed", "auto"]


def wants_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Tell whether convolutions run in bfloat16.

    Args:
        precision: ``"32-true"``, ``"bf16-mixed"``, or ``"auto"``: bfloat16 where the device
            computes in it, float32 where it would only be imitated.
        device: Where the network is.

    Raises:
        InputError: If the precision is none of these.
    """
    if precision not in get_args(Precision):
        *others, last = get_args(Precision)
        raise InputError(f"precision {precision!r}: choose {', '.join(others)} or {last}")
    if precision != "auto":
        return precision == "bf16-mixed"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Two instruction sets; PyTorch has no public name for these questions.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in checks)
