"""What do further iterations gain, and what could they gain at best?

For each T, looks at the pixels that are filled in the last iteration and compares, at those
pixels, the last iteration's mean with the first iteration's: as the loop runs, with the true pixels
in place of the picked ones (the most that iterations could gain), and with random ones (whether the
network reads them at all). The last column is the rank correlation of the first iteration's
uncertainty with its error::

    python experiments/photos/iterations.py runs/photos/test demo
"""

from pathlib import Path

import torch
from jsonargparse import auto_cli
from score import BATCH, read_windows
from torch import Tensor

from sdm_lightning.cli.errors import user_errors
from sdm_lightning.diffusion import DiffusionState, SpatialDiffusion
from sdm_lightning.diffusion.process import predict
from sdm_lightning.inference import load_generator
from sdm_lightning.metrics.paired import uncertainty_error_correlation

FEEDS = ("picked pixels", "true pixels", "random pixels")


def error(mean: Tensor, image: Tensor, region: Tensor) -> Tensor:
    """Return the squared error over a region, per image; NaN where it is empty."""
    squared = (mean.clamp(-1, 1) - image).square() * region
    return squared.sum((1, 2, 3)) / (3 * region.sum((1, 2, 3)))


@torch.inference_mode()
def gains(weights: str, images: Tensor, masks: Tensor, total: int) -> tuple[list[float], float]:
    """Return the gain of each feed in dB of PSNR, and the uncertainty's rank correlation."""
    network, info = load_generator(weights)
    network.eval()
    loop: SpatialDiffusion = info.build_diffusion()
    found: list[Tensor] = []
    correlations: list[Tensor] = []
    for pixels, mask in zip(images.split(BATCH), masks.split(BATCH), strict=True):
        image = pixels.float() / 127.5 - 1
        noise = [torch.Generator().manual_seed(index) for index in range(len(image))]
        codes = torch.stack([torch.randn(network.latent_dim, generator=g) for g in noise])
        styles = network.mapping(codes)

        def run(inputs: Tensor, styles: Tensor = styles) -> tuple[Tensor, Tensor]:
            return network(inputs, styles)

        steps = list(loop.iterate(run, image, mask, num_iterations=total, generator=noise))
        before = steps[-2].state
        last = 1 - before.mask
        picked = (before.mask - mask).bool()
        base = error(steps[0].mean, image, last)
        row = [10 * torch.log10(base / error(steps[-1].mean, image, last))]
        for feed in (image, torch.rand_like(image) * 2 - 1):
            fed = torch.where(picked, feed, before.image)
            state = DiffusionState(fed, before.mask, before.uncertainty, before.step)
            mean = predict(run, state, mask, total, loop.uncertainty_scale).mean
            row.append(10 * torch.log10(base / error(mean, image, last)))
        found.append(torch.stack(row))
        correlations.append(
            uncertainty_error_correlation(steps[0].uncertainty, steps[0].mean, image, mask)
        )
    means = torch.cat(found, dim=1).nanmean(1)
    return means.tolist(), torch.cat(correlations).nanmean().item()


def main(
    images: str,
    weights: str,
    iterations: list[int] = [2, 4],  # noqa: B006 (read by the command line)
    num_images: int = 400,
    masks: str = "mat256_large",
) -> None:
    """Print the table.

    Args:
        images: Folder of PNG windows, all of one size.
        weights: Weights file, checkpoint, run directory or packaged name.
        iterations: Numbers of iterations, each at least 2.
        num_images: Windows, evenly spread over the folder.
        masks: Preset of the masks.
    """
    originals, known = read_windows(Path(images), num_images, masks)
    print("| T | " + " | ".join(f"{feed}, dB" for feed in FEEDS) + " | correlation |")
    print("|---:|" + "---:|" * (len(FEEDS) + 1))
    for total in iterations:
        values, correlation = gains(weights, originals, known, total)
        print(f"| {total} | " + " | ".join(f"{v:+.2f}" for v in values) + f" | {correlation:.2f} |")


if __name__ == "__main__":
    with user_errors():
        auto_cli(main)
