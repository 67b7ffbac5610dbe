"""The default number of worker processes."""

import os
from pathlib import Path

import pytest

from sdm_lightning.data.shards import building
from sdm_lightning.demo import photos
from sdm_lightning.workers import default_workers, usable_cores


def allow(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


def test_cores_that_the_process_may_not_use_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 3)
    assert usable_cores() == default_workers() == 3
    allow(monkeypatch, 12)
    assert (usable_cores(), default_workers()) == (12, 8)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == 64


def test_packing_and_the_demos_images_use_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    allow(monkeypatch, 1)
    monkeypatch.setattr(building, "ProcessPoolExecutor", None)  # one worker needs no pool
    assert building.run_all(abs, [-1, -2], [1, 1], None, "test") == [1, 2]
    workers = []
    monkeypatch.setattr(
        photos, "thread_map", lambda *_, max_workers, **__: workers.append(max_workers)
    )
    photos._write_all(tmp_path / "images", 2, None, "images", None)
    assert workers == [1]
