"""Start one run: in a new interpreter, or in a copy of this one with its libraries loaded."""

import importlib
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import IO, Protocol

PRELOADED = (
    "lightning.pytorch.cli",
    "sdm_lightning.training.module",
    "sdm_lightning.training.callbacks.evaluation",
    "sdm_lightning.data.datamodule",
    "sdm_lightning.models",
    "sdm_lightning.losses",
)


class Process(Protocol):
    """What the runner needs of a running process."""

    def wait(self) -> int:
        """Wait for the end and return the exit status; negative for a signal."""
        ...

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process still runs."""
        ...


class ForkedProcess:
    """A copy of this process.

    Args:
        pid: Of the copy.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self) -> int:
        """Wait as ``subprocess.Popen.wait`` does."""
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal as ``subprocess.Popen.send_signal`` does."""
        if self.returncode is None:
            os.kill(self.pid, number)


def preload() -> None:
    """Import what every run imports, so that copies of this process need not."""
    for name in PRELOADED:
        importlib.import_module(name)


def start_process(
    words: Sequence[str], environment: Mapping[str, str], log: IO[bytes], fork: bool = False
) -> Process:
    """Start ``sdm WORDS`` with this interpreter; all its output goes to ``log``.

    Args:
        words: Verb and arguments.
        environment: The whole environment of the run.
        log: An open file.
        fork: Copy this process instead of starting another interpreter.
    """
    if not fork:
        command = [sys.executable, "-m", "sdm_lightning", *words]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return ForkedProcess(pid)
    _run_copy(words, environment, log)
    raise AssertionError("unreachable")


def _run_copy(words: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> None:
    """Run the command in the copy; never returns to the code that was copied."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        # What replaced them here (a test's capture, a notebook) belongs to the parent.
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["sdm", *words]
        runpy.run_module("sdm_lightning", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
