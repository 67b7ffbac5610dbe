"""``python -m benchmarks [SECTION ...]``: print a table, append JSON lines, make the page."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import shlex
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.common import Line, Settings, machine, text_of
from sdm_lightning.memory import reuse_freed_memory

# Imported when they run: a section does without the packages that only others need.
SECTIONS = {
    "startup": "startup.run",
    "generator": "generator.run",
    "memory": "generator.run_memory",
    "precision": "precision.run",
    "training": "training.run",
    "data": "data.run",
    "evaluation": "evaluation.run",
    "checkpoint": "disk.run",
    "photo": "photo.run",
    "scale": "scale.run",
}
EXTRA = {
    "compile": "compiled.run",
    "engines": "engines.run",
    "scores": "evaluation.run_scores",
    "chance": "evaluation.run_chance",
}
"""Only when named: they take minutes, or need more than this package."""


def section(place: str) -> Callable[[Settings], Iterator[Line]]:
    """Import a section."""
    module, _, function = place.partition(".")
    run: Callable[[Settings], Iterator[Line]] = getattr(
        importlib.import_module(f"benchmarks.{module}"), function
    )
    return run


def main(words: list[str] | None = None) -> int:
    """Run sections; return 1 if one of them failed."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Speed and memory, each figure beside its limit."
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION",
        help=f"{', '.join(SECTIONS)} (all of these if none is named), {', '.join(EXTRA)}, page",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="append JSON lines to this file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved pairs of a comparison")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--training", type=int, nargs="+", default=[32, 64, 256])
    parser.add_argument("--quick", action="store_true", help="tiny networks, to try the program")
    arguments = parser.parse_args(words)
    known = SECTIONS | EXTRA
    if unknown := sorted(set(arguments.sections) - set(known) - {"page"}):
        parser.error(f"unknown section {unknown[0]!r}; choose {', '.join(known)} or page")
    if "page" in arguments.sections:
        from benchmarks import page

        page.write()
        return 0
    reuse_freed_memory()
    warnings.filterwarnings("ignore")  # Lightning's remarks on a run without validation
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if arguments.device == "cpu":
        torch.set_num_threads(1)  # the steadiest figures, and what most of these are quoted for
    command = shlex.join(["python", "-m", "benchmarks", *without_output(words)])
    failed = False
    for name in arguments.sections or SECTIONS:
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings(
                torch.device(arguments.device), arguments.rounds, tuple(arguments.sizes),
                tuple(arguments.training), arguments.quick, Path(folder),
            )  # fmt: skip
            where = {"machine": machine(settings.device), "command": command}
            try:
                for line in section(known[name])(settings):
                    print(text_of(line), flush=True)
                    if arguments.output is not None:
                        with arguments.output.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(line | where) + "\n")
            except Exception:  # one section must not take the others' figures with it
                traceback.print_exc()
                print(f"error: section {name} failed", file=sys.stderr)
                failed = True
    return int(failed)


def without_output(words: list[str]) -> list[str]:
    """Drop where the lines are written to: a place on this machine, of no use to another."""
    kept, skip = [], False
    for word in words:
        if not skip and word != "--output" and not word.startswith("--output="):
            kept.append(word)
        skip = word == "--output"
    return kept


if __name__ == "__main__":
    sys.exit(main())
