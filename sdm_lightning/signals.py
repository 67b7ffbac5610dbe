"""Signal handlers that hold for a while."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sdm_lightning.errors import PREEMPTED

STOP_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
"""By which a cluster asks a process to end; Windows has no SIGUSR1."""


@contextmanager
def handled(
    numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], Any]
) -> Iterator[None]:
    """Handle signals within a block, and as before after it; only for the main thread.

    Args:
        numbers: Numbers of the signals.
        handler: Called with the signal's number and the interrupted frame.
    """
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def leave_when_signalled() -> Iterator[None]:
    """End at once, with the status to requeue by, on SIGTERM or SIGUSR1.

    For start-up and the time after training: there is nothing to save. In the training loop the
    callback ``Preemption`` has handlers of its own.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        print(f"stopped by {name} outside the training loop; nothing to save", file=sys.stderr)
        raise SystemExit(PREEMPTED)

    with handled(STOP_SIGNALS, leave):
        yield
