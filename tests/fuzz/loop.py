"""``make fuzz``: a mutation loop over every target, in processes that are watched.

    python -m tests.fuzz [--seconds 60] [--inputs 100000] [--seed 0] [--targets tar,image,...]

Each target runs in a process of its own with a limit of memory. A worker that dies, raises anything
but bad input, computes for 20 s in one input, or leaves a file outside its folder is a finding: its
input is written to ``fuzz-findings/`` and the exit status is 1.
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
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.mutation import damaged
from tests.fuzz.targets import TARGETS, feed
from tests.fuzz.valid_input import seeds

HANG_SECONDS = 20.0
"""Processor time in one input."""
STILL_SECONDS = 300.0
"""Without an answer, however little the processor did."""
QUICK_SECONDS = 0.05
"""What took longer is not mutated again: in the corpus it would slow down all that follow."""
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect",
)  # fmt: skip
GIGABYTES = 8


def watch_files(folder: Path) -> None:
    """End this process where it starts a program, connects, or writes outside its folder."""
    root = str(folder)
    errors = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders print a line for nearly every input

    def stop(reason: str) -> None:
        os.write(errors, f"{reason}\n".encode(errors="backslashreplace"))
        os._exit(99)  # an exception could be taken for one of a decoder

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in FORBIDDEN:
            stop(f"{event}{args!r:.200}")
        if event == "open" and isinstance(args[0], str) and isinstance(args[2], int):
            writes = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not os.path.realpath(args[0]).startswith((root, "/dev/null")):
                stop(f"writes {args[0]}")

    sys.addaudithook(hook)


def work(name: str, seed: int, last: str, folder: str, pipe: Connection) -> None:
    """Fuzz one target until told to stop; report counts and the slowest input's time."""
    rng = random.Random(f"{name}/{seed}")
    corpus = seeds(name)
    accepted = tried = 0
    slowest = 0.0
    for data in corpus:  # import and build everything first
        feed(name, data, Path(folder))
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))
    said = time.monotonic()
    with open(last, "r+b", buffering=0) as notes:
        watch_files(Path(os.path.realpath(folder)))
        while True:
            data = damaged(name, corpus, rng)
            os.pwrite(notes.fileno(), len(data).to_bytes(8, "little") + data, 0)
            signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)  # its signal ends the process
            began = time.process_time()
            try:
                good = feed(name, data, Path(folder))
            except BaseException:
                pipe.send(("finding", tried, accepted, slowest, traceback.format_exc()))
                return
            took = time.process_time() - began
            tried, accepted, slowest = tried + 1, accepted + good, max(slowest, took)
            if good and took < QUICK_SECONDS and len(corpus) < 200:
                corpus.append(data)
            now = time.monotonic()
            if now - said > 0.5 or tried % 100 == 0:
                pipe.send(("count", tried, accepted, slowest, ""))
                said = now


def fuzz_target(
    name: str, seconds: float, inputs: int, seed: int, findings: Path,
    say: Callable[[str], None] = print,
) -> int:  # fmt: skip
    """Fuzz one target until its time or its number of inputs is used up; return its findings."""
    context = multiprocessing.get_context("spawn")
    found = total = total_accepted = 0
    slowest = 0.0
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a disk costs more than a target
    end = time.monotonic() + seconds
    while time.monotonic() < end and total < inputs and found < 5:
        # A worker that is killed cannot remove its own folder.
        with (
            tempfile.NamedTemporaryFile() as last,
            tempfile.TemporaryDirectory(dir=memory) as folder,
        ):
            mine, theirs = context.Pipe(duplex=False)
            arguments = (name, seed + found, last.name, folder, theirs)
            process = context.Process(target=work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            tried = accepted = 0
            took = 0.0
            problem = ""
            while time.monotonic() < end and total + tried < inputs:
                if not mine.poll(STILL_SECONDS):
                    problem = f"no answer for {STILL_SECONDS:.0f} s"
                    break
                try:
                    kind, tried, accepted, took, text = mine.recv()
                except EOFError:
                    process.join(10)
                    problem = f"process ended with {process.exitcode}"
                    if process.exitcode == -signal.SIGPROF:
                        problem = f"computed for {HANG_SECONDS:.0f} s"
                    break
                if kind == "finding":
                    problem = text
                    break
            process.kill()
            process.join()
            total, total_accepted = total + tried, total_accepted + accepted
            slowest = max(slowest, took)
            if problem:
                found += 1
                size = int.from_bytes(last.read(8), "little")
                path = findings / f"{name}-{seed + found}.bin"
                findings.mkdir(exist_ok=True)
                path.write_bytes(last.read(size))
                say(f"{name}: FINDING after {total} inputs, kept in {path}\n{problem}")
    say(
        f"{name}: {total} inputs, {total_accepted} of them accepted, {found} findings; "
        f"the slowest took {slowest:.1f} s of processor time"
    )
    return found


def main() -> None:
    """Fuzz the targets one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--inputs", type=int, default=100_000, help="most, for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default=",".join(TARGETS))
    chosen = parser.parse_args()
    found = sum(
        fuzz_target(name, chosen.seconds, chosen.inputs, chosen.seed, Path("fuzz-findings"))
        for name in chosen.targets.split(",")
    )
    raise SystemExit(found > 0)
