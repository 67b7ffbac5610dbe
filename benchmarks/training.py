"""The training step by phase, beside its own products; its memory against T."""

from __future__ import annotations

import functools
import multiprocessing
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import torch

from benchmarks.common import Line, Settings, compared, figure, peak_memory
from benchmarks.files import make_shards
from benchmarks.generator import LIMIT
from benchmarks.limits import Products
from sdm_lightning.data.loader import StreamLoader
from sdm_lightning.data.preprocess import TrainPreprocess
from sdm_lightning.data.shards.index import ShardIndex
from sdm_lightning.data.stream import TrainStream
from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.losses import FeaturePerceptualLoss, PixelPyramidLoss, ResNetPerceptualLoss
from sdm_lightning.models import Discriminator, Generator
from sdm_lightning.training import LossSettings, SDMModule
from tests.network_files import random_resnet

INTERVAL = 4  # batches between two penalties here, so that a short run has several
PHASES = {
    "_generator_phase": "generator, T = 2, forward and backward",
    "_discriminator_phase": "discriminator, forward and backward",
    "_penalty_phase": "R1, forward and double backward",
    "_after_steps": "moving average and counters",
}


class TimedModule(SDMModule):
    """Times its phases, and replays the products of a step after each."""

    settings: Settings

    def prepare(self, settings: Settings) -> None:
        """Start with empty tables."""
        self.settings = settings
        self.rows: list[dict[str, float]] = []
        self.limits: list[float] = []
        self.between: list[float] = []
        self._spent: dict[str, float] = defaultdict(float)
        self._products: dict[bool, Products] = {}
        self._last_end: float | None = None
        for method, name in PHASES.items():
            setattr(self, method, self._timed(name, getattr(self, method)))
        if self.perceptual is not None:
            name = "of it: perceptual loss, forward"
            self.perceptual.encode = self._timed(name, self.perceptual.encode)  # type: ignore[method-assign]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Time the optimizers' steps."""
        optimizers = super().configure_optimizers()
        for optimizer in optimizers:
            optimizer.step = self._timed("both optimizers", optimizer.step)  # type: ignore[method-assign]
        return optimizers

    def _timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def run(*args: Any, **kwargs: Any) -> Any:
            start = self.settings.clock()
            result = work(*args, **kwargs)
            self._spent[name] += self.settings.clock() - start
            return result

        return run

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Record the products of one step of each kind, then time steps and products in turns."""
        clock, penalised = self.settings.clock, batch_idx % INTERVAL == INTERVAL - 1
        step = functools.partial(super().training_step, batch, batch_idx)
        if batch_idx == 0:
            step()
        elif penalised not in self._products:
            self._products[penalised] = Products(step)
        else:
            if self._last_end is not None:
                self.between.append(clock() - self._last_end)
            self._spent.clear()
            start = clock()
            step()
            self._spent["the whole step" + (" with R1" if penalised else "")] = clock() - start
            self.rows.append(dict(self._spent))
            self.limits.append(self.settings.seconds(self._products[penalised]))
        self._last_end = clock()


def build(
    size: int,
    iterations: int,
    detach: bool = True,
    quick: bool = False,
    kind: type[SDMModule] = TimedModule,
    recompute: bool = False,
) -> Any:
    """Build a model for crops of a size: the paper's from 256 on, small ones below."""
    torch.manual_seed(0)
    perceptual: Any = PixelPyramidLoss()
    if size >= 256 and not quick:
        generator = Generator(
            attention_strides=(8, 16) if size < 512 else (16, 32), checkpoint_blocks=recompute
        )
        discriminator = Discriminator(size)
        with tempfile.TemporaryDirectory() as folder:
            perceptual = ResNetPerceptualLoss(str(random_resnet(Path(folder))))
            perceptual.prepare()
    else:
        base, most = (16, 96) if size >= 64 and not quick else (8, 32)
        generator = Generator(
            base_channels=base, max_channels=most, num_downsamples=4 if size >= 64 else 3,
            attention_strides=(8, 16) if size >= 64 else (4, 8), attention_heads=4,
            latent_dim=64, mapping_layers=2, bias_channels=16, checkpoint_blocks=recompute,
        )  # fmt: skip
        discriminator = Discriminator(size, base_channels=base, max_channels=most)
        if size >= 64 and not quick:
            perceptual = FeaturePerceptualLoss("efficientnet-lite0", min_size=96)
    return kind(
        generator, discriminator, perceptual,
        SpatialDiffusion(num_iterations=iterations, detach=detach),
        losses=LossSettings(r1_interval=INTERVAL),
    )  # fmt: skip


