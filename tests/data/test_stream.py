"""The order of the training stream, and the once-and-only-once of the evaluation stream."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdm_lightning.cli.errors import final_message
from sdm_lightning.data.decode import BadImageError, decode_image
from sdm_lightning.data.loader import StreamLoader, TrainLoader
from sdm_lightning.data.masks.sources import PresetMasks
from sdm_lightning.data.preprocess import EvalPreprocess, TrainPreprocess
from sdm_lightning.data.samples import FileSource, ShardSource
from sdm_lightning.data.shards.index import Shard, ShardIndex
from sdm_lightning.data.shards.indexing import index_shards
from sdm_lightning.data.shards.reading import RawSample
from sdm_lightning.data.sources import open_source
from sdm_lightning.data.stream import EvalStream, Example, TrainStream
from sdm_lightning.errors import InputError
from tests.data.shard_tools import encoded, make_images, make_shards, photo, write_tar


class Stub:
    """Preprocess that only remembers the pass, so that streams can be long."""

    def __call__(self, raw: RawSample, number: int) -> Example:
        if raw.image == b"bad":
            raise BadImageError("cannot be decoded (test)")
        value = torch.tensor(float(number))
        return {"image": value, "mask": value, "key": raw.key}


class FakeReader:
    """A reader without files: shard ``s`` of 3 samples holds ``s/0``, ``s/1``, ``s/2``."""

    def __init__(self, bad: tuple[str, ...] = ()) -> None:
        self.bad = bad
        self.reads: list[str] = []

    def read(self, shard: Shard) -> list[RawSample]:
        self.reads.append(shard.url)
        keys = [f"{shard.url}/{i}" for i in range(shard.samples)]
        return [RawSample(k, b"bad" if k in self.bad else b"", None, shard.url) for k in keys]


def fake_index(counts: list[int]) -> ShardIndex:
    return ShardIndex(tuple(Shard(f"s{i}", n, 0, f"{i:02d}") for i, n in enumerate(counts)))


COUNTS = [3, 1, 4, 2, 5]


def fake_stream(counts: list[int] | None = None, **options: object) -> TrainStream:
    options = {"batch_size": 2, "reader": FakeReader(), **options}
    return TrainStream(fake_index(counts or COUNTS), Stub(), **options)


# -- order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("consumers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("shuffle_shards", [1, 2, 3])
def test_each_pass_holds_every_sample_once_over_all_consumers(consumers, shuffle_shards):
    stream = fake_stream(shuffle_shards=shuffle_shards)
    passes = 4
    seen: Counter[tuple[str, int]] = Counter()
    for consumer in range(consumers):
        # Enough that every consumer is through with the first passes.
        for (raw, number), _ in itertools.islice(stream.raw_samples(consumer, consumers), 200):
            seen[raw.key, number] += 1
    keys = {f"s{i}/{j}" for i, n in enumerate(COUNTS) for j in range(n)}
    for number in range(passes):
        assert {key for key, at in seen if at == number} == keys
    assert set(seen.values()) == {1}


@pytest.mark.parametrize("consumers", [1, 2, 3, 4])
def test_seeking_equals_scanning(consumers: int):
    for consumer in range(consumers):
        stream = fake_stream()
        whole = list(itertools.islice(stream.raw_samples(consumer, consumers), 60))
        for skip in range(60):
            rest = itertools.islice(fake_stream().raw_samples(consumer, consumers, skip), 60 - skip)
            assert list(rest) == whole[skip:]


def test_seeking_reads_nothing_that_it_skips():
    stream = fake_stream()
    next(stream.raw_samples(0, 1, skip=15 * 1000))  # a thousand passes
    assert len(stream.reader.reads) <= 2 * stream.shuffle_shards


def test_order_depends_on_seed_and_pass_and_not_on_place_or_listing():
    def keys(stream: TrainStream) -> list[str]:
        return [raw.key for (raw, _), _ in itertools.islice(stream.raw_samples(0, 1), 30)]

    first = keys(fake_stream())
    assert keys(fake_stream()) == first
    assert keys(fake_stream(seed=1)) != first
    assert first[:15] != first[15:]
    stream = fake_stream()
    stream.index = ShardIndex(tuple(reversed(stream.index.shards)))
    assert keys(stream) == first


def test_this_order_is_for_ever():
    """A run must continue with a later version of the package; change this with a version bump."""
    keys = [raw.key for (raw, _), _ in itertools.islice(fake_stream().raw_samples(0, 1), 8)]
    assert keys == ["s3/0", "s2/1", "s2/3", "s2/0", "s3/1", "s2/2", "s4/0", "s1/0"]


def round_robin(stream: TrainStream, workers: int, count: int, patch: pytest.MonkeyPatch):
    """Ask one iterator per worker in turn, as a DataLoader does, without the processes."""
    iterators = []
    for worker in range(workers):
        patch.setattr("sdm_lightning.data.stream._worker", lambda here=worker: (here, workers))
        iterators.append(iter(stream))
        first = next(iterators[-1])
        iterators[-1] = itertools.chain([first], iterators[-1])
    return [next(iterators[number % workers])["key"] for number in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"rank": 1, "world_size": 2}])
def test_a_stream_goes_on_where_another_stopped(workers: int, options, monkeypatch):
    whole = round_robin(fake_stream(**options), workers, 12, monkeypatch)
    for stop in range(1, 12):
        rest = fake_stream(start_batch=stop, **options)
        assert round_robin(rest, workers, 12 - stop, monkeypatch) == whole[stop:]


def test_a_real_loader_is_that_round_robin(monkeypatch):
    with monkeypatch.context() as patch:
        expected = round_robin(fake_stream(start_batch=3), 2, 6, patch)
    loader = StreamLoader(fake_stream(start_batch=3), num_workers=2)
    assert [batch["key"] for batch in itertools.islice(loader, 6)] == expected


def test_a_train_loader_counts_what_was_used_and_not_what_was_prefetched():
    done = 0
    loader = TrainLoader(fake_stream(), lambda: done, num_workers=1)
    expected = [batch["key"] for batch in itertools.islice(fake_stream(), 9)]
    used = []
    for count in (4, 5):
        for batch in itertools.islice(loader, count):
            used.append(batch["key"])
            done += 1
    assert used == expected


def test_spawned_workers_know_their_rank(tmp_path: Path):
    """A spawned worker sees neither RANK nor torch.distributed, and hashes strings otherwise.

    Each rank must still read its own samples, with the crops and masks of any other process.
    """
    index = make_shards(tmp_path, 6, 2)
    make = TrainPreprocess(4, {"lama_thick": 1.0})
    stream = TrainStream(index, make, batch_size=2, rank=1, world_size=2)
    loader = StreamLoader(stream, num_workers=1, multiprocessing_context="spawn")
    (batch,) = itertools.islice(loader, 1)
    raws = [sample for sample, _ in itertools.islice(stream.raw_samples(1, 2), 2)]
    assert batch["key"] == [raw.key for raw, _ in raws]
    others = itertools.islice(stream.raw_samples(0, 2), 2)
    assert batch["key"] != [raw.key for (raw, _), _ in others]
    for place, (raw, number) in enumerate(raws):
        assert torch.equal(batch["image"][place], make(raw, number)["image"])
        assert torch.equal(batch["mask"][place], make(raw, number)["mask"])


def test_a_program_ends_after_any_error_of_a_worker():
    code = (
        "from torch.utils.data import IterableDataset\n"
        "from sdm_lightning.data.loader import StreamLoader\n"
        "class Broken(IterableDataset):\n"
        "    def __iter__(self):\n"
        "        raise RuntimeError('boom')\n"
        "batches = iter(StreamLoader(Broken(), num_workers=1))\n"
        "next(batches)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith("RuntimeError: boom")


# -- crops, flips and masks ------------------------------------------------------------------


def test_training_samples_are_functions_of_seed_key_and_pass():
    array = photo(0, 40, 50)
    raw = RawSample("k", encoded(array), None, "s")
    make = TrainPreprocess(16, {"mat256_large": 0.5, "lama_thin": 0.5}, seed=3)
    first, again = make(raw, 5), make(raw, 5)
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["mask"], again["mask"])
    others = [make(raw, 6), TrainPreprocess(16, make.masks, seed=4)(raw, 5)]
    others.append(make(RawSample("l", raw.image, None, "s"), 5))
    for other in others:
        assert not torch.equal(first["image"], other["image"])
        assert not torch.equal(first["mask"], other["mask"])
    assert first["image"].shape == (3, 16, 16)
    assert first["mask"].shape == (1, 16, 16)
    assert first["mask"].unique().tolist() == [0, 1]
    # The crop is a piece of the image, or of its mirror image, and nothing was resized.
    crop = ((first["image"] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    views = np.lib.stride_tricks.sliding_window_view
    pieces = [views(a, (16, 16, 3)) for a in (array, array[:, ::-1])]
    assert any((piece == crop).all((-1, -2, -3)).any() for piece in pieces)


def test_masks_are_drawn_by_their_weights():
    raw = RawSample("k", encoded(photo(0, 16, 16)), None, "s")
    alone = TrainPreprocess(16, {"lama_thin": 1.0})
    never = TrainPreprocess(16, {"mat256_small": 0.0, "lama_thin": 1.0})
    for number in range(12):
        assert torch.equal(alone(raw, number)["mask"], never(raw, number)["mask"])


def test_flips_and_places_are_even():
    array = np.zeros((4, 9, 3), np.uint8)
    array[..., 0] = np.arange(9) * 10  # falls to the right if mirrored
    raw = RawSample("k", encoded(array), None, "s")
    make = TrainPreprocess(4, {"lama_thick": 1.0})
    rows = [make(raw, number)["image"][0, 0] for number in range(600)]
    mirrored = sum(bool(row[0] > row[-1]) for row in rows)
    assert abs(mirrored - 300) < 62  # five standard deviations
    places = Counter(round((min(row[0], row[-1]).item() + 1) * 127.5 / 10) for row in rows)
    assert sorted(places) == [0, 1, 2, 3, 4, 5]
    assert all(abs(count - 100) < 46 for count in places.values())
    still = TrainPreprocess(4, {"lama_thick": 1.0}, flip=False)
    assert all(still(raw, n)["image"][0, 0].diff().min() > 0 for n in range(20))


def test_small_images_are_mirrored():
    array = photo(0, 3, 5)
    raw = RawSample("tiny", encoded(array), None, "shard-7.tar")
    example = EvalPreprocess(6, PresetMasks("lama_thick"))(raw)
    image = example["image"]
    assert example["padding"].item() == pytest.approx(1 - 15 / 36)
    expected = np.pad(array, ((0, 3), (0, 1), (0, 0)), mode="symmetric")
    got = ((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(got, expected)


def test_evaluation_crops_the_middle():
    array = photo(0, 9, 12)
    image = EvalPreprocess(4, PresetMasks("lama_thick"))(RawSample("k", encoded(array), None, "s"))
    got = ((image["image"] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(got, array[2:6, 4:8])


# -- bad images ------------------------------------------------------------------------------


def test_bad_images_are_replaced_within_the_limit_and_the_order_stays(caplog):
    good = [b["key"] for b in itertools.islice(fake_stream(batch_size=3), 10)]
    reader = FakeReader(bad=("s2/1",))
    stream = fake_stream(batch_size=3, reader=reader, max_bad_images=1)  # one image, in each pass
    got = [b["key"] for b in itertools.islice(stream, 10)]
    for expected, batch in zip(good, got, strict=True):
        for key, other in zip(expected, batch, strict=True):
            assert other == key or (key == "s2/1" and other in expected)
    assert "s2: image s2/1 cannot be decoded (test); another one replaces it" in caplog.text


def test_each_stand_in_is_another_image_with_a_crop_of_its_own():
    images = {"a": b"", "b": b"bad", "c": b"", "d": b"bad", "e": b"bad"}
    raws = [(RawSample(key, image, None, "s"), 6) for key, image in images.items()]
    batch = fake_stream(max_bad_images=3)._batch([(sample, raws) for sample in raws])
    assert batch["key"] == ["a", "c", "c", "c", "a"]
    assert batch["image"].tolist() == [6, -2, 6, -4, -5]  # the pass: of it the crop is a function


def test_a_batch_without_a_good_image_takes_one_that_it_was_shuffled_among(monkeypatch):
    options = {"batch_size": 1, "reader": FakeReader(("s2/1", "s2/3", "s3/0")), "max_bad_images": 3}
    good = round_robin(fake_stream(batch_size=1), 2, 30, monkeypatch)
    whole = round_robin(fake_stream(**options), 2, 30, monkeypatch)
    replaced = [key for key, other in zip(good, whole, strict=True) if key != other]
    assert {key for (key,) in replaced} == {"s2/1", "s2/3", "s3/0"}
    assert not {key for (key,) in whole} & {"s2/1", "s2/3", "s3/0"}
    for stop in range(1, 30):
        rest = fake_stream(start_batch=stop, **options)
        assert round_robin(rest, 2, 30 - stop, monkeypatch) == whole[stop:]
    options["reader"] = FakeReader(tuple(f"s{i}/{j}" for i in range(5) for j in range(5)))
    with pytest.raises(InputError, match=r"neither s4/4 nor any image that it was shuffled"):
        next(iter(fake_stream(**{**options, "max_bad_images": 99})))


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_images_above_the_limit_raise_an_error_naming_key_and_shard(workers: int):
    bad = ("s2/1", "s0/0")[: 1 + workers]
    stream = fake_stream(reader=FakeReader(bad), max_bad_images=workers)
    with pytest.raises(InputError) as caught:
        list(itertools.islice(StreamLoader(stream, num_workers=workers), 100))
    line = final_message(caught.value)  # from a worker, there is a traceback before it
    assert re.match(r"(s\d): image \1/\d cannot be decoded \(test\); re", line)


def test_corrupt_jpeg_in_a_shard(tmp_path: Path):
    data = encoded(photo(0, 64, 64), "JPEG")
    write_tar(tmp_path / "a.tar", {"x.jpg": data, "y.jpg": data[: len(data) // 2]})
    index_shards(str(tmp_path), num_workers=0)
    index = ShardIndex.load(tmp_path)
    masks = {"lama_thick": 1.0}
    with pytest.raises(InputError, match=r"a\.tar: image y cannot be decoded \(image file is trun"):
        next(iter(TrainStream(index, TrainPreprocess(8, masks), batch_size=2, shuffle_shards=1)))
    make = EvalPreprocess(8, PresetMasks("lama_thick"))
    with pytest.raises(InputError, match=r"a\.tar: image y cannot be decoded"):
        list(EvalStream(ShardSource(index), make, batch_size=2))
    stream = TrainStream(
        index, TrainPreprocess(8, masks), batch_size=2, shuffle_shards=1, max_bad_images=1
    )
    assert next(iter(stream))["key"] == ["x", "x"]


# -- evaluation ------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("counts", [COUNTS, [1], [2], [7, 1, 1]])
def test_every_sample_once_whatever_ranks_and_workers(world_size, workers, counts, monkeypatch):
    source = ShardSource(fake_index(counts), FakeReader())
    keys, lengths = [], []
    for rank in range(world_size):
        stream = EvalStream(
            source, Stub(), batch_size=2, rank=rank, world_size=world_size, num_workers=workers
        )
        batches = []
        for worker in range(max(workers, 1)):
            # What a loader does, without starting forty processes.
            here = (worker, max(workers, 1))
            monkeypatch.setattr("sdm_lightning.data.stream._worker", lambda here=here: here)
            batches += [batch["key"] for batch in stream]
        keys += [key for batch in batches for key in batch]
        lengths.append(sum(map(len, batches)))
        if sum(counts) >= world_size:
            assert len(stream) == len(batches)
            assert batches
        else:
            with pytest.raises(TypeError):
                len(stream)
    assert sorted(keys) == sorted(f"s{i}/{j}" for i, n in enumerate(counts) for j in range(n))
    assert max(lengths) - min(lengths) <= 1


@given(st.integers(0, 3000), st.integers(1, 70), st.integers(0, 12))
@settings(deadline=None)
def test_shares_are_a_partition_for_any_number_of_ranks_and_workers(samples, ranks, workers):
    found, sizes = [], []
    for rank in range(ranks):
        stream = EvalStream(range(samples), Stub(), batch_size=1, rank=rank, world_size=ranks)
        own = [stream._range(worker, max(workers, 1)) for worker in range(max(workers, 1))]
        found += [index for first, last in own for index in range(first, last)]
        sizes.append(sum(last - first for first, last in own))
    assert found == list(range(samples))
    assert max(sizes) - min(sizes) <= 1


def test_a_process_reads_only_its_own_shards():
    reader = FakeReader()
    stream = EvalStream(
        ShardSource(fake_index([2] * 10), reader), Stub(), batch_size=4, rank=3, world_size=5
    )
    assert [b["key"] for b in stream] == [["s6/0", "s6/1", "s7/0", "s7/1"]]


def test_a_folder_of_images_is_a_source_too(tmp_path: Path):
    images = make_images(tmp_path / "in", 3)
    (images / "sub").mkdir()
    (images / "sub" / "000.png").write_bytes(encoded(photo(9)))
    source = FileSource(open_source(images))
    samples = list(source.read(0, len(source)))
    assert [sample.key for sample in samples] == ["000", "001", "002", "sub__000"]
    assert np.array_equal(decode_image(samples[3].image), photo(9))
    assert [s.key for s in source.read(1, 3)] == ["001", "002"]


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"shuffle_shards": 0}, {"start_batch": -1}],
)
def test_settings_out_of_range(options: dict[str, int]):
    with pytest.raises(InputError):
        fake_stream(**options)
