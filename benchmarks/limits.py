"""The limit of a piece of work: the convolutions, matrix products and attention that it runs.

They are recorded once, with the shapes, strides and types that they meet, and then run again on
stand-ins without anything between them. A figure of 1 means that everything else (activations,
norms, sums, copies, Python) costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

# Where autograd does not take them apart (inference mode), layers arrive under their public names.
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addmv", "linear", "matmul", "conv2d")
_FAMILIES = ("convolution", "_convolution", "conv_transpose", "scaled_dot_product", "_scaled_dot")


def is_product(name: str) -> bool:
    """Tell whether an operator (such as ``aten::convolution_backward``) belongs to the limit."""
    name = name.partition("::")[2]
    return name in _PRODUCTS or name.startswith(_FAMILIES)


def tf32() -> tuple[bool, bool]:
    """Return whether convolutions and matrix products may use TF32 on a GPU."""
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def set_tf32(convolutions: bool, products: bool) -> None:
    """Set what :func:`tf32` returns."""
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.backends.cuda.matmul.allow_tf32 = products


class Recorder(TorchDispatchMode):
    """Collects the products that run inside it, and whether in TF32."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any]] = []
        self.tf32: list[tuple[bool, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_product(func._schema.name):
            self.calls.append((func, *tree_map(_shape_of, (args, kwargs))))
            self.tf32.append(tf32())
        return func(*args, **kwargs)


class _Shape(tuple):  # (size, stride, dtype, device): what a stand-in is made of
    pass


def _shape_of(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return _Shape((tuple(value.shape), tuple(value.stride()), value.dtype, value.device))


class Products:
    """The recorded products of ``work``, to be run again.

    Args:
        work: Runs what is measured, once.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        with Recorder() as recorder:
            work()
        stand_ins: dict[tuple[Any, ...], Tensor] = {}

        def tensor(value: Any) -> Any:
            if not isinstance(value, _Shape):
                return value
            if value not in stand_ins:
                size, stride, dtype, device = value
                extent = 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
                flat = torch.zeros(extent, dtype=dtype, device=device)
                if dtype.is_floating_point:
                    flat.normal_()  # zeros would flatter kernels, and the clock of a GPU
                stand_ins[value] = flat.as_strided(size, stride)
            return stand_ins[value]

        self.calls = [
            (func, *tree_map(tensor, (args, kwargs))) for func, args, kwargs in recorder.calls
        ]
        self.tf32 = recorder.tf32

    def __len__(self) -> int:
        return len(self.calls)

    @torch.no_grad()
    def __call__(self) -> None:
        """Run them all, in their order and with the arithmetic that they had."""
        before = tf32()
        # What autocast has cast was recorded as cast.
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            for (func, args, kwargs), kind in zip(self.calls, self.tf32, strict=True):
                if kind != tf32():
                    set_tf32(*kind)
                func(*args, **kwargs)
        set_tf32(*before)