def fit(module: pl.LightningModule, loader: Any, steps: int, settings: Settings) -> None:
    """Train for so many batches without files."""
    pl.Trainer(
        max_steps=steps,
        devices=1,
        accelerator="gpu" if settings.device.type == "cuda" else "cpu",
        precision="bf16-mixed" if settings.device.type == "cuda" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, loader)


def stream(settings: Settings, size: int, batch: int) -> StreamLoader:
    """Read synthetic photos as ``sdm fit`` does, without workers."""
    folder = settings.folder / f"train{size}"
    shards = folder / "shards" if folder.exists() else make_shards(folder, 16, 2 * size)
    preset = {"mat256_large": 1.0}
    return StreamLoader(
        TrainStream(ShardIndex.load(str(shards)), TrainPreprocess(size, preset), batch_size=batch)
    )


def run(settings: Settings) -> Iterator[Line]:
    """Time the step at each size."""
    for size in settings.training:
        batch = 2 if settings.quick or size >= 256 else 8
        module = build(size, 2, quick=settings.quick)
        module.prepare(settings)
        blocks = 1 + max(1, settings.rounds // 2)
        fit(module, stream(settings, size, batch), INTERVAL * blocks, settings)
        parameters = sum(p.numel() for p in module.generator.parameters()) / 1e6
        where = f"{size}x{size}, batch {batch}, {parameters:.1f} million"
        for whole in ("the whole step", "the whole step with R1"):
            pairs = [
                (row[whole], limit)
                for row, limit in zip(module.rows, module.limits, strict=True)
                if whole in row
            ]
            found, limit = (list(column) for column in zip(*pairs, strict=True))
            yield compared("training", f"{whole}, {where}", "s", found, limit, LIMIT)
        plain = [row["the whole step"] for row in module.rows if "the whole step" in row]
        for name in (*PHASES.values(), "of it: perceptual loss, forward", "both optimizers"):
            spent = [row[name] for row in module.rows if name in row]
            if spent:
                share = sorted(spent)[len(spent) // 2] / sorted(plain)[len(plain) // 2]
                yield figure("training", f"{name}, {size}x{size}", 100 * share, "% of step")
        waited = sorted(module.between)[len(module.between) // 2]
        share = waited / sorted(plain)[len(plain) // 2]
        yield figure(
            "training", f"data (no workers) and trainer, {size}x{size}", 100 * share, "% of step"
        )
    yield from _memory(settings)


def _peak(settings: Settings, size: int, iterations: int, detach: bool, recompute: bool) -> float:
    torch.set_num_threads(1)
    # A first fit of another, tiny model pays for what libraries import and keep.
    fit(build(32, 1, quick=True, kind=SDMModule), stream(settings, 32, 2), 1, settings)
    module = build(size, iterations, detach, True, SDMModule, recompute)
    loader = stream(settings, size, 2)
    if settings.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(settings.device)
        fit(module, loader, INTERVAL, settings)
        return torch.cuda.max_memory_allocated(settings.device) / 2**20
    return peak_memory(lambda: fit(module, loader, INTERVAL, settings))[1]


def _memory(settings: Settings) -> Iterator[Line]:
    """Peak memory of steps with T iterations; on a CPU what a second fit adds to the process."""
    size = 64 if settings.quick else 256
    for side in (32, size):
        stream(settings, side, 2)
    # glibc keeps freed blocks for later; resident memory would show that, not what a step needs.
    freed = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    numbers = (1, 4) if settings.quick else (1, 2, 4, 8)
    cases = [
        *((number, True, False, "detached between iterations") for number in numbers),
        *((number, True, True, "detached, activations recomputed") for number in numbers[:2]),
        *((number, False, False, "full back-propagation") for number in numbers),
    ]
    one = 0.0
    with mock.patch.dict(os.environ, freed):
        for iterations, detach, recompute, kind in cases:
            case = (settings, size, iterations, detach, recompute)
            if settings.device.type == "cuda":  # its allocator counts by itself
                peak = _peak(*case)
            else:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    peak = pool.apply(_peak, case)
            one = one or peak
            yield figure(
                "training", f"peak memory, {size}x{size}, T = {iterations}, {kind}", peak, "MiB",
                limit=round(one), limit_name="T = 1", ratio=round(peak / max(one, 1), 3),
            )  # fmt: skip
