"""Tiny images and shards for the tests of this package."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from sdm_lightning.data.shards.index import ShardIndex
from sdm_lightning.data.shards.packing import pack_shards


def encoded(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Encode an array as an image file."""
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind, **options)
    return out.getvalue()


def photo(number: int, height: int = 12, width: int = 14) -> np.ndarray:
    """Return noise that differs from photo to photo."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_images(folder: Path, count: int, **options: int) -> Path:
    """Write ``000.png``, ``001.png``, ... and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:03d}.png").write_bytes(encoded(photo(number, **options)))
    return folder


def make_shards(root: Path, count: int, per_shard: int, **options: object) -> ShardIndex:
    """Pack ``count`` images, ``per_shard`` in each, into ``root/shards``."""
    images = make_images(root / "images", count)
    pack_shards(str(images), str(root / "shards"), max_samples=per_shard, num_workers=0, **options)
    return ShardIndex.load(root / "shards")


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar file with these members, in this order."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
