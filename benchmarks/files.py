"""Synthetic photos and shards that the sections read."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sdm_lightning.data.shards.packing import pack_shards


def make_photos(folder: Path, count: int, side: int, extension: str = "jpg") -> Path:
    """Write smooth noise: as JPEGs about as many bytes per pixel as photos have."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (side // 8, side // 6, 3), dtype=np.uint8))
        image = small.resize((side * 4 // 3, side), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05d}.{extension}", quality=90)
    return folder


def make_shards(folder: Path, count: int, side: int) -> Path:
    """Pack synthetic photos."""
    photos = make_photos(folder / "photos", count, side)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is the table's
        pack_shards(str(photos), str(folder / "shards"), max_samples=30, num_workers=0)
    return folder / "shards"
