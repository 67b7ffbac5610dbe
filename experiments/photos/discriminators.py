"""Which discriminator learns, in few batches, to tell a model's fillings from originals?

Trains each alone on fixed fillings, and tests it on windows that it has not seen. What has not
learned that cannot teach a generator anything::

    python experiments/photos/discriminators.py runs/photos/test demo
"""

from pathlib import Path

import torch
from jsonargparse import auto_cli
from score import BATCH, model, read_windows
from torch import Tensor, nn

from sdm_lightning.cli.errors import user_errors
from sdm_lightning.losses import discriminator_fake_loss, discriminator_real_loss
from sdm_lightning.models import Discriminator, FeatureDiscriminator

NUM_TEST = 128


def loss(network: nn.Module, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]) -> Tensor:
    return discriminator_real_loss(network(*real)) + discriminator_fake_loss(network(*fake))


def main(
    images: str,
    weights: str,
    num_images: int = 640,
    batches: list[int] = [100, 200, 400],  # noqa: B006 (read by the command line)
    batch_size: int = 16,
    masks: str = "mat256_large",
) -> None:
    """Print loss (log 4 = 1.39 is chance) and accuracy on unseen windows.

    Args:
        images: Folder of PNG windows, all of one size.
        weights: The model whose fillings are to be told from originals.
        num_images: Windows, evenly spread over the folder; the last 128 of a random order test.
        batches: Batches after which each discriminator is tested.
        batch_size: Originals, and as many fillings, in a batch.
        masks: Preset of the masks.
    """
    pixels, known = read_windows(Path(images), num_images, masks)
    fill = model(weights, 2)
    parts = enumerate(zip(pixels.split(BATCH), known.split(BATCH), strict=True))
    filled = torch.cat([fill(a, b, BATCH * index) for index, (a, b) in parts])
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(0))
    real, fake, known = (pixels[order] / 127.5 - 1), (filled[order] / 127.5 - 1), known[order]
    train, test = num_images - NUM_TEST, slice(num_images - NUM_TEST, None)
    print("| discriminator | parameters | batches | loss | accuracy |")
    print("|---|---:|---:|---:|---:|")
    for build in (
        lambda: Discriminator(real.shape[-1], 16, 96, mbstd_group=4),
        FeatureDiscriminator,
    ):
        torch.manual_seed(0)
        network = build()
        optimizer = torch.optim.Adam(network.parameters(), 1e-3, betas=(0.0, 0.99))
        for step in range(1, max(batches) + 1):
            i, j = torch.randperm(train)[: 2 * batch_size].chunk(2)
            optimizer.zero_grad()
            loss(network, (real[i], known[i]), (fake[j], known[j])).backward()
            optimizer.step()
            if step not in batches:
                continue
            with torch.no_grad():
                sides = (real[test], known[test]), (fake[test], known[test])
                value = loss(network, *sides).item()
                found = [network(*side).mean(1) > 0 for side in sides]
            accuracy = (found[0].float().mean() + (~found[1]).float().mean()).item() / 2
            size = sum(p.numel() for p in network.parameters())
            name = type(network).__name__
            print(f"| {name} | {size:,} | {step} | {value:.2f} | {accuracy:.2f} |", flush=True)


if __name__ == "__main__":
    with user_errors():
        auto_cli(main)
