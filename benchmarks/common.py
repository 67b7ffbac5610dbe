"""What all sections share: settings, interleaved timing, and the lines that they print."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdm_lightning.evaluation.record import hardware
from sdm_lightning.inference.precision import wants_bfloat16

Line = dict[str, Any]
"""One figure: ``section``, ``name``, ``value``, ``unit``; where it has a limit, ``limit`` (in the
same unit), ``limit_name`` and ``ratio``, the median over interleaved pairs."""


@dataclass(frozen=True)
class Settings:
    """What the command line asks for.

    Attributes:
        device: The networks' device.
        rounds: Interleaved pairs of each comparison; medians count.
        sizes: Sides of the pictures that the generator is timed on.
        training: Sides of the crops of the training step.
        quick: Tiny networks and files, to try the program itself.
        folder: An empty folder for files.
    """

    device: torch.device
    rounds: int
    sizes: tuple[int, ...]
    training: tuple[int, ...]
    quick: bool
    folder: Path

    def clock(self) -> float:
        """Return seconds: of this process's processor on a CPU, so that neighbours do not count."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time() / torch.get_num_threads()

    def seconds(self, work: Callable[[], Any]) -> float:
        """Time one run."""
        start = self.clock()
        work()
        return self.clock() - start


def machine(device: torch.device) -> str:
    """Describe what is measured on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    kind = torch.backends.cpu.get_cpu_capability()
    kind += " and bfloat16" if wants_bfloat16("auto", device) else ""
    count = f"{threads} thread{'s' * (threads > 1)}"
    return f"{hardware()['cpu']} with {kind} (CPU, {count}), torch {torch.__version__}"


def peak_memory(work: Callable[[], Any]) -> tuple[float, float]:
    """Run ``work`` and measure this process's resident memory, on Linux.

    Not by getrusage, whose peak a process inherits from the one that started it.

    Returns:
        The peak in MiB, and how far it lies above what was resident before.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _resident_peak()
    work()
    return _resident_peak(), _resident_peak() - before


def _resident_peak() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def interleaved(
    works: list[Callable[[], float]], rounds: int, warm_up: bool = True
) -> list[list[float]]:
    """Run measurements in turns, so that a slow minute slows all of them.

    Returns:
        For each work its ``rounds`` figures, in order.
    """
    if warm_up:
        for work in works:
            work()
    rows = [[work() for work in works] for _ in range(rounds)]
    return [list(column) for column in zip(*rows, strict=True)]


def figure(section: str, name: str, value: float, unit: str, **more: Any) -> Line:
    """Make a line without a limit."""
    return {"section": section, "name": name, "value": rounded(value), "unit": unit, **more}


def compared(
    section: str,
    name: str,
    unit: str,
    found: list[float],
    limit: list[float],
    limit_name: str,
    **more: Any,
) -> Line:
    """Make a line of paired measurements; the ratio is the median of the pairs' ratios."""
    ratio = statistics.median(a / b for a, b in zip(found, limit, strict=True))
    line = figure(section, name, statistics.median(found), unit, **more)
    return line | {
        "limit": rounded(statistics.median(limit)),
        "limit_name": limit_name,
        "ratio": round(ratio, 3),
        "pairs": len(found),
    }


def rounded(value: float) -> float:
    """Keep four digits."""
    return float(f"{value:.4g}")


def text_of(line: Line) -> str:
    """Return the line of the table on screen."""
    left = f"{line['section']:<11} {line['name']:<58} {line['value']:>10g} {line['unit']:<9}"
    if "ratio" not in line:
        return left.rstrip()
    return f"{left} {line['ratio']:>6.2f} x {line['limit_name']} ({line['limit']:g})"


def read_lines(path: Path) -> Iterator[Line]:
    """Read a file of JSON lines."""
    for text in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(text)
