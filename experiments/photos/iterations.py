"""What do further iterations gain, and what could they gain at best?

For each T, looks at the pixels that are filled in the last iteration and compares, at those
pixels, the last iteration's mean with the first iteration's: as the loop runs, with the true pixels
in place of the picked ones (the most that iterations could gain), and with random ones (whether the
network reads them at all). The last column is the rank correlation of the first iteration's
uncertainty with its error.

A second table has a row for each iteration, about the pixels that it fills: their PSNR when they
are filled and in the result, and what the first pass and, with --single, the one pass of other
weights have there::

    python experiments/photos/iterations.py runs/photos/test demo
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from jsonargparse import auto_cli
from score import BATCH, read_windows
from torch import Tensor, nn

from sdm_lightning.cli.errors import user_errors
from sdm_lightning.diffusion import DiffusionState, DiffusionStep, Network, SpatialDiffusion
from sdm_lightning.diffusion.process import predict
from sdm_lightning.inference import load_generator
from sdm_lightning.metrics.paired import uncertainty_error_correlation
from sdm_lightning.training.styles import draw_styles, styled_network

FEEDS = ("picked pixels", "true pixels", "random pixels")


def error(mean: Tensor, image: Tensor, region: Tensor) -> Tensor:
    """Return the squared error over a region, per image; NaN where it is empty."""
    squared = (mean.clamp(-1, 1) - image).square() * region
    return squared.sum((1, 2, 3)) / (3 * region.sum((1, 2, 3)))


def iterate(
    network: nn.Module, loop: SpatialDiffusion, image: Tensor, mask: Tensor, total: int
) -> tuple[list[DiffusionStep], Network]:
    """Run all iterations from fixed noise; return them and the network with its styles."""
    noise = [torch.Generator().manual_seed(index) for index in range(len(image))]
    call = styled_network(network, draw_styles(network, len(image), generator=noise))
    return list(loop.iterate(call, image, mask, num_iterations=total, generator=noise)), call


def batches(images: Tensor, masks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images in [-1, 1] and masks, a batch at a time."""
    for pixels, mask in zip(images.split(BATCH), masks.split(BATCH), strict=True):
        yield pixels.float() / 127.5 - 1, mask


@torch.inference_mode()
def gains(weights: str, images: Tensor, masks: Tensor, total: int) -> tuple[list[float], float]:
    """Return the gain of each feed in dB of PSNR, and the uncertainty's rank correlation."""
    network, info = load_generator(weights)
    loop = info.build_diffusion()
    found: list[Tensor] = []
    correlations: list[Tensor] = []
    for image, mask in batches(images, masks):
        steps, call = iterate(network, loop, image, mask, total)
        before = steps[-2].state
        last = 1 - before.mask
        picked = (before.mask - mask).bool()
        base = error(steps[0].mean, image, last)
        row = [10 * torch.log10(base / error(steps[-1].mean, image, last))]
        for feed in (image, torch.rand_like(image) * 2 - 1):
            fed = torch.where(picked, feed, before.image)
            state = DiffusionState(fed, before.mask, before.uncertainty, before.step)
            mean = predict(
                call, state, mask, total, loop.uncertainty_scale, loop.uncertainty_channels
            ).mean
            row.append(10 * torch.log10(base / error(mean, image, last)))
        found.append(torch.stack(row))
        correlations.append(
            uncertainty_error_correlation(steps[0].uncertainty, steps[0].mean, image, mask)
        )
    means = torch.cat(found, dim=1).nanmean(1)
    return means.tolist(), torch.cat(correlations).nanmean().item()


@torch.inference_mode()
def by_iteration(
    weights: str, single: str | None, images: Tensor, masks: Tensor, total: int
) -> Tensor:
    """Return share of the hole and PSNR at the pixels that each iteration fills.

    Returns:
        ``(T, 4)``, means over the images: the share, then PSNR when filled, in the result and
        after the first pass; with other weights a fifth column, their single pass.
    """
    models = [load_generator(name) for name in (weights, single) if name is not None]
    found = []
    for image, mask in batches(images, masks):
        runs = [
            iterate(network, info.build_diffusion(), image, mask, count)[0]
            for (network, info), count in zip(models, (total, 1), strict=False)
        ]
        singles = [run[0].mean for run in runs]
        known, rows = mask, []
        for step in runs[0]:
            filled = step.state.mask - known  # in the last iteration all that was left
            known = step.state.mask
            means = (step.mean, runs[0][-1].mean, *singles)
            errors = torch.stack([error(mean, image, filled) for mean in means])
            share = filled.sum((1, 2, 3)) / (1 - mask).sum((1, 2, 3))
            rows.append(torch.cat([share[None], 10 * torch.log10(4 / errors.clamp_min(1e-10))]))
        found.append(torch.stack(rows))
    return torch.cat(found, dim=2).nanmean(2)


def main(
    images: str,
    weights: str,
    single: str | None = None,
    iterations: list[int] = [2, 4],  # noqa: B006 (read by the command line)
    num_images: int = 400,
    masks: str = "mat256_large",
) -> None:
    """Print the tables.

    Args:
        images: Folder of PNG windows, all of one size.
        weights: Weights file, checkpoint, run directory or packaged name.
        single: Other weights, whose single pass the second table compares.
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
    names = ["when filled, dB", "in the result, dB", "first pass, dB"]
    names += ["the other's single pass, dB"] if single else []
    print("\n| T | iteration | share of the hole | " + " | ".join(names) + " |")
    print("|---:|---:|---:|" + "---:|" * len(names))
    for total in iterations:
        for number, row in enumerate(by_iteration(weights, single, originals, known, total), 1):
            share, *psnr = row.tolist()
            print(
                f"| {total} | {number} | {share:.2f} | "
                + " | ".join(f"{v:.2f}" for v in psnr)
                + " |"
            )


if __name__ == "__main__":
    with user_errors():
        auto_cli(main)
