"""Fillings in bfloat16 beside those in float32: time and difference, with the packaged weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.common import Line, Settings, compared, figure, interleaved
from sdm_lightning.data.transforms import center_crop, to_tensor
from sdm_lightning.demo.photos import test_photos
from sdm_lightning.inference import load_generator
from sdm_lightning.inference.precision import wants_bfloat16

CROP, HOLE = 128, 48


def run(settings: Settings) -> Iterator[Line]:
    """Fill the middle of the held-out photos four times over, from the same noise."""
    generator, info = load_generator("demo")
    generator.to(settings.device)
    diffusion = info.build_diffusion()
    photos = [center_crop(photo, CROP) for photo in test_photos().values()]
    photos = photos[: 2 if settings.quick else None]
    images = torch.stack([to_tensor(photo) for photo in photos]).to(settings.device)
    masks = torch.ones_like(images[:, :1])
    start = (CROP - HOLE) // 2
    hole = (slice(None), slice(None), slice(start, start + HOLE), slice(start, start + HOLE))
    masks[hole] = 0

    def fill(bfloat16: bool) -> Tensor:
        torch.manual_seed(0)
        with (
            torch.inference_mode(),
            torch.autocast(settings.device.type, torch.bfloat16, enabled=bfloat16),
        ):
            return diffusion(generator, images, masks).completed[hole].float() * 127.5

    difference = (fill(True) - fill(False)).abs()
    what = f"of fillings in bfloat16 from float32, {HOLE}x{HOLE} in {CROP}x{CROP}"
    for name, value, unit in (
        ("mean difference", difference.mean(), "levels"),
        ("99th percentile", difference.flatten().quantile(0.99), "levels"),
        ("PSNR", 10 * torch.log10(255**2 / difference.square().mean()), "dB"),
    ):
        yield figure("precision", f"{name} {what}", float(value), unit)
    if wants_bfloat16("auto", settings.device):  # elsewhere it is imitated, and slow
        pair = interleaved(
            [lambda kind=kind: settings.seconds(lambda: fill(kind)) for kind in (True, False)],
            settings.rounds,
        )
        name = f"{len(images)} fillings of {CROP}x{CROP} with the packaged weights, bfloat16"
        yield compared("precision", name, "s", *pair, "float32")
