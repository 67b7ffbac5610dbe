"""Images per second of the training stream beside plain WebDataset on the same shards.

Both read the same tar files, decode with Pillow, crop and make float tensors in batches, with the
same number of workers, one after the other in this process. The stream does more: exact order,
index checks, free-form masks. Run it as

    python benchmarks/data_throughput.py                      # synthetic photos, made on the spot
    python benchmarks/data_throughput.py --shards places/     # your own

and read the ratio: 1 means that what the stream adds costs nothing.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from PIL import Image
from torch.utils.data import DataLoader

from sdm_lightning.data.loader import StreamLoader
from sdm_lightning.data.preprocess import TrainPreprocess
from sdm_lightning.data.shards.index import ShardIndex
from sdm_lightning.data.shards.packing import pack_shards
from sdm_lightning.data.stream import TrainStream


def make_photos(folder: Path, count: int, side: int) -> None:
    """Write smooth noise as JPEGs: about as many bytes per pixel as photos have."""
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (side // 8, side // 6, 3), dtype=np.uint8))
        image = small.resize((side * 4 // 3, side), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05d}.jpg", quality=90)


class PlainDecode:
    """Decode and crop at random, with WebDataset's sample as input."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, sample: dict[str, Any]) -> torch.Tensor:
        """Return one image ``(3, size, size)`` in [-1, 1]."""
        image = np.array(Image.open(io.BytesIO(sample["jpg"])).convert("RGB"))
        top, left = (int(torch.randint(0, n - self.size + 1, ())) for n in image.shape[:2])
        crop = image[top : top + self.size, left : left + self.size]
        tensor = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        return tensor.float().div_(127.5).sub_(1)


def plain_loader(paths: list[str], size: int, batch: int, workers: int) -> Iterable[Any]:
    """Build what a user of WebDataset would write."""
    dataset = (
        wds.WebDataset(paths, shardshuffle=False, resampled=True)
        .shuffle(1000)
        .map(PlainDecode(size))
        .batched(batch)
    )
    return DataLoader(dataset, batch_size=None, num_workers=workers)


def stream_loader(
    index: ShardIndex, size: int, batch: int, workers: int, preset: str
) -> Iterable[Any]:
    """Build what the data module builds."""
    stream = TrainStream(index, TrainPreprocess(size, {preset: 1.0}), batch_size=batch)
    return StreamLoader(stream, num_workers=workers)


def images_per_second(loader: Iterable[Any], batch: int, images: int) -> tuple[float, float]:
    """Time a loader after its first batches, which pay for starting the workers.

    Returns:
        Images per second, and milliseconds per image on the processor of this process.
    """
    batches = iter(loader)
    for _ in itertools.islice(batches, 4):
        pass
    count = max(images // batch, 1)
    start, used = time.perf_counter(), time.process_time()
    for _ in itertools.islice(batches, count):
        pass
    seconds, used = time.perf_counter() - start, time.process_time() - used
    return count * batch / seconds, 1000 * used / (count * batch)


def main() -> None:
    """Print one line per number of workers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", help="folder of jpg shards with an index; default synthetic")
    parser.add_argument("--size", type=int, default=256, help="side of the crop")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=400, help="timed per loader and repeat")
    parser.add_argument("--repeats", type=int, default=3, help="the best of these counts")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="mat256_large")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.shards is None:
            photos = Path(folder) / "photos"
            photos.mkdir()
            make_photos(photos, 240, args.size * 2)
            args.shards = str(Path(folder) / "shards")
            pack_shards(str(photos), args.shards, max_samples=30, num_workers=0)
        index = ShardIndex.load(args.shards)
        size = sum(shard.bytes for shard in index.shards) / index.num_samples
        print(
            f"{index.num_samples} images, {size / 1e3:.0f} kB each, crop {args.size}, batch "
            f"{args.batch}, {os.cpu_count()} cores ({platform.processor() or platform.machine()}), "
            f"torch {torch.__version__}, webdataset {wds.__version__}"
        )
        print(f"workers  webdataset  sdm stream  ratio  (images/s, best of {args.repeats})")
        paths = [shard.url for shard in index.shards]
        for workers in args.workers:
            runs = []
            for _ in range(args.repeats):
                plain = plain_loader(paths, args.size, args.batch, workers)
                ours = stream_loader(index, args.size, args.batch, workers, args.preset)
                runs.append(
                    [images_per_second(loader, args.batch, args.images) for loader in (plain, ours)]
                )
            best = [max(run[i][0] for run in runs) for i in range(2)]
            line = f"{workers:7d}  {best[0]:10.0f}  {best[1]:10.0f}  {best[1] / best[0]:5.2f}"
            if workers == 0:
                # On a busy machine this is the steadier figure.
                cost = [min(run[i][1] for run in runs) for i in range(2)]
                line += f"  ({cost[0]:.2f} and {cost[1]:.2f} ms of one core per image)"
            print(line, flush=True)


if __name__ == "__main__":
    main()
