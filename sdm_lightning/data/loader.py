"""DataLoaders over streams that form their own batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from sdm_lightning.data.stream import Batch, EvalStream, Failure, TrainStream
from sdm_lightning.errors import InputError

__all__ = ["StreamLoader", "TrainLoader"]


class StreamLoader(DataLoader[Any]):
    """A DataLoader that raises a worker's error as one line.

    Args:
        dataset: A stream.
        kwargs: As for ``DataLoader``; ``batch_size`` is always None, for the stream batches.
    """

    def __init__(self, dataset: TrainStream | EvalStream, **kwargs: Any) -> None:
        kwargs["batch_size"] = None
        super().__init__(dataset, **kwargs)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, Failure):
                raise InputError(batch.message)
            yield batch


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
