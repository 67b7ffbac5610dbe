"""What manual optimization has to do itself when several processes train together."""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
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


def let_networks_take_turns(trainer: pl.Trainer) -> None:
    """Tell DDP, before it wraps the module, that each backward leaves one network unused."""
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._ddp_kwargs |= {
            "find_unused_parameters": True, "gradient_as_bucket_view": True,
        }  # fmt: skip


def reduce_trained_network_only(trainer: pl.Trainer) -> None:
    """Keep DDP from reducing the gradients of the network that a phase does not train.

    DDP wraps both networks as one module and would reduce every bucket in every phase.
    """
    wrapper = getattr(trainer.strategy, "model", None)
    if isinstance(wrapper, DistributedDataParallel):
        wrapper.register_comm_hook(wrapper.process_group, _trained_buckets)


# Annotated in full, and not as text, since DDP checks the annotations of its hooks.
def _trained_buckets(
    group: torch.distributed.ProcessGroup, bucket: torch.distributed.GradBucket
) -> torch.futures.Future[torch.Tensor]:
    # The phase's optimizer has frozen the other network, on all processes alike.
    if any(parameter.requires_grad for parameter in bucket.parameters()):
        return allreduce_hook(group, bucket)
    buffer = bucket.buffer()
    unchanged: torch.futures.Future[torch.Tensor] = torch.futures.Future(
        devices=[buffer.device] if buffer.device.type == "cuda" else None
    )
    unchanged.set_result(buffer)
    return unchanged


def is_first_process() -> bool:
    """Return whether this is the first process, as launchers say before a trainer exists."""
    return getattr(rank_zero_only, "rank", 0) == 0


def all_reduce(trainer: pl.Trainer, value: Tensor, operation: str) -> Tensor:
    """Reduce a buffer over all processes; DDP does so for gradients only.

    Args:
        trainer: Whose strategy reduces.
        value: Any shape; stays as it is.
        operation: ``"sum"`` or ``"mean"``.
    """
    result = trainer.strategy.reduce(value.clone(), reduce_op=operation)
    assert isinstance(result, Tensor)
    return result
