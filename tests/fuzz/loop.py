"""``make fuzz``: damaged input for every target, each in a process of its own.

    python -m tests.fuzz [--seconds 60] [--inputs 100000] [--seed 0] [--targets tar,image,...]

A process that dies, raises anything but bad input, computes for 20 s in one input, starts a
program, connects, or writes a file outside its folder is a finding: it ends the target, its input
stays in ``fuzz-findings/``, and the exit status is 1. Another seed goes on after a finding; with
the same one the target is skipped, so that its input stays.
"""

import argparse
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TextIO

from tests.fuzz.mutation import damaged
from tests.fuzz.targets import TARGETS, feed
from tests.fuzz.valid_input import seeds

HANG_SECONDS = 20.0
"""Processor time in one input."""
STILL_SECONDS = 300.0
"""Beyond a target's time, however little the processor did."""
QUICK_SECONDS = 0.05
"""What took longer is not mutated again: in the corpus it would slow down all that follow."""
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect",
)  # fmt: skip
GIGABYTES = 8


def watch(folder: Path, last: Path) -> TextIO:
    """End this process where it starts a program, connects, or writes elsewhere."""
    roots = (str(folder), str(last), "/dev/null")
    errors = os.fdopen(os.dup(2), "w", errors="backslashreplace", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders print a line for nearly every input

    def hook(event: str, args: tuple[object, ...]) -> None:
        writes = False
        if event == "open" and isinstance(args[0], str) and isinstance(args[2], int):
            writes = bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            writes = writes and not os.path.realpath(args[0]).startswith(roots)
        if writes or event in FORBIDDEN:
            print(f"{event}{args!r:.200}", file=errors)
            os._exit(99)  # an exception could be taken for one of a decoder

    sys.addaudithook(hook)
    return errors


def work(name: str, seconds: float, inputs: int, seed: int, last: Path, folder: Path) -> None:
    """Fuzz one target until its time or its number of inputs is used up."""
    rng = random.Random(f"{name}/{seed}")
    corpus = seeds(name)
    for data in corpus:  # import and build everything first
        feed(name, data, folder)
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))
    accepted = tried = 0
    slowest, end = 0.0, time.monotonic() + seconds
    errors = watch(folder, last)
    while time.monotonic() < end and tried < inputs:
        data = damaged(name, corpus, rng)
        last.write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)  # its signal ends the process
        began = time.process_time()
        try:
            good = feed(name, data, folder)
        except BaseException:
            traceback.print_exc(file=errors)
            raise SystemExit(1) from None
        took = time.process_time() - began
        tried, accepted, slowest = tried + 1, accepted + good, max(slowest, took)
        if good and took < QUICK_SECONDS and len(corpus) < 200:
            corpus.append(data)
    last.unlink()
    print(
        f"{name}: {tried} inputs, {accepted} of them accepted; the slowest took {slowest:.1f} s of "
        "processor time"
    )


def main() -> None:
    """Fuzz the targets one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--inputs", type=int, default=100_000, help="most, for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default=",".join(TARGETS))
    chosen = parser.parse_args()
    findings = Path("fuzz-findings").resolve()
    findings.mkdir(exist_ok=True)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a disk costs more than a target
    found = 0
    for name in chosen.targets.split(","):
        last = findings / f"{name}-{chosen.seed}.bin"
        if last.exists():
            found += 1
            print(f"{name}: skipped: an earlier run left {last}; move it or give another --seed")
            continue
        # A process that is killed cannot remove its own folder.
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            arguments = (name, chosen.seconds, chosen.inputs, chosen.seed, last)
            process = multiprocessing.get_context("spawn").Process(
                target=work, args=(*arguments, Path(folder).resolve())
            )
            process.start()
            process.join(chosen.seconds + STILL_SECONDS)
            process.kill()
            process.join()
        if process.exitcode:
            found += 1
            print(f"{name}: FINDING, kept in {last} (exit status {process.exitcode})")
    raise SystemExit(found > 0)
