"""The data path: decoders, the stream beside bare decoding and webdataset, masks beside Pillow."""

from __future__ import annotations

import functools
import io
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
import webdataset as wds
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks.common import Line, Settings, compared, interleaved
from benchmarks.files import make_shards
from sdm_lightning.data import decode
from sdm_lightning.data.decode import decode_image
from sdm_lightning.data.loader import StreamLoader
from sdm_lightning.data.masks.presets import free_form_mask
from sdm_lightning.data.preprocess import TrainPreprocess
from sdm_lightning.data.shards.index import ShardIndex
from sdm_lightning.data.stream import TrainStream


def run(settings: Settings) -> Iterator[Line]:
    """Measure decoders, loaders and masks."""
    size = 32 if settings.quick else 256
    shards = make_shards(settings.folder / "data", 8 if settings.quick else 120, 2 * size)
    photos = [path.read_bytes() for path in sorted((shards.parent / "photos").iterdir())]
    yield from _decoders(settings, photos, f"{2 * size * 4 // 3}x{2 * size} JPEG")
    yield from _loaders(settings, shards, photos, size)
    yield from _masks(settings)


def _pillow(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def decoders() -> dict[str, Callable[[bytes], Any]]:
    """List the decoders at hand."""

    def opencv(data: bytes) -> Any:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

    def torchvision(data: bytes) -> Any:
        # A copy, since bytes cannot be written to and torch would warn.
        return decode_jpeg(
            torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB
        )

    found = {
        "Pillow": _pillow, "OpenCV": opencv, "torchvision": torchvision,
        "the stream's own (Pillow with checks)": with_pillow(decode_image),
    }  # fmt: skip
    if decode.simplejpeg is not None:
        found["the stream's own, with simplejpeg"] = decode_image
    return found


def with_pillow(work: Callable[..., Any]) -> Callable[..., Any]:
    """Make work run as it does where ``simplejpeg`` is not installed."""

    def run(*args: Any) -> Any:
        with mock.patch.object(decode, "simplejpeg", None):
            return work(*args)

    return run


def _decoders(settings: Settings, photos: list[bytes], what: str) -> Iterator[Line]:
    names = decoders()
    cpu = _per_item(len(photos))
    works = [cpu(lambda d=decode: [d(photo) for photo in photos]) for decode in names.values()]
    columns = interleaved(works, settings.rounds)
    for name, column in zip(names, columns, strict=True):
        yield compared("data", f"decode a {what}: {name}", "ms", column, columns[0], "Pillow")


def _per_item(count: int) -> Callable[[Callable[[], Any]], Callable[[], float]]:
    """Milliseconds of this process's processor per item."""

    def wrap(work: Callable[[], Any]) -> Callable[[], float]:
        def measure() -> float:
            start = time.process_time()
            work()
            return 1e3 * (time.process_time() - start) / count

        return measure

    return wrap


class PlainDecode:
    """Decode, crop at random and make a tensor, from WebDataset's sample."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, sample: dict[str, Any]) -> torch.Tensor:
        """Return one image ``(3, size, size)`` in [-1, 1]."""
        image = _pillow(sample["jpg"])
        top, left = (int(torch.randint(0, n - self.size + 1, ())) for n in image.shape[:2])
        crop = image[top : top + self.size, left : left + self.size]
        tensor = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        return tensor.float().div_(127.5).sub_(1)


def _loaders(settings: Settings, shards: Path, photos: list[bytes], size: int) -> Iterator[Line]:
    index = ShardIndex.load(str(shards))
    paths, batch = [shard.url for shard in index.shards], 8

    def plain(workers: int) -> Iterable[Any]:
        dataset = (
            wds.WebDataset(paths, shardshuffle=False, resampled=True)
            .shuffle(100)
            .map(PlainDecode(size))
            .batched(batch)
        )
        return DataLoader(dataset, batch_size=None, num_workers=workers)

    def stream(workers: int) -> Iterable[Any]:
        preprocess = TrainPreprocess(size, {"mat256_large": 1.0})
        return StreamLoader(TrainStream(index, preprocess, batch_size=batch), num_workers=workers)

    count = 2 if settings.quick else 12
    cpu, bare = _per_item(count * batch), bare_decoders()

    def decode_all(decoder: Callable[[bytes], Any]) -> None:
        for number in range(count * batch):
            decoder(photos[number % len(photos)])

    ours, rival = iter(stream(0)), iter(plain(0))
    limits = {"plain webdataset without masks": lambda: [next(rival) for _ in range(count)]}
    limits |= {name: functools.partial(decode_all, decoder) for name, decoder in bare.items()}
    works = {"": with_pillow(lambda: [next(ours) for _ in range(count)])}
    if decode.simplejpeg is not None:
        works[", simplejpeg"] = lambda: [next(ours) for _ in range(count)]
    columns = interleaved(
        [cpu(work) for work in (*limits.values(), *works.values())], settings.rounds
    )
    for kind, column in zip(works, columns[len(limits) :], strict=True):
        name = f"an image of the stream (crop {size}, mask, checks), no workers{kind}"
        for limit_name, limit in zip(limits, columns, strict=False):
            if kind or "simplejpeg" not in limit_name:  # the stream with Pillow could not reach it
                yield compared("data", name, "ms", column, limit, limit_name)
    fastest, decoder = list(bare.items())[-1]
    for workers in (1,) if settings.quick else (1, 2):
        rates = [
            *(_seconds_per_image(lambda w=workers, k=kind: k(w), batch, count)
              for kind in (stream, plain)),
            lambda w=workers: 1e3 * _wall(lambda: decode_all(decoder)) / (count * batch) / w,
        ]  # fmt: skip
        found, *others = interleaved(rates, max(3, settings.rounds // 2), warm_up=False)
        name = f"an image of the stream, {workers} workers, wall clock"
        share = "" if workers == 1 else f"1/{workers} of "
        for limit_name, limit in zip(
            ("plain webdataset without masks", f"{share}{fastest}"), others, strict=True
        ):
            yield compared("data", name, "ms", found, limit, limit_name)


def bare_decoders() -> dict[str, Callable[[bytes], Any]]:
    """List the decoders that a stream can have, without its checks; the fastest last."""
    found = {"bare decoding with Pillow": _pillow}
    if decode.simplejpeg is not None:
        found["bare decoding with simplejpeg"] = decode.simplejpeg.decode_jpeg
    return found


def _wall(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _seconds_per_image(
    build: Callable[[], Iterable[Any]], batch: int, count: int
) -> Callable[[], float]:
    def measure() -> float:
        batches = iter(build())
        for _ in itertools.islice(batches, 4):  # they pay for starting the workers
            pass
        seconds = _wall(lambda: deque(itertools.islice(batches, count), maxlen=0))
        return 1e3 * seconds / (count * batch)

    return measure


def plain_mask(size: int, chance: random.Random) -> np.ndarray:
    """Draw rectangles and zigzag strokes of ``mat512_large`` one piece at a time with Pillow."""
    image = Image.new("L", (size, size), 255)
    draw = ImageDraw.Draw(image)
    for most, longest in ((5, size // 2), (3, size)):
        for _ in range(chance.randrange(most)):
            left, top = (chance.randrange(size) for _ in range(2))
            width, height = (chance.randrange(1, longest) for _ in range(2))
            draw.rectangle((left, top, left + width, top + height), fill=0)
    for _ in range(chance.randrange(9)):
        x, y, width = chance.random() * size, chance.random() * size, chance.randrange(12, 48)
        for joint in range(chance.randrange(4, 18)):
            angle = chance.uniform(0.8, 1.7) * (-1) ** joint
            length = min(max(chance.gauss(size / 5.6, size / 11), 0), size / 2.8)
            to_x = min(max(x + length * math.cos(angle), 0), size)
            to_y = min(max(y + length * math.sin(angle), 0), size)
            draw.line((x, y, to_x, to_y), fill=0, width=width)
            draw.ellipse((to_x - width / 2, to_y - width / 2, to_x + width / 2, to_y + width / 2),
                         fill=0)  # fmt: skip
            x, y = to_x, to_y
    return (np.asarray(image) > 127).astype(np.uint8)


def _masks(settings: Settings) -> Iterator[Line]:
    draws = 5 if settings.quick else 150
    cpu, chance = _per_item(draws), random.Random(0)
    rows = [("mat512_large", 512), ("mat256_large", 256), ("mat256_large", 64)]
    rows += [("comodgan512", 512), ("lama_thick", 512), ("lama_thin", 512)]
    for preset, size in rows:
        found, plain = interleaved(
            [
                cpu(lambda p=preset, s=size: [free_form_mask(p, s, i) for i in range(draws)]),
                cpu(lambda s=size: [plain_mask(s, chance) for _ in range(draws)]),
            ],
            settings.rounds,
        )
        limit_name = "plain Pillow strokes of mat512_large"
        yield compared("masks", f"{preset}, {size}x{size}", "ms", found, plain, limit_name)
