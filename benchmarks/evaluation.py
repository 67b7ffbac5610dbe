"""Scoring: folders through the evaluator beside the bare network; scores of 36,500 pairs."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.common import Line, Settings, compared, figure, interleaved, peak_memory
from benchmarks.files import make_photos
from sdm_lightning.evaluation.evaluate import run_pairs
from sdm_lightning.evaluation.evaluator import Evaluator
from sdm_lightning.evaluation.pairs import PairedFolders
from sdm_lightning.features import InceptionFeatures
from sdm_lightning.features.weights import sha256_of_file
from sdm_lightning.metrics import (
    FrechetInceptionDistance,
    PairedFeatures,
    inception_discriminative_scores,
)
from tests.network_files import random_inception

DIM = 2048
MEMORY_LIMIT_GB = 6.0


def run(settings: Settings) -> Iterator[Line]:
    """Time ``sdm evaluate``'s path on PNGs: decoding, features, PSNR, SSIM and L1."""
    count, size = (2, 32) if settings.quick else (8, 256)
    real = make_photos(settings.folder / "real", count, size, "png")
    fake = make_photos(settings.folder / "fake", count, size, "png")
    weights = random_inception(settings.folder)
    network = InceptionFeatures(weights, sha256_of_file(weights)[:8]).to(settings.device)
    images = torch.randint(0, 256, (2 * count, 3, size, size), dtype=torch.uint8)
    images = images.to(settings.device)

    def evaluate() -> None:
        evaluator = Evaluator(network, ids=False, precision_recall=False)
        pairs = PairedFolders(str(real), str(fake))
        run_pairs(pairs, evaluator, batch_size=count, num_workers=0, device=settings.device)

    found, limit = interleaved(
        [
            lambda: 1e3 * settings.seconds(evaluate) / (2 * count),
            lambda: 1e3 * settings.seconds(lambda: network.extract(images)) / (2 * count),
        ],
        max(1, settings.rounds // 2),
    )
    name = f"an image of sdm evaluate, {size}-pixel PNG, no workers"
    yield compared("evaluation", name, "ms", found, limit, "Inception alone")


def run_scores(settings: Settings) -> Iterator[Line]:
    """Time and size the scores of a whole test set, each in a process of its own."""
    count = 3000 if settings.quick else 36_500
    for name, work in (("P-IDS and U-IDS", _ids), ("FID", _fid)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, peak = pool.apply(work, (count,))
        pairs = f"{count} pairs of {DIM} features"
        yield figure("scores", f"{name}, {pairs}", seconds, "s")
        yield figure("scores", f"{name}, {pairs}, peak memory", peak, "GB") | {
            "limit": MEMORY_LIMIT_GB,
            "limit_name": "what it may take",
            "ratio": round(peak / MEMORY_LIMIT_GB, 3),
        }


def run_chance(settings: Settings) -> Iterator[Line]:
    """Score two independent draws of one distribution, by their number: perfect results."""
    for count in (2500,) if settings.quick else (500, 2000, 2993, 5000):
        real, fake = draw(count, 1), draw(count, 2)
        p_ids, u_ids = inception_discriminative_scores(real, fake, few_pairs=True)
        yield figure("chance", f"U-IDS of {count} perfect pairs", u_ids, "%")
        yield figure("chance", f"P-IDS of {count} perfect pairs", p_ids, "%")


def draw(count: int, seed: int) -> np.ndarray:
    """Rectified normal rows, of about the size of pooled Inception features."""
    rows = np.random.default_rng(seed).standard_normal((count, DIM), np.float32)
    rows *= 0.4
    return np.maximum(rows, 0, out=rows)


def _pairs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs that share half of what they are made of; either could be the original."""
    shared = draw(count, 0)
    real, fake = (torch.from_numpy((draw(count, seed) + shared) / 2) for seed in (1, 2))
    return real, fake


def _measured(work: Callable[[], Any]) -> tuple[float, float]:
    start = time.process_time()
    peak, _ = peak_memory(work)
    return time.process_time() - start, peak * 2**20 / 1e9


def _ids(count: int) -> tuple[float, float]:
    real, fake = _pairs(count)
    metric = PairedFeatures(DIM)
    ids = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    for part in torch.arange(count).split(32):
        metric.update(ids[part], real[part], fake[part])
    del real, fake
    return _measured(lambda: inception_discriminative_scores(*metric.compute()[1:]))


def _fid(count: int) -> tuple[float, float]:
    real, fake = _pairs(count)

    def work() -> None:
        metric = FrechetInceptionDistance(DIM)
        for a, b in zip(real.split(32), fake.split(32), strict=True):
            metric.update(a, real=True)
            metric.update(b, real=False)
        metric.compute()

    return _measured(work)
