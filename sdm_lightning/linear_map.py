"""Linear functions of a tensor with derivatives of any order."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def linear_map(
    x: Tensor, function: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return ``function(x)``, which is linear, differentiable any number of times.

    Args:
        x: Any shape.
        function: Maps ``x``; what else it depends on gets no gradient.
        adjoint: Its derivative: maps the gradient of its result to that of ``x``.
    """
    result: Tensor = _LinearMap.apply(x, function, adjoint)
    return result


class _LinearMap(torch.autograd.Function):
    """A linear function's derivative is its adjoint, and the adjoint's is the function again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Any, adjoint: Any) -> Tensor:
        ctx.functions = adjoint, function
        result: Tensor = function(x)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _LinearMap.apply(gradient, *ctx.functions), None, None
