"""``torch.compile`` beside eager: the generator, the discriminator and a frozen network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import Line, Settings, compared, figure, interleaved
from benchmarks.training import build
from sdm_lightning.features.networks import PretrainedNetwork
from sdm_lightning.models.generator import INPUT_CHANNELS
from sdm_lightning.models.layers import fast_layout

BATCH = 8
NETWORK = "efficientnet-lite0"


def run(settings: Settings) -> Iterator[Line]:
    """Compare at each size of the training step."""
    for size in settings.training:
        module = build(size, 1, quick=settings.quick)
        channels = {"generator": (INPUT_CHANNELS,), "discriminator": (3, 1)}  # image and mask
        for part, counts in channels.items():
            network = getattr(module, part).to(settings.device)
            inputs = [torch.rand(BATCH, n, size, size, device=settings.device) for n in counts]
            name = f"{part}, forward and backward, {size}x{size}, batch {BATCH}"
            yield from _beside_eager(settings, name, network, *inputs)
    frozen = PretrainedNetwork(NETWORK).to(settings.device)
    images = fast_layout(torch.rand(BATCH, 3, 96, 96, device=settings.device)).requires_grad_()
    name = f"{NETWORK}, forward and backward to the image, 96x96, batch {BATCH}"
    yield from _beside_eager(settings, name, frozen.network, images)


def _beside_eager(
    settings: Settings, name: str, network: nn.Module, *inputs: Tensor
) -> Iterator[Line]:
    def step(run: Callable[..., Any]) -> None:
        found = run(*inputs)
        sum(x.mean() for x in (found if isinstance(found, tuple) else [found])).backward()

    compiled: Any = torch.compile(network, dynamic=False)
    start = time.perf_counter()
    step(compiled)
    yield figure("compile", f"compilation, {name}", time.perf_counter() - start, "s, wall clock")
    work = [lambda run=run: settings.seconds(lambda: step(run)) for run in (compiled, network)]
    found, eager = interleaved(work, max(2, settings.rounds))
    yield compared("compile", name, "s", found, eager, "eager")
