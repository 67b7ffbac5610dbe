"""Starting one run: a fresh interpreter, or a copy of this one that has its libraries loaded."""

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
        """Exit status, when it has ended; negative for a signal."""
        ...

    def send_signal(self, number: int) -> None:
        """Signals it, if it still runs."""
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
        """As ``subprocess.Popen.wait``."""
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """As ``subprocess.Popen.send_signal``."""
        if self.returncode is None:
            os.kill(self.pid, number)


def preload() -> None:
    """Imports what every run imports, so that copies of this process need not."""
    for name in PRELOADED:
        importlib.import_module(name)


def start_process(
    words: Sequence[str], environment: Mapping[str, str], log: IO[bytes], fork: bool = False
) -> Process:
    """Starts ``sdm WORDS`` with this interpreter; all its output goes to ``log``.

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
    """The copy's whole life; never returns to the code that was copied."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        # Whatever stood in their place here (a test's capture, a notebook) is the parent's.
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
