"""Images as every feature network and metric takes them: 8-bit, processed in float32."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from sdm_lightning.errors import InputError


def to_uint8(images: Tensor) -> Tensor:
    """Quantise to 8 bits as the paper's protocol does: by rounding, then clamping.

    Truncation would lose one level for a quarter of all values.

    Args:
        images: ``(B, 3, H, W)``, floating point in [-1, 1] (values outside are clamped), or uint8,
            which is returned unchanged.

    Returns:
        uint8 ``(B, 3, H, W)`` on the same device.

    Raises:
        InputError: If the shape or type is another one.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise InputError(f"images must be uint8 or float in [-1, 1], got {images.dtype}")
    return images.float().mul(127.5).add(127.5).round().clamp(0, 255).to(torch.uint8)


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Compute in float32 as on a CPU: no autocast to bfloat16, no TF32 in convolutions.

    Both are on in training or by default, and both change features in the third digit.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda":
            backends = torch.backends
            for holder in (backends.cudnn, backends.cuda.matmul):
                stack.enter_context(_without_tf32(holder))
        yield


@contextmanager
def _without_tf32(backend: Any) -> Iterator[None]:
    try:
        before, name, holder = backend.allow_tf32, "allow_tf32", backend
    except RuntimeError:
        # The caller has used torch's newer switches (2.9 on), which the older one then refuses.
        holder, name = getattr(backend, "conv", backend), "fp32_precision"
        before = holder.fp32_precision
    setattr(holder, name, False if name == "allow_tf32" else "ieee")
    try:
        yield
    finally:
        setattr(holder, name, before)
