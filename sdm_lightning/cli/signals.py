"""Signals that reach a fit outside its training loop."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sdm_lightning.errors import PREEMPTED
from sdm_lightning.signals import handled


@contextmanager
def leave_when_signalled() -> Iterator[None]:
    """End at once, with the status to requeue by, on SIGTERM or SIGUSR1.

    For start-up and the time after training: there is nothing to save. In the training loop the
    callback ``Preemption`` has handlers of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        print(f"stopped by {name} outside the training loop; nothing to save", file=sys.stderr)
        raise SystemExit(PREEMPTED)

    with handled((signal.SIGTERM, signal.SIGUSR1), leave):
        yield
