"""Do the small-scale scores order known damage rightly, and how noisy are they?

Splits held-out windows by photo. One half is the reference; the other half ("other photos") shows
what a score of undamaged images is. Then the reference's own holes are filled badly in known ways.
Each score is the mean over random subsets of each size, with its standard deviation over subsets
(of all images there is one)::

    python experiments/photos/validate_scores.py runs/photos/test --weights demo
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from jsonargparse import auto_cli
from score import BATCH, NETWORKS, Fill, classical, model, read_windows
from torch import Tensor

from sdm_lightning.cli.errors import user_errors
from sdm_lightning.features.extractors import ImageNetworkFeatures
from sdm_lightning.inference.methods import BASELINES
from sdm_lightning.metrics.feature_distance import FeatureDistance
from sdm_lightning.metrics.fid import frechet_distance
from sdm_lightning.metrics.kid import kernel_distance
from sdm_lightning.metrics.paired import psnr

SUBSETS = 10
OTHER = "other photos"


def distorted(change: Callable[[np.ndarray], np.ndarray]) -> Fill:
    """Return a filling with a distorted copy of the original."""

    def fill(image: Tensor, mask: Tensor, first: int) -> Tensor:
        arrays = [change(pixels) for pixels in image.permute(0, 2, 3, 1).numpy()]
        changed = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        return torch.where(mask.bool(), image, changed)

    return fill


def noise(pixels: np.ndarray) -> np.ndarray:
    drawn = np.random.default_rng(int(pixels.sum())).normal(0, 20, pixels.shape)
    return np.clip(pixels + drawn, 0, 255).astype(np.uint8)


def fillings(weights: list[str]) -> dict[str, Fill]:
    """List every filling by name."""
    found = {
        "original, blurred slightly (sigma 1)": distorted(lambda x: cv2.GaussianBlur(x, (0, 0), 1)),
        "original, blurred (sigma 3)": distorted(lambda x: cv2.GaussianBlur(x, (0, 0), 3)),
        "original, with noise (sigma 20)": distorted(noise),
    }
    found |= {name: classical(name) for name in BASELINES}
    return found | {f"{Path(path).name}, T = 4": model(path, 4) for path in weights}


def fid(first: Tensor, second: Tensor) -> float:
    moments = [(x.double().mean(0), x.double().T.cov()) for x in (first, second)]
    return frechet_distance(*moments[0], *moments[1])


def spread(values: list[float]) -> str:
    deviation = f" ± {float(f'{np.std(values):.1g}'):g}" if len(values) > 1 else ""
    return f"{np.mean(values):.3g}{deviation}"


def subsets(count: int, size: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    number = SUBSETS if size < count else 1
    return [torch.randperm(count, generator=generator)[:size] for _ in range(number)]


def main(
    images: str,
    weights: list[str] = ["demo"],  # noqa: B006 (read by the command line)
    num_images: int = 2000,
    sizes: list[int] = [250, 500, 1000],  # noqa: B006
    masks: str = "mat256_large",
    network: str = NETWORKS[1],
) -> None:
    """Print one table.

    Args:
        images: Folder of PNG windows, named after their photo.
        weights: Models to add.
        num_images: Windows, evenly spread over the folder; half of them are the reference.
        sizes: Numbers of images per score.
        masks: Preset of the masks.
        network: Feature network.
    """
    windows, known = read_windows(Path(images), num_images, masks)
    half = num_images // 2  # sorted by photo, so that at most one photo is on both sides
    others, windows, known = windows[:half], windows[half:], known[half:]
    extractor, distance = ImageNetworkFeatures(network), FeatureDistance(network)

    def rows(pictures: Tensor) -> Tensor:
        return torch.cat([extractor.extract(part) for part in pictures.split(BATCH)])

    reference = rows(windows)
    heads = [f"KID x 1000, N = {size}" for size in sizes] + [f"FID, N = {size}" for size in sizes]
    print("| fillings | " + " | ".join([*heads, "feature distance", "PSNR in the hole"]) + " |")
    print("|---|" + "---:|" * (len(heads) + 2))
    for name, fill in [(OTHER, None), *fillings(weights).items()]:
        if fill is None:
            pictures = others
        else:
            pairs = zip(windows.split(BATCH), known.split(BATCH), strict=True)
            pictures = torch.cat([fill(a, b, BATCH * i) for i, (a, b) in enumerate(pairs)])
        found = rows(pictures)
        cells = []
        for measure in (lambda a, b: kernel_distance(a, b, subsets=20)[0], fid):
            for size in sizes:
                chosen = subsets(min(len(reference), len(found)), size)
                cells.append(spread([measure(reference[i], found[i]) for i in chosen]))
        if fill is None:
            cells += ["", ""]
        else:
            pairs = zip(pictures.split(BATCH), windows.split(BATCH), strict=True)
            apart = torch.cat([distance(a, b) for a, b in pairs]).mean().item()
            cells += [f"{apart:.3g}", f"{psnr(pictures, windows, known).mean().item():.1f}"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    with user_errors():
        auto_cli(main)
