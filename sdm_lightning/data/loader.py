"""DataLoaders over streams that form their own batches."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from sdm_lightning.data.stream import Batch, EvalStream, TrainStream
from sdm_lightning.signals import STOP_SIGNALS


def outlive_signals(worker: int) -> None:
    """Let a worker live through the signals that ask a process to end.

    Terminals and clusters send signals to all processes of a job. The training process finishes its
    batch and saves; it cannot where a worker that owes it a batch has died.
    """
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """Kill the workers that still live; Python would send a SIGTERM and wait for ever."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler reports killed workers
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


class StreamLoader(DataLoader[Any]):
    """A DataLoader of batches, whose workers live through signals.

    Args:
        dataset: A stream.
        kwargs: As for ``DataLoader``; ``batch_size`` is always None, for the stream batches.
    """

    def __init__(self, dataset: TrainStream | EvalStream, **kwargs: Any) -> None:
        kwargs["batch_size"] = None
        kwargs.setdefault("worker_init_fn", outlive_signals)
        super().__init__(dataset, **kwargs)


class TrainLoader(StreamLoader):
    """A loader that continues at the run's position, however often it is started.

    Args:
        dataset: The training stream.
        position: Returns the batches that this process has trained on. What was prefetched and not
            used does not count.
        kwargs: As for ``DataLoader``.
    """

    def __init__(self, dataset: TrainStream, position: Callable[[], int], **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        self.stream = dataset
        self.position = position

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self.stream.start_batch = self.position()
        yield from super().__iter__()
