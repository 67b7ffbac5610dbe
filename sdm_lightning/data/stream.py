"""Two streams of batches: an endless one to train on, and one that sees every sample once.

The order of the training stream is a pure function of ``(seed, consumer, position)``, so a run
can stop anywhere and continue exactly there, and the state to keep is one integer. WebDataset's own
splitting and shuffling are not used: they depend on environment variables that spawned workers do
not have, and on random state that nothing saves.

* The shards form an endless sequence: pass ``e`` is a permutation drawn from ``(seed, e)``, and
  position ``p`` is shard ``p % N`` of pass ``p // N``.
* There are ``C = world_size * num_workers`` consumers. Consumer ``c`` owns the positions
  ``c, c + C, c + 2C, ...``: over all consumers every pass visits every shard exactly once.
* A consumer shuffles the undecoded samples of ``shuffle_shards`` of its shards at a time.
* To start in the middle it skips by the counts of the index, which reads nothing.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict

from torch import Tensor
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from sdm_lightning.data.decode import BadImageError
from sdm_lightning.data.samples import SampleSource
from sdm_lightning.data.shards.index import Shard, ShardIndex
from sdm_lightning.data.shards.reading import RawSample, ShardReader
from sdm_lightning.errors import InputError

_log = logging.getLogger(__name__)


class Example(TypedDict):
    """One sample: image ``(3, H, W)`` in [-1, 1], mask ``(1, H, W)`` with 1 = known, and key."""

    image: Tensor
    mask: Tensor
    key: str


class EvalExample(Example):
    """A sample for scoring, with the share of it in [0, 1), ``()``, that is mirrored padding.

    float32: batches of Python's floats are float64, which Apple's GPUs do not take.
    """

    padding: Tensor


class Batch(TypedDict):
    """Samples put together: image ``(B, 3, H, W)``, mask ``(B, 1, H, W)``, key: B strings."""

    image: Tensor
    mask: Tensor
    key: list[str]


class EvalBatch(Batch):
    """Samples for scoring or prediction, with their shares of mirrored padding, ``(B,)``."""

    padding: Tensor


Numbered = tuple[RawSample, int]
"""A sample and the number of its pass."""

Preprocess = Callable[[RawSample, int], Example]
"""Turns a sample and the number of its pass into tensors; raises BadImageError."""


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


def _bad_image(raw: RawSample, error: BadImageError) -> InputError:
    return InputError(f"{raw.origin}: image {raw.key} {error}; repair or remove it and pack again")


class _Stream(IterableDataset[Batch]):
    """The batches of one process."""

    def __init__(self, preprocess: Preprocess, batch_size: int, rank: int, world_size: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size


class TrainStream(_Stream):
    """Endless batches for one process of a training run. Use with ``DataLoader(batch_size=None)``.

    Args:
        index: The shards.
        preprocess: Turns a raw sample and the number of the pass into tensors.
        batch_size: Samples per batch.
        seed: Seed of the order.
        rank: Number of this process.
        world_size: Number of processes.
        start_batch: Batches that this process delivered before; the stream continues after them.
            All processes deliver equally many, so one number is the position of a whole run.
        shuffle_shards: Shards among whose samples a consumer shuffles. Each worker holds their
            encoded bytes in memory.
        max_bad_images: Undecodable images that a worker tolerates before it raises. Another
            image of the batch replaces each, with a crop and mask of its own, so the order of
            all others does not change; where the batch has none, one of those that the batch's
            were shuffled among.
        reader: How shards are read.

    Raises:
        InputError: If a setting is out of range.
    """

    def __init__(
        self,
        index: ShardIndex,
        preprocess: Preprocess,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
        shuffle_shards: int = 2,
        max_bad_images: int = 0,
        reader: ShardReader | None = None,
    ) -> None:
        super().__init__(preprocess, batch_size, rank, world_size)
        if shuffle_shards < 1 or start_batch < 0 or max_bad_images < 0:
            raise InputError(
                "shuffle_shards must be at least 1, start_batch and max_bad_images at least 0"
            )
        self.index = index
        self.seed = seed
        self.start_batch = start_batch
        self.shuffle_shards = shuffle_shards
        self.max_bad_images = max_bad_images
        self.reader = ShardReader() if reader is None else reader
        self._pass: tuple[int, list[Shard]] = (-1, [])
        self._bad: set[tuple[str, str]] = set()

    def shard_at(self, position: int) -> tuple[Shard, int]:
        """Return the shard at a position of the endless sequence, and the number of its pass."""
        number, place = divmod(position, len(self.index.shards))
        if self._pass[0] != number:
            # By content, so that moving the shards does not change the order.
            shards = sorted(self.index.shards, key=lambda shard: (shard.sha256, shard.url))
            # Seeded with a string, which hashes alike everywhere; numpy's streams may change.
            random.Random(f"shards/{self.seed}/{number}").shuffle(shards)
            self._pass = (number, shards)
        return self._pass[1][place], number

    def raw_samples(
        self, consumer: int, consumers: int, skip: int = 0
    ) -> Iterator[tuple[Numbered, list[Numbered]]]:
        """Yield one consumer's undecoded samples with their passes, without the first ``skip``.

        Beside each comes the list of all that it was shuffled among.

        Raises:
            InputError: If a shard is missing, damaged, or differs from its index.
        """
        for chunk in itertools.count():
            first = chunk * self.shuffle_shards
            owned = [
                self.shard_at(consumer + consumers * k)
                for k in range(first, first + self.shuffle_shards)
            ]
            count = sum(shard.samples for shard, _ in owned)
            if skip >= count:
                skip -= count
                continue
            samples = [(raw, number) for s, number in owned for raw in self.reader.read(s)]
            random.Random(f"samples/{self.seed}/{consumer}/{chunk}").shuffle(samples)
            for sample in samples[skip:]:
                yield sample, samples
            skip = 0

    def __iter__(self) -> Iterator[Batch]:
        worker, workers = _worker()
        # A DataLoader always takes from worker 0 first, also when a run resumes in the middle.
        logical = (worker + self.start_batch) % workers
        delivered = self.start_batch // workers + (logical < self.start_batch % workers)
        samples = self.raw_samples(
            consumer=logical * self.world_size + self.rank,
            consumers=workers * self.world_size,
            skip=delivered * self.batch_size,
        )
        while True:
            yield self._batch(list(itertools.islice(samples, self.batch_size)))

    def _batch(self, drawn: Sequence[tuple[Numbered, list[Numbered]]]) -> Batch:
        examples = [self._example(sample) for sample, _ in drawn]
        good = [sample for (sample, _), found in zip(drawn, examples, strict=True) if found]
        if not good:
            others = (other for other in drawn[-1][1] if self._example(other))
            good = list(itertools.islice(others, len(drawn)))
        if not good:
            raw, _ = drawn[-1][0]
            raise InputError(
                f"{raw.origin}: neither {raw.key} nor any image that it was shuffled among can be "
                "decoded; repair or remove them and pack again"
            )
        for place, example in enumerate(examples):
            if example is None:
                raw, _ = good[place % len(good)]
                # A pass that does not exist gives the stand-in a crop and a mask of its own.
                examples[place] = self.preprocess(raw, -1 - place)
        batch: Batch = default_collate(examples)
        return batch

    def _example(self, sample: Numbered) -> Example | None:
        raw, number = sample
        try:
            return self.preprocess(raw, number)
        except BadImageError as error:
            self._bad.add((raw.origin, raw.key))  # it comes again in every pass
            if len(self._bad) > self.max_bad_images:
                raise _bad_image(raw, error) from error
            _log.warning(
                "%s: image %s %s; another one replaces it (%d of at most %d)",
                raw.origin, raw.key, error, len(self._bad), self.max_bad_images,
            )  # fmt: skip
            return None


def _share(total: int, part: int, parts: int) -> tuple[int, int]:
    return total * part // parts, total * (part + 1) // parts


class EvalStream(_Stream):
    """Batches in which every sample comes exactly once, over all processes and workers.

    Each process takes a contiguous range of the samples, and each of its workers a range of that,
    so shards are read by those who need them. Nothing is padded or repeated: the shares differ by
    one sample at most, so processes may have different numbers of batches, the last batch of a
    worker may be smaller, and a process has none at all if there are fewer samples than
    processes. Metrics must therefore not reduce per batch.

    Args:
        source: The samples.
        preprocess: Turns a raw sample into tensors; its pass is always 0.
        batch_size: Most samples in a batch.
        rank: Number of this process.
        world_size: Number of processes.
        num_workers: Workers of the loader, only to know the number of batches beforehand.
    """

    def __init__(
        self,
        source: SampleSource,
        preprocess: Preprocess,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__(preprocess, batch_size, rank, world_size)
        self.source = source
        self.num_workers = num_workers

    def _range(self, worker: int, workers: int) -> tuple[int, int]:
        first, last = _share(len(self.source), self.rank, self.world_size)
        start, stop = _share(last - first, worker, workers)
        return first + start, first + stop

    def __len__(self) -> int:
        if len(self.source) < self.world_size:
            # A process that reports 0 skips its whole evaluation loop, and the others then wait for
            # it for ever; one that does not know runs the loop and finds it empty.
            raise TypeError("a process has no samples, so no process states a number of batches")
        workers = max(self.num_workers, 1)
        ranges = [self._range(worker, workers) for worker in range(workers)]
        return sum(-(-(stop - start) // self.batch_size) for start, stop in ranges)

    def __iter__(self) -> Iterator[Batch]:
        start, stop = self._range(*_worker())
        samples = iter(self.source.read(start, stop) if start < stop else ())
        while raws := list(itertools.islice(samples, self.batch_size)):
            batch: EvalBatch = default_collate([self._example(raw) for raw in raws])
            yield batch

    def _example(self, raw: RawSample) -> Example:
        try:
            return self.preprocess(raw, 0)
        except BadImageError as error:
            # A test set that silently lost an image gives another number.
            raise _bad_image(raw, error) from error
