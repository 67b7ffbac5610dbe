"""Speed and memory of evaluation, each figure beside its limit.

    python benchmarks/evaluation_speed.py scores    # FID and IDS of 36,500 pairs: time, memory
    python benchmarks/evaluation_speed.py sweep     # IDS of two draws of one distribution against N
    python benchmarks/evaluation_speed.py extract   # images/s of sdm evaluate, of the bare network

Features are synthetic. ``extract`` needs no download: it writes an Inception weights file with
random values, which costs the same time as the published one.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sdm_lightning.evaluation.evaluator import Evaluator
from sdm_lightning.evaluation.folders import run_pairs
from sdm_lightning.evaluation.pairs import PairedFolders
from sdm_lightning.features import InceptionFeatures
from sdm_lightning.files import sha256_of_file
from sdm_lightning.metrics import (
    FrechetInceptionDistance,
    InceptionDiscriminativeScores,
    inception_discriminative_scores,
)

DIM = 2048
LIMIT_GB = 6.0


def draw(count: int, seed: int) -> np.ndarray:
    """Rectified normal rows, of about the size of pooled Inception features."""
    rows = np.random.default_rng(seed).standard_normal((count, DIM), np.float32)
    rows *= 0.4
    return np.maximum(rows, 0, out=rows)


def exchangeable_pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that share half of what they are made of; either could be the original."""
    real, fake = draw(count, 1), draw(count, 2)
    shared = draw(count, 0)
    for rows in (real, fake):
        rows += shared
        rows /= 2
    return real, fake


def peak_gb() -> float:
    """Peak resident memory of this process in gigabytes (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def isolated(function: Callable[..., Any], *args: Any) -> Any:
    """Run in a process of its own, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def measure_ids(count: int) -> dict[str, float]:
    real, fake = (torch.from_numpy(rows) for rows in exchangeable_pairs(count))
    before, start, cpu = peak_gb(), time.monotonic(), time.process_time()
    metric = InceptionDiscriminativeScores(DIM)
    ids = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    for part in torch.arange(count).split(32):
        metric.update(ids[part], real[part], fake[part])
    del real, fake
    p_ids, u_ids = metric.compute()
    return {
        "seconds": time.monotonic() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_gb": peak_gb(),
        "inputs_gb": before,
        "p_ids": p_ids,
        "u_ids": u_ids,
    }


def measure_fid(count: int) -> dict[str, float]:
    real, fake = (torch.from_numpy(rows) for rows in exchangeable_pairs(count))
    before, start, cpu = peak_gb(), time.monotonic(), time.process_time()
    metric = FrechetInceptionDistance(DIM)
    for a, b in zip(real.split(32), fake.split(32), strict=True):
        metric.update(a, real=True)
        metric.update(b, real=False)
    middle = time.monotonic()
    fid = metric.compute()
    return {
        "update_seconds": middle - start,
        "compute_seconds": time.monotonic() - middle,
        "cpu_seconds": time.process_time() - cpu,
        "peak_gb": peak_gb(),
        "inputs_gb": before,
        "fid": fid,
    }


def measure_draws(count: int) -> tuple[float, float, float]:
    real, fake = draw(count, 1), draw(count, 2)
    start = time.process_time()
    scores = inception_discriminative_scores(real, fake, few_pairs=True)
    return *scores, time.process_time() - start


def scores(count: int) -> None:
    print(f"{count} pairs of {DIM} features, {torch.get_num_threads()} thread(s)")
    for name, function in (("P-IDS, U-IDS", measure_ids), ("FID", measure_fid)):
        found = isolated(function, count)
        figures = ", ".join(f"{key} {value:.2f}" for key, value in found.items())
        verdict = "within" if found["peak_gb"] <= LIMIT_GB else "ABOVE"
        print(f"{name}: {figures}; peak {verdict} the limit of {LIMIT_GB} GB", flush=True)


def sweep(counts: list[int]) -> None:
    print("two independent draws of one distribution\n    N   U-IDS %   P-IDS %   CPU s")
    for count in counts:
        p_ids, u_ids, seconds = isolated(measure_draws, count)
        print(f"{count:5d}  {u_ids:8.2f}  {p_ids:8.2f}  {seconds:8.1f}", flush=True)


def random_inception(folder: Path) -> InceptionFeatures:
    """The protocol's network with random weights, through the same loading code."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Network

    class Untrained(Network):
        def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
            return None

    empty, path = folder / "empty.pth", folder / "inception.pth"
    torch.save({}, empty)
    torch.save(Untrained("x", ["2048"], feature_extractor_weights_path=empty).state_dict(), path)
    return InceptionFeatures(path, sha256_of_file(path)[:8])


def bare_rate(network: InceptionFeatures, images: torch.Tensor, seconds: float = 20) -> float:
    """Images/s of the network alone, on one batch that lies ready."""
    network.extract(images)
    done, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        network.extract(images).cpu()
        done += len(images)
    return done / (time.monotonic() - start)


def extract(count: int, size: int, batch: int, device: Any, workers: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        rng = np.random.default_rng(0)
        for folder in ("real", "fake"):
            (root / folder).mkdir()
            for i in range(count):
                coarse = rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
                picture = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
                picture.save(root / folder / f"{i:05d}.png")
        network = random_inception(root).to(device)
        images = torch.randint(0, 256, (batch, 3, size, size)).to(torch.uint8).to(device)
        before = bare_rate(network, images)
        pairs = PairedFolders(str(root / "real"), str(root / "fake"))
        evaluator = Evaluator(network, ids=False, precision_recall=False)
        start = time.monotonic()
        run_pairs(pairs, evaluator, batch_size=batch // 2, num_workers=workers, device=device)
        piped = 2 * count / (time.monotonic() - start)
        after = bare_rate(network, images)
    threads = torch.get_num_threads()
    print(
        f"{size}x{size} PNG, batches of {batch}, {device}, {threads} thread(s), {workers} workers"
    )
    print(f"bare network: {before:.2f} images/s before, {after:.2f} after")
    share = 100 * piped / ((before + after) / 2)
    print(f"decoding, features, PSNR, SSIM, L1: {piped:.2f} images/s, {share:.0f} % of that")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["scores", "sweep", "extract"])
    parser.add_argument("--count", type=int, nargs="+")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if args.what == "scores":
        scores(args.count[0] if args.count else 36_500)
    elif args.what == "sweep":
        sweep(args.count or [500, 2000, 2993, 5000])
    else:
        count = args.count[0] if args.count else 64
        extract(count, args.size, args.batch, args.device, args.workers)


if __name__ == "__main__":
    main()
