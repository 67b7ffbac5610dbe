"""Peak memory of a training step against the number of iterations T.

    python benchmarks/training_memory.py [--size 256] [--batch 4] [--channels 16 64]

Each T runs in a process of its own (two steps, the second with the gradient penalty), once with
gradients detached between iterations, where memory should stay flat, and once with full
back-propagation, where it cannot. On a GPU the figure is the allocator's peak, on a CPU the
process's peak resident memory less what it had before the first step.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys

COUNTS = (1, 2, 4, 8)
# glibc keeps freed blocks for later; then resident memory would show its habits, not our needs.
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def peak_of_one(args: argparse.Namespace) -> float:
    """MiB of two training steps at ``args.iterations``."""
    import lightning.pytorch as pl
    import torch
    from torch.utils.data import DataLoader

    from sdm_lightning.diffusion import SpatialDiffusion
    from sdm_lightning.losses import PixelPyramidLoss
    from sdm_lightning.models import Discriminator, Generator
    from sdm_lightning.training import LossSettings, SDMModule

    torch.manual_seed(0)
    module = SDMModule(
        Generator(base_channels=args.channels[0], max_channels=args.channels[1]),
        Discriminator(args.size, base_channels=args.channels[0], max_channels=args.channels[1]),
        PixelPyramidLoss(),
        SpatialDiffusion(num_iterations=args.iterations, detach=not args.full),
        losses=LossSettings(r1_interval=2),
    )
    samples = [
        {
            "image": torch.rand(3, args.size, args.size) * 2 - 1,
            "mask": (torch.rand(1, args.size, args.size) > 0.5).float(),
            "key": str(index),
        }
        for index in range(2 * args.batch)
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    trainer = pl.Trainer(
        max_steps=2,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(samples, batch_size=args.batch))
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def hardware() -> str:
    """What the figures were measured on."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"CPU {platform.machine()}, torch {torch.__version__}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--channels", type=int, nargs=2, default=(16, 64), help="base and largest")
    parser.add_argument("--iterations", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--full", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.iterations:
        print(f"peak {peak_of_one(args):.0f}")
        return
    print(f"# {hardware()}; {' '.join(['python', *sys.argv])}")
    print("| T | detached, MiB | against T = 1 (limit 1.10) | full back-propagation, MiB |")
    print("|---|---|---|---|")
    base = None
    for count in COUNTS:
        peaks = []
        for extra in ([], ["--full"]):
            done = subprocess.run(
                [sys.executable, *sys.argv, "--iterations", str(count), *extra],
                env=os.environ | RETURN_FREED_MEMORY,
                capture_output=True,
                text=True,
                check=True,
            )
            peaks.append(float(done.stdout.split("peak ")[1]))
        base = base or peaks[0]
        print(f"| {count} | {peaks[0]:.0f} | {peaks[0] / base:.2f} | {peaks[1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
