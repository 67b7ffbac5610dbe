"""What the 512 x 512 generator costs, each figure beside its limit.

Parameters (Table 3), floating-point operations of one iteration (two per multiply-add, counted by
``torch.utils.flop_counter``), and the time and memory of a forward pass on this machine. The
paper's 250 ms for a picture of four iterations is printed as a comparison, not as a limit: its
hardware is not said to be this one.

Run: ``python benchmarks/generator_cost.py [--device cuda] [--precision bf16] [--size 512]``
Exit status 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sdm_lightning.models import Discriminator, Generator

PARAMETERS = 74e6
PARAMETER_TOLERANCE = 0.02
GFLOP_LIMIT = 350.0
PAPER_MILLISECONDS = 250.0
PAPER_ITERATIONS = 4


def num_parameters(build: Callable[[], nn.Module]) -> int:
    """Count without allocating."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def gflop(size: int) -> float:
    """Count one iteration at ``size`` x ``size``, without computing it."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        Generator()(torch.zeros(1, 7, size, size))
    return counter.get_total_flops() / 1e9


def hardware(device: torch.device) -> str:
    """Name the processor that is timed."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} thread(s)"


def forward_cost(
    device: torch.device, precision: str, size: int, repeats: int
) -> tuple[float, float]:
    """Return (median milliseconds, peak MiB beyond the weights) of one forward pass."""
    generator = Generator().to(device).eval().requires_grad_(False)
    inputs = torch.rand(1, 7, size, size, device=device)
    if device.type == "cuda" and precision == "bf16":
        generator = generator.to(memory_format=torch.channels_last)
        inputs = inputs.contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            generator(inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        forward()
        memory = (torch.cuda.max_memory_allocated(device) - before) / 2**20
    else:
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        forward()
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident) / 2**10
    # On a CPU the processor time of each thread, so that neighbours do not count.
    clock, share = (
        (time.perf_counter, 1)
        if device.type == "cuda"
        else (time.process_time, torch.get_num_threads())
    )
    times = []
    for _ in range(repeats):
        start = clock()
        forward()
        times.append((clock() - start) / share * 1e3)
    return statistics.median(times), memory


def main() -> int:
    """Print the table; return 1 if a limit is broken."""
    parser = argparse.ArgumentParser(description="Cost of the 512 x 512 generator.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--size", type=int, default=512, help="side of the timed picture")
    parser.add_argument("--repeats", type=int, default=5, help="timed passes; the median counts")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)

    low, high = (PARAMETERS * (1 + sign * PARAMETER_TOLERANCE) / 1e6 for sign in (-1, 1))
    counts = {
        "512 model": num_parameters(Generator) / 1e6,
        "256 model (strides 8, 16)": num_parameters(lambda: Generator(attention_strides=(8, 16)))
        / 1e6,
    }
    operations = gflop(512)
    print(f"$ python {' '.join(sys.argv)}")
    print(
        f"{hardware(device)}; {arguments.precision}; torch {torch.__version__}, "
        f"python {platform.python_version()}"
    )
    milliseconds, memory = forward_cost(
        device, arguments.precision, arguments.size, arguments.repeats
    )
    side = f"{arguments.size} x {arguments.size}"
    rows = [
        (f"parameters, {name} (M)", f"{count:.2f}", f"{low:.1f} to {high:.1f}")
        for name, count in counts.items()
    ]
    rows += [
        ("GFLOP per iteration at 512 x 512", f"{operations:.1f}", f"< {GFLOP_LIMIT:.0f}"),
        (f"one iteration at {side} (ms)", f"{milliseconds:.1f}", "none"),
        (
            f"{PAPER_ITERATIONS} iterations at {side} (ms)",
            f"{milliseconds * PAPER_ITERATIONS:.0f}",
            f"none (paper: {PAPER_MILLISECONDS:.0f} at 512)",
        ),
        (f"peak memory of a forward pass at {side} (MiB)", f"{memory:.0f}", "none"),
        (
            "parameters, 512 discriminator with mask (M)",
            f"{num_parameters(Discriminator) / 1e6:.2f}",
            "none",
        ),
    ]
    print(f"\n{'':<48} {'found':>8}   limit")
    for name, found, limit in rows:
        print(f"{name:<48} {found:>8}   {limit}")
    kept = all(low <= count <= high for count in counts.values()) and operations < GFLOP_LIMIT
    print(f"\nlimits {'kept' if kept else 'BROKEN'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
