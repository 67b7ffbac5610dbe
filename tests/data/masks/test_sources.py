"""Fixed masks: the same in every run, found by name, and checked for their polarity."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from sdm_lightning.data.masks import sources as mask_sources
from sdm_lightning.data.masks.presets import free_form_mask
from sdm_lightning.data.masks.sources import (
    FolderMasks,
    PresetMasks,
    SampleMasks,
    make_mask_source,
    mask_mix,
    mask_seed,
)
from sdm_lightning.data.preprocess import EvalPreprocess
from sdm_lightning.data.shards.reading import RawSample
from sdm_lightning.errors import InputError
from tests.data.shard_tools import encoded, photo

KNOWN = (photo(1, 8, 8)[..., 0] > 100).astype(np.uint8)


def raw(key: str = "k", mask: np.ndarray | None = None, **size: int) -> RawSample:
    packed = None if mask is None else encoded(mask * 255)
    return RawSample(key, encoded(photo(0, **size)), packed, "shard.tar")


@pytest.fixture(autouse=True)
def nothing_warned_yet(monkeypatch):
    monkeypatch.setattr(mask_sources, "_warned", set())


def test_preset_masks_depend_on_key_and_seed_alone():
    source = PresetMasks("mat256_small", seed=3)
    assert np.array_equal(source(raw("a"), 32), source(raw("a", height=40), 32))
    assert not np.array_equal(source(raw("a"), 32), source(raw("b"), 32))
    assert not np.array_equal(source(raw("a"), 32), PresetMasks("mat256_small", 4)(raw("a"), 32))
    expected = free_form_mask("mat256_small", 32, mask_seed(3, "a"))
    assert np.array_equal(source(raw("a"), 32), expected)
    # Published test masks must stay what they are in every later version.
    assert mask_seed(0, "Places365_val_00000001") == 8914186640751405774


def test_mixes():
    assert mask_mix("lama_thin") == mask_mix(Path("lama_thin")) == {"lama_thin": 1.0}
    assert mask_mix({"mat512_large": 3, "mat512_small": 1}) == {
        "mat512_large": 0.75,
        "mat512_small": 0.25,
    }
    for bad in ({}, {"lama_thin": 0}, {"lama_thin": -1}, {"lama_thin": float("nan")}):
        with pytest.raises(InputError, match=r"weight"):
            mask_mix(bad)


def test_masks_from_a_folder_pair_by_key_or_by_path(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "x.png").write_bytes(encoded(KNOWN * 255))
    (tmp_path / "a" / "y.v1.png").write_bytes(encoded((1 - KNOWN) * 255))
    source = FolderMasks(str(tmp_path))
    assert np.array_equal(source(raw("x"), 8), KNOWN)
    assert np.array_equal(source(raw("a__y_v1"), 8), 1 - KNOWN)
    assert np.array_equal(
        FolderMasks(str(tmp_path), convention="hole-white")(raw("x"), 8), 1 - KNOWN
    )
    with pytest.raises(InputError, match=rf"{tmp_path}: no mask for z; expected a file z.png"):
        source(raw("z"), 8)
    (tmp_path / "x.jpg").write_bytes(encoded(KNOWN * 255))
    with pytest.raises(InputError, match=r"x.jpg and x.png both become x "):
        FolderMasks(str(tmp_path))


def test_a_damaged_mask_is_named(tmp_path: Path):
    (tmp_path / "k.png").write_bytes(b"no")
    with pytest.raises(InputError, match=r"k.png: mask is no JPEG, PNG, .*; masks are 8-bit PNG"):
        FolderMasks(str(tmp_path))(raw(), 8)


def test_masks_of_the_image_are_cut_with_it_and_others_must_fit():
    image_mask = (photo(2, 12, 14)[..., 0] > 99).astype(np.uint8)
    make = EvalPreprocess(8, SampleMasks())
    got = make(raw(mask=image_mask))["mask"]
    assert torch.equal(got[0], torch.from_numpy(image_mask[2:10, 3:11].astype(np.float32)))
    got = make(raw(mask=KNOWN))["mask"]
    assert torch.equal(got[0], torch.from_numpy(KNOWN.astype(np.float32)))
    with pytest.raises(InputError, match=r"mask of k is 5x6 .* the image, 12x14, or the crop, 8x8"):
        make(raw(mask=np.ones((5, 6), np.uint8)))
    # A small image is mirrored, and its mask with it.
    small = (photo(2, 5, 8)[..., 0] > 99).astype(np.uint8)
    got = make(raw(mask=small, height=5, width=8))["mask"]
    expected = np.pad(small, ((0, 3), (0, 0)), mode="symmetric").astype(np.float32)
    assert torch.equal(got[0], torch.from_numpy(expected))
    with pytest.raises(InputError, match=r"shard.tar: sample k has no mask with it"):
        make(raw())


@pytest.mark.parametrize("value", [0, 1])
def test_all_known_and_all_hole_masks_work(value: int):
    mask = np.full((12, 14), value, np.uint8)
    example = EvalPreprocess(8, SampleMasks())(raw(mask=mask))
    assert example["mask"].unique().tolist() == [value]


def test_a_mask_that_is_nearly_all_hole_warns_once(tmp_path: Path, caplog):
    inverted = np.zeros((10, 10), np.uint8)
    inverted[:2, :2] = 255  # a small hole drawn in white
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(encoded(inverted))
    with caplog.at_level(logging.WARNING):
        source = FolderMasks(str(tmp_path))
        source(raw("a"), 10)
        source(raw("b"), 10)
    (record,) = caplog.records
    assert "a.png: 96 % of this mask is hole" in record.message
    assert "set data.mask_convention to hole-white" in record.message
    caplog.clear()
    mask_sources._warned.clear()
    assert FolderMasks(str(tmp_path), convention="hole-white")(raw("a"), 10).mean() == 0.96
    assert not caplog.records


def test_settings(tmp_path: Path):
    assert make_mask_source("sample", 0, "hole-white") == SampleMasks()
    assert make_mask_source("lama_thin", 7, False) == PresetMasks("lama_thin", 7)
    with pytest.raises(InputError, match="no images in it"):
        make_mask_source(str(tmp_path), 0, False)
    (tmp_path / "k.png").write_bytes(encoded(KNOWN * 255))
    for convention, expected in (("known-white", KNOWN), ("hole-white", 1 - KNOWN)):
        source = make_mask_source(str(tmp_path), 0, convention)
        assert np.array_equal(source(raw(), 8), expected)
    for wrong in ("lama_thinn", Path("lama_thinn")):
        with pytest.raises(InputError, match="did you mean lama_thin"):
            make_mask_source(wrong, 0, False)
