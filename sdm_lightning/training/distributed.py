"""What manual optimization has to do itself when several processes train together."""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def gradient_sync(trainer: pl.Trainer, enabled: bool) -> Iterator[None]:
    """Hold back DDP's all-reduce of gradients unless ``enabled``.

    The last backward pass of a phase reduces what all of them have accumulated.
    """
    wrapper = getattr(trainer.strategy, "model", None)
    if enabled or not isinstance(wrapper, DistributedDataParallel):
        yield
    else:
        with wrapper.no_sync():
            yield


def reduced(trainer: pl.Trainer, value: Tensor, operation: str) -> Tensor:
    """Reduce a buffer over all processes; DDP does so for gradients only.

    Args:
        trainer: Whose strategy reduces.
        value: Any shape; stays as it is.
        operation: ``"sum"`` or ``"mean"``.
    """
    result = trainer.strategy.reduce(value.clone(), reduce_op=operation)
    assert isinstance(result, Tensor)
    return result
