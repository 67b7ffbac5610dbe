import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdm_lightning.errors import InputError
from sdm_lightning.evaluation import RealFeatureCache

DESCRIPTION = {"path": "abc", "crop": 64, "extractor": "random-conv", "weights": "123"}


def test_rows_come_back_by_pixels_from_disk(tmp_path):
    digests, rows = torch.tensor([5, -7, 9]), torch.randn(3, 4)
    cache = RealFeatureCache(tmp_path, DESCRIPTION, 4)
    assert cache.lookup(digests) is None
    cache.add(digests, rows)
    file = cache.save()
    assert cache.save() is None  # nothing new
    again = RealFeatureCache(tmp_path, DESCRIPTION, 4, rank=1)
    assert torch.equal(again.lookup(digests.flip(0)), rows.flip(0))
    assert again.hits == 3
    assert again.lookup(torch.tensor([5, 6])) is None  # one is unknown: all are extracted
    again.add(torch.tensor([6]), torch.zeros(1, 4))
    assert again.save() != file  # each process writes its own
    assert len(RealFeatureCache(tmp_path, DESCRIPTION, 4)) == 4


@pytest.mark.parametrize("changed", ["path", "crop", "extractor", "weights"])
def test_another_description_is_another_file(tmp_path, changed):
    cache = RealFeatureCache(tmp_path, DESCRIPTION, 2)
    cache.add(torch.tensor([1]), torch.ones(1, 2))
    cache.save()
    assert len(RealFeatureCache(tmp_path, {**DESCRIPTION, changed: "other"}, 2)) == 0


def test_a_full_disk_leaves_the_earlier_features_and_one_warning(tmp_path, room_for, caplog):
    cache = RealFeatureCache(tmp_path, DESCRIPTION, 2)
    cache.add(torch.tensor([1]), torch.ones(1, 2))
    file = cache.save()
    before = file.read_bytes()
    cache.add(torch.arange(2, 200), torch.randn(198, 2))
    with room_for(len(before)):
        assert cache.save() is None
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: features are not kept (File too large)"
    ]
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
    assert cache.save() == file  # with room again
    assert len(RealFeatureCache(tmp_path, DESCRIPTION, 2)) == 199


def test_damaged_files_are_named(tmp_path):
    cache = RealFeatureCache(tmp_path, DESCRIPTION, 2)
    cache.add(torch.tensor([1]), torch.ones(1, 2))
    file = cache.save()
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(InputError, match=f"{file.name}: damaged"):
        RealFeatureCache(tmp_path, DESCRIPTION, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"features": torch.ones(1, 3)},  # of another extractor
        {"features": torch.full((1, 2), torch.nan)},
        {"features": torch.ones(1, 2, dtype=torch.bool)},
        {"features": torch.ones(1, 2, dtype=torch.float64)},
        {"digests": torch.tensor([[1]])},
        {"digests": torch.tensor([1.0])},
        {"features": None},
    ],
)
def test_files_that_no_cache_writes_are_refused(tmp_path, changes):
    cache = RealFeatureCache(tmp_path, DESCRIPTION, 2)
    cache.add(torch.tensor([1]), torch.ones(1, 2))
    file = cache.save()
    rows = {name: rows for name, rows in (load_file(file) | changes).items() if rows is not None}
    save_file(rows, file, {"description": json.dumps(DESCRIPTION, sort_keys=True)})
    with pytest.raises(InputError, match=f"{file.name}: damaged feature cache .*; delete it$"):
        RealFeatureCache(tmp_path, DESCRIPTION, 2)


def test_a_file_of_another_set_is_refused(tmp_path):
    cache = RealFeatureCache(tmp_path, DESCRIPTION, 2)
    cache.add(torch.tensor([1]), torch.ones(1, 2))
    file = cache.save()
    save_file(load_file(file), file, {"description": "{}"})
    with pytest.raises(InputError, match=f"{file.name}: belongs to another data set; delete it$"):
        RealFeatureCache(tmp_path, DESCRIPTION, 2)
