"""Training samples with masks of one's own: packed with the image, or drawn from a folder."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from sdm_lightning.data.preprocess import TrainPreprocess
from sdm_lightning.data.shards.reading import RawSample
from sdm_lightning.errors import InputError
from tests.data.shard_tools import encoded

RAMP = np.arange(12 * 14, dtype=np.uint8).reshape(12, 14)
IMAGE = np.dstack((RAMP, RAMP, RAMP))
HOLE = (RAMP % 7 > 2).astype(np.uint8)  # of each pixel's own value, so that a shift shows


def raw(mask: np.ndarray | None = HOLE, image: np.ndarray = IMAGE) -> RawSample:
    packed = None if mask is None else encoded(mask * 255)
    return RawSample("k", encoded(image), packed, "shard.tar")


def test_the_mask_of_an_image_is_cropped_and_mirrored_with_it():
    make = TrainPreprocess(8, {"sample": 1.0})
    windows = set()
    for number in range(20):
        example = make(raw(), number)
        values = ((example["image"][0] + 1) * 127.5).round()
        assert torch.equal(example["mask"][0], (values % 7 > 2).float())
        windows.add((values[0, 0].item(), values[0, 1].item()))
    assert {first < second for first, second in windows} == {True, False}  # mirrored and not
    # A small image is mirrored to the crop's size, and its mask with it.
    example = TrainPreprocess(16, {"sample": 1.0})(raw(), 0)
    values = ((example["image"][0] + 1) * 127.5).round()
    assert torch.equal(example["mask"][0], (values % 7 > 2).float())


def test_packed_masks_are_known_white_whatever_the_files_of_folders_are():
    known = TrainPreprocess(8, {"sample": 1.0})(raw(), 0)["mask"]
    same = TrainPreprocess(8, {"sample": 1.0}, convention="hole-white")(raw(), 0)["mask"]
    assert torch.equal(known, same)


def test_packed_masks_must_be_there_and_as_large_as_the_image():
    make = TrainPreprocess(8, {"sample": 1.0})
    with pytest.raises(InputError, match=r"shard.tar: sample k has no mask with it"):
        make(raw(mask=None), 0)
    with pytest.raises(InputError, match=r"mask of k is 8x8 .* as large as the image, 12x14$"):
        make(raw(mask=HOLE[:8, :8]), 0)


def test_masks_of_a_folder_are_drawn_and_cropped_at_random(tmp_path: Path):
    for name, row in (("a", 0), ("b", 4)):
        mask = np.ones((10, 8), np.uint8)
        mask[row] = 0
        (tmp_path / f"{name}.png").write_bytes(encoded(mask * 255))
    make = TrainPreprocess(8, {str(tmp_path): 1.0})
    drawn = [make(raw(None), number)["mask"][0] for number in range(60)]
    rows = {int((mask == 0).any(1).nonzero()[0]) for mask in drawn}
    # A hole in row 0 is only seen by the crop at the top, one in row 4 by those at 0, 1 and 2.
    assert rows == {0, 4, 3, 2}
    assert all((mask == 0).sum() == 8 for mask in drawn)
    # The same in every run, and in the workers.
    again = pickle.loads(pickle.dumps(make))
    assert torch.equal(again(raw(None), 7)["mask"][0], drawn[7])


@pytest.mark.parametrize("known", [0, 1])
def test_crops_of_one_kind_are_drawn_again(tmp_path: Path, known: int):
    mask = np.full((24, 24), known, np.uint8)
    mask[20:, 20:] = 1 - known
    image = np.dstack((np.arange(24 * 24, dtype=np.uint16).reshape(24, 24) % 251,) * 3)
    (tmp_path / "mask 1.png").write_bytes(encoded(mask * 255))
    (tmp_path / "mask_1.png").write_bytes(encoded(mask * 255))  # names do not matter
    for source in ("sample", str(tmp_path)):
        make = TrainPreprocess(8, {source: 1.0})
        packed = raw(mask, image.astype(np.uint8))
        drawn = [make(packed, number)["mask"] for number in range(20)]
        assert all(0 < crop.mean() < 1 for crop in drawn)
        assert torch.equal(make(packed, 3)["mask"], drawn[3])


def test_masks_without_a_crop_of_both_kinds_still_serve(tmp_path: Path):
    far = np.zeros((8, 3000), np.uint8)
    far[:, 0] = 1  # in one crop of 2993
    for number, mask in enumerate((far, np.zeros((8, 8), np.uint8))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "m.png").write_bytes(encoded(mask * 255))
        for source in ("sample", str(folder)):
            make = TrainPreprocess(8, {source: 1.0})
            assert make(raw(mask, np.dstack((mask,) * 3)), 0)["mask"].sum() == 0
    no_hole = np.ones((12, 14), np.uint8)
    assert TrainPreprocess(8, {"sample": 1.0})(raw(no_hole), 0)["mask"].all()


def test_masks_of_several_sources(tmp_path: Path):
    (tmp_path / "m.png").write_bytes(encoded(np.zeros((8, 8), np.uint8)))
    make = TrainPreprocess(8, {str(tmp_path): 0.5, "sample": 0.25, "lama_thick": 0.25})
    masks = [make(raw(), number)["mask"] for number in range(200)]
    assert 70 < sum(int(mask.sum() == 0) for mask in masks) < 130


def test_masks_of_a_folder_that_cannot_serve(tmp_path: Path):
    with pytest.raises(InputError, match="neither 'sample', nor a preset"):
        TrainPreprocess(8, {str(tmp_path / "none"): 1.0})
    (tmp_path / "m.png").write_bytes(encoded(np.ones((9, 9), np.uint8) * 255))
    with pytest.raises(InputError, match=r"100 crops of 8x8 .* check data.mask_convention"):
        TrainPreprocess(8, {str(tmp_path): 1.0})(raw(None), 0)
    with pytest.raises(InputError, match=r"m.png: mask is 9x9 .* smaller than data.resolution 10"):
        TrainPreprocess(10, {str(tmp_path): 1.0})(raw(None), 0)
