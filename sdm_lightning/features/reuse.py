"""Feature maps that several users of one training step share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from sdm_lightning.features.networks import PretrainedNetwork, enlarged


@dataclass(frozen=True)
class _Computed:
    network: str  # hash of its weights: users with the same weights share maps
    min_size: int
    images: Tensor  # kept, so that no other tensor can come to lie at its address
    version: int
    maps: list[Tensor]  # of all stages up to the deepest one asked for


_computed: ContextVar[list[_Computed] | None] = ContextVar("computed", default=None)


@contextmanager
def reused_maps(active: bool = True) -> Iterator[None]:
    """Compute each image's feature maps once within this context.

    A loss and a discriminator on one network then share a forward and a backward pass. All maps
    stay in memory until the context ends.

    Args:
        active: False changes nothing.
    """
    token = _computed.set([] if active else None)
    try:
        yield
    finally:
        _computed.reset(token)


def stage_maps(
    network: PretrainedNetwork, images: Tensor, stages: Sequence[int], min_size: int
) -> list[Tensor]:
    """Return a network's feature maps, computed without autocast.

    Args:
        network: On the device of the images.
        images: ``(B, 3, H, W)`` in [-1, 1].
        stages: Stages whose outputs are returned, counted from 0.
        min_size: Images with a shorter side below it are enlarged to it, bicubically.

    Returns:
        One ``(B, C_i, H_i, W_i)`` per stage; gradients reach the images.
    """
    computed = _computed.get()
    with torch.autocast(images.device.type, enabled=False):
        found = None if computed is None else _found(computed, network, images, stages, min_size)
        if found is None:
            levels = enlarged(images.float() * 127.5 + 127.5, min_size)
            found = network.stages(levels, range(max(stages) + 1))
            if computed is not None:
                entry = _Computed(network.sha256, min_size, images, images._version, found)
                computed.append(entry)
    return [found[stage] for stage in stages]


def _found(
    computed: list[_Computed],
    network: PretrainedNetwork,
    images: Tensor,
    stages: Sequence[int],
    min_size: int,
) -> list[Tensor] | None:
    needs_graph = torch.is_grad_enabled() and images.requires_grad
    for entry in computed:
        if entry.network != network.sha256 or entry.min_size != min_size:
            continue
        if len(entry.maps) <= max(stages) or not _same_pixels(entry, images):
            continue
        if not needs_graph:
            return [maps.detach() for maps in entry.maps]
        if entry.images is images and entry.maps[-1].requires_grad:
            return entry.maps
    return None


def _same_pixels(entry: _Computed, images: Tensor) -> bool:
    """Return whether these are the entry's images, or a detached view of them, unchanged since."""
    kept = entry.images
    if kept is images:
        return entry.version == images._version
    return (
        kept.data_ptr() == images.data_ptr()
        and kept.shape == images.shape
        and kept.stride() == images.stride()
        and kept.dtype == images.dtype
        and kept.device == images.device
        and entry.version == images._version
    )
