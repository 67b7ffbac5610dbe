"""Score weights and classical methods on windows of photos that no training saw.

Draws one mask for each window from its file name, fills it with every method, and prints a
Markdown table: KID and an uncalibrated feature distance on two ImageNet networks, and PSNR in the
hole. One JSON line per row goes to ``--out``. The small configs train with ``efficientnet-lite0``,
so the columns of ``efficientnet-lite2`` are the ones to judge by::

    python experiments/photos/prepare.py runs/photos --packages packages
    python experiments/photos/score.py runs/photos/test '[demo, runs/NAME]'
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from sdm_lightning.cli.errors import user_errors
from sdm_lightning.data.masks.presets import free_form_mask
from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.errors import InputError
from sdm_lightning.features.extractors import ImageNetworkFeatures
from sdm_lightning.features.images import to_uint8
from sdm_lightning.files import sha256_of_file
from sdm_lightning.inference import load_generator
from sdm_lightning.inference.methods import BASELINES
from sdm_lightning.inference.weights import find_weights
from sdm_lightning.metrics.feature_distance import FeatureDistance
from sdm_lightning.metrics.kid import kernel_distance
from sdm_lightning.metrics.paired import psnr
from sdm_lightning.seeding import stable_seed
from sdm_lightning.training.styles import draw_styles, styled_network

NETWORKS = ("efficientnet-lite0", "efficientnet-lite2")
BATCH = 32
Fill = Callable[[Tensor, Tensor, int], Tensor]


class Scores:
    """Features of the originals, and every score of a set of fillings."""

    def __init__(self, images: Tensor, masks: Tensor) -> None:
        self.images, self.masks = images, masks
        self.extractors = [ImageNetworkFeatures(name) for name in NETWORKS]
        self.distances = [FeatureDistance(name) for name in NETWORKS]
        self.originals = [self._rows(extractor, images) for extractor in self.extractors]

    def __call__(self, filled: Tensor) -> dict[str, float]:
        """Score fillings, uint8 ``(N, 3, H, W)`` in the order of the images."""
        found: dict[str, float] = {}
        for extractor, originals in zip(self.extractors, self.originals, strict=True):
            value, deviation = kernel_distance(originals, self._rows(extractor, filled))
            found[f"kid[{extractor.label}]"] = value
            found[f"kid_deviation[{extractor.label}]"] = deviation
        for distance in self.distances:
            pairs = zip(filled.split(BATCH), self.images.split(BATCH), strict=True)
            rows = torch.cat([distance(a, b) for a, b in pairs])
            found[f"feature_distance[{distance.label}]"] = rows.mean().item()
        found["psnr_hole"] = psnr(filled, self.images, self.masks).mean().item()
        return found

    @staticmethod
    def _rows(extractor: ImageNetworkFeatures, images: Tensor) -> Tensor:
        return torch.cat([extractor.extract(part) for part in images.split(BATCH)])


def model(weights: str, num_iterations: int, diffusion: SpatialDiffusion | None = None) -> Fill:
    """Return a filling by the model's averaged generator, one latent code for each image."""
    network, info = load_generator(weights)
    loop = diffusion or info.build_diffusion()

    @torch.inference_mode()
    def fill(image: Tensor, mask: Tensor, first: int) -> Tensor:
        noise = [torch.Generator().manual_seed(first + index) for index in range(len(image))]
        styled = styled_network(network, draw_styles(network, len(image), generator=noise))
        step = loop(
            styled, image.float() / 127.5 - 1, mask, num_iterations=num_iterations, generator=noise
        )
        return torch.where(mask.bool(), image, to_uint8(step.completed))

    return fill


def settings(diffusion: SpatialDiffusion) -> dict[str, Any]:
    """Return a spatial diffusion's class and settings for a line of results."""
    plain = {
        name: value if isinstance(value, int | float | str) else type(value).__name__
        for name, value in vars(diffusion).items()
    }
    return {"class": type(diffusion).__name__, **plain}


def classical(name: str) -> Fill:
    """Return a filling by a classical method."""

    def fill(image: Tensor, mask: Tensor, first: int) -> Tensor:
        pairs = zip(image.permute(0, 2, 3, 1).numpy(), mask[:, 0].bool().numpy(), strict=True)
        arrays = [BASELINES[name](np.ascontiguousarray(pixels), known) for pixels, known in pairs]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)

    return fill


def read_windows(folder: Path, num_images: int, masks: str) -> tuple[Tensor, Tensor]:
    """Read windows evenly spread over a folder's files, and draw their masks."""
    files = sorted(folder.glob("*.png"))
    if len(files) < num_images:
        raise InputError(f"{folder} holds {len(files)} PNG files; --num_images asks {num_images}")
    chosen = [files[index * len(files) // num_images] for index in range(num_images)]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in chosen])
    size = pixels.shape[1]
    drawn = [free_form_mask(masks, size, stable_seed(path.stem)) for path in chosen]
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(np.stack(drawn))[:, None].float()


def methods(
    weights: list[str], iterations: list[int], baselines: bool, diffusion: SpatialDiffusion | None
) -> Iterator[tuple[str, int | None, Fill]]:
    """List name, iterations and filling of every row."""
    for path in weights:
        for count in iterations:
            yield path, count, model(path, count, diffusion)
    if baselines:
        for name in BASELINES:
            yield name, None, classical(name)


def main(
    images: str,
    weights: list[str],
    iterations: list[int] = [1, 2, 4, 8],  # noqa: B006 (read by the command line)
    num_images: int = 1000,
    masks: str = "mat256_large",
    baselines: bool = True,
    diffusion: SpatialDiffusion | None = None,
    out: str | None = None,
) -> None:
    """Print the table and append one JSON line a row.

    Args:
        images: Folder of PNG windows, all of one size.
        weights: Weights files, checkpoints, run directories or packaged names, as a list.
        iterations: Numbers of iterations to test with.
        num_images: Windows, evenly spread over the folder.
        masks: Preset of the masks.
        baselines: Also score the classical methods.
        diffusion: Spatial diffusion instead of the weights' own, such as SpatialDiffusion with
            ``--diffusion.schedule CosineSchedule``.
        out: File of JSON lines to append to.
    """
    torch.manual_seed(0)
    originals, known = read_windows(Path(images), num_images, masks)
    scores = Scores(originals, known)
    rows = []
    for name, count, fill in methods(weights, iterations, baselines, diffusion):
        parts = zip(originals.split(BATCH), known.split(BATCH), strict=True)
        label = name if count is None else f"{Path(name).name}, {count} iteration(s)"
        filled = torch.cat(
            [fill(a, b, BATCH * i) for i, (a, b) in enumerate(tqdm(list(parts), label))]
        )
        row = {"method": Path(name).name, "iterations": count, **scores(filled)}
        row |= {"num_images": num_images, "masks": masks, "size": originals.shape[-1]}
        if count is not None:
            row["weights_sha256"] = sha256_of_file(find_weights(name))
            if diffusion is not None:
                row["diffusion"] = settings(diffusion)
            row["images_seen"] = load_generator(name)[1].images_seen
        rows.append(row)
        if out is not None:
            with open(out, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    columns = [key for key in rows[0] if "[" in key and "deviation" not in key] + ["psnr_hole"]
    print("| method | T | " + " | ".join(columns) + " |")
    print("|---|---:|" + "---:|" * len(columns))
    for row in rows:
        values = " | ".join(f"{row[key]:.3g}" for key in columns)
        print(f"| {row['method']} | {row['iterations'] or ''} | {values} |")


if __name__ == "__main__":
    with user_errors():
        auto_cli(main)
