"""The generator: one pass and the whole loop beside their own products; pick and sample; memory."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Line, Settings, compared, figure, interleaved, peak_memory
from benchmarks.limits import Products, set_tf32, tf32
from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.inference.precision import wants_bfloat16
from sdm_lightning.memory import reuse_freed_memory
from sdm_lightning.models import Discriminator, Generator

LIMIT = "its convolutions, matrix products and attention"
TINY = {
    "base_channels": 8, "max_channels": 16, "num_downsamples": 4, "attention_strides": (8, 16),
    "attention_heads": 2, "latent_dim": 8, "mapping_layers": 2, "bias_channels": 4,
}  # fmt: skip


def build(settings: Settings, device: torch.device | None = None) -> Generator:
    """Build the paper's generator, or a tiny one."""
    torch.manual_seed(0)
    generator = Generator(**(TINY if settings.quick else {})).to(device or settings.device)
    if settings.device.type == "cuda":
        generator = generator.to(memory_format=torch.channels_last)
    return generator.eval().requires_grad_(False)


def gflop(build_network: Callable[[], nn.Module], size: int) -> float:
    """Count one iteration without computing it, two operations to a multiply-add."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build_network()(torch.zeros(1, 7, size, size))
    return counter.get_total_flops() / 1e9


def run(settings: Settings) -> Iterator[Line]:
    """Measure pass and loop at each size and precision."""
    cuda = settings.device.type == "cuda"
    generator = build(settings)
    yield from _counts(settings)
    peaks = {}
    precisions = _precisions(settings)
    for precision in precisions:
        with _precision(settings, precision):
            dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
            peaks[precision] = matmul_peak(settings, dtype)
        yield figure("generator", f"matrix product, {precision}", peaks[precision], "TFLOP/s")
    batches = {size: [1, 8] if cuda and not settings.quick else [1] for size in settings.sizes}
    for size in settings.sizes:
        work = gflop(lambda: build(settings, torch.device("meta")), size) / 1e3
        for precision in precisions:
            for batch in batches[size]:
                forward = functools.partial(_forward, settings, generator, precision)
                inputs = torch.rand(batch, 7, size, size, device=settings.device)
                single = functools.partial(forward, inputs)
                name = f"{size}x{size}, {precision}" + (f", batch {batch}" if batch > 1 else "")
                found, limit = _against_products(settings, single)
                line = compared(
                    "generator", f"one pass, {name}", "s", found, limit, LIMIT, size=size
                )
                line["share_of_peak"] = round(work * batch / line["value"] / peaks[precision], 3)
                yield line
                whole = functools.partial(_loop, settings, generator, precision, batch, size)
                if settings.quick or cuda or size <= 512:
                    found, limit = _against_products(settings, whole)
                    yield compared(
                        "generator", f"four iterations, {name}", "s", found, limit, LIMIT
                    )
        stub = (torch.zeros(1, 3, size, size, device=settings.device),) * 2
        apart, passes = interleaved(
            [
                lambda s=stub, n=size: settings.seconds(
                    lambda: _iterate(settings, lambda _: (s[0], _deviations(s[1])), 1, n)
                ) / 4,
                lambda n=size: settings.seconds(
                    functools.partial(
                        _forward, settings, generator, "float32",
                        torch.rand(1, 7, n, n, device=settings.device),
                    )
                ),
            ],
            settings.rounds,
            warm_up=settings.rounds > 1,
        )  # fmt: skip
        yield compared(
            "generator", f"pick and sample, {size}x{size}", "s", apart, passes, "one float32 pass"
        )


def _precisions(settings: Settings) -> list[str]:
    # Where bfloat16 is only imitated, it takes longer and tells nothing.
    on_gpu = settings.device.type == "cuda"
    bfloat16 = wants_bfloat16("auto", settings.device)
    return ["float32"] + ["tf32"] * on_gpu + ["bfloat16"] * bfloat16


def _deviations(like: Tensor) -> Tensor:
    """Distinct values, so that sorting them is work."""
    return torch.rand_like(like)


def _forward(settings: Settings, generator: nn.Module, precision: str, inputs: Tensor) -> Any:
    with torch.inference_mode(), _precision(settings, precision):
        return generator(inputs)


@contextmanager
def _precision(settings: Settings, precision: str) -> Iterator[None]:
    """Compute in float32, on a GPU also in TF32, or with autocast to bfloat16."""
    before = tf32()
    set_tf32(precision == "tf32", precision == "tf32")
    try:
        lower = precision == "bfloat16"
        with torch.autocast(settings.device.type, torch.bfloat16, enabled=lower):
            yield
    finally:
        set_tf32(*before)


def _iterate(settings: Settings, network: Any, batch: int, size: int) -> None:
    image = torch.zeros(batch, 3, size, size, device=settings.device)
    mask = torch.ones(batch, 1, size, size, device=settings.device)
    mask[:, :, size // 4 : -size // 4, size // 8 : -size // 8] = 0
    with torch.inference_mode():
        SpatialDiffusion(num_iterations=4)(network, image, mask)


def _loop(settings: Settings, generator: nn.Module, precision: str, batch: int, size: int) -> None:
    with _precision(settings, precision):
        _iterate(settings, generator, batch, size)


def _against_products(
    settings: Settings, work: Callable[[], Any]
) -> tuple[list[float], list[float]]:
    products = Products(work)
    pair = interleaved(
        [lambda: settings.seconds(work), lambda: settings.seconds(products)],
        settings.rounds,
        warm_up=settings.rounds > 1,  # a pass at 1024x1024 takes its time
    )
    return pair[0], pair[1]


def matmul_peak(settings: Settings, dtype: torch.dtype) -> float:
    """Return the best TFLOP/s of a large square matrix product."""
    side = 8192 if settings.device.type == "cuda" else (256 if settings.quick else 1536)
    a, b = (torch.randn(side, side, device=settings.device).to(dtype) for _ in range(2))
    best = min(settings.seconds(lambda: a @ b) for _ in range(6))
    return 2 * side**3 / best / 1e12


def _counts(settings: Settings) -> Iterator[Line]:
    with torch.device("meta"):
        generator, discriminator = Generator(), Discriminator()
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        paper = {"limit": 74.0, "limit_name": "Table 3", "ratio": round(count / 74, 3)}
        yield figure(
            "generator", f"parameters of the 512 {name}", count, "million",
            **(paper if name == "generator" else {}),
        )  # fmt: skip
    yield figure("generator", "one pass at 512x512", gflop(Generator, 512), "GFLOP")


def _pass_alone(
    settings: Settings, precision: str, size: int, reuse: bool
) -> tuple[float, float, float]:
    """Return seconds of a second pass, the peak of the process and what of it a pass adds."""
    if reuse:
        reuse_freed_memory()
    torch.set_num_threads(1)
    generator = build(settings)
    inputs = torch.rand(1, 7, size, size)
    work = functools.partial(_forward, settings, generator, precision, inputs)
    peak, above = peak_memory(work)
    return settings.seconds(work), peak, above


def run_memory(settings: Settings) -> Iterator[Line]:
    """Measure the peak of a pass; on a CPU also what returning freed memory to the kernel costs."""
    size = 64 if settings.quick else 512
    for precision in _precisions(settings):
        where = f"{size}x{size}, {precision}"
        name = f"memory of one pass beyond the weights, {where}"
        if settings.device.type == "cuda":
            generator = build(settings)
            before = torch.cuda.memory_allocated(settings.device)
            torch.cuda.reset_peak_memory_stats(settings.device)
            inputs = torch.rand(1, 7, size, size, device=settings.device)
            _forward(settings, generator, precision, inputs)
            peak = (torch.cuda.max_memory_allocated(settings.device) - before) / 2**20
            yield figure("memory", name, peak, "MiB")
            continue

        def alone(reuse: bool, precision: str = precision) -> tuple[float, float, float]:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                return pool.apply(_pass_alone, (settings, precision, size, reuse))

        rounds = max(1, settings.rounds // 2)
        pairs = [(alone(True), alone(False)) for _ in range(rounds)]
        yield figure("memory", name, pairs[0][0][2], "MiB")
        for place, (what, unit) in enumerate(
            [("one pass", "s"), ("peak memory of its process", "MiB")]
        ):
            found, limit = ([one[place] for one in column] for column in zip(*pairs, strict=True))
            yield compared(
                "memory", f"{what}, freed memory kept, {where}", unit, found, limit,
                "freed memory returned",
            )  # fmt: skip
