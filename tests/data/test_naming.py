"""Keys that WebDataset and a file system both take for one name."""

from __future__ import annotations

import pytest
from webdataset.tariterators import base_plus_ext

from sdm_lightning.data.naming import key_for_path, pair_masks, unique_keys
from sdm_lightning.errors import InputError


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("img.v1.jpg", "img_v1"),
        ("a/abbey/0000.jpg", "a__abbey__0000"),
        ("a.b/c d.png", "a_b__c_d"),
        ("../../etc/passwd.png", "etc__passwd"),
        ("/abs/x.png", "abs__x"),
        ("__meta__.png", "meta__"),
        ("日本/é.jpg", "日本__é"),
        ("....png", "image"),
        ("ไม้.jpg", "ไม้"),
        ("ปี่/हिन्दी.jpg", "ปี่__हिन्दी"),
        ("e\u0301.jpg", "\xe9"),
    ],
)
def test_keys(path: str, key: str):
    assert key_for_path(path) == key
    assert base_plus_ext(key + ".mask.png") == (key, "mask.png")


def test_long_names_are_cut_and_stay_apart():
    keys = {key_for_path(f"{'x' * 300}{i}.jpg") for i in range(50)}
    assert len(keys) == 50
    assert max(len(key) for key in keys) <= 120


def test_long_names_pair_whatever_their_extension():
    name = "风景" * 30
    assert key_for_path(f"{name}.jpg") == key_for_path(f"{name}.png")


def test_two_masks_of_one_name_are_refused():
    with pytest.raises(InputError, match=r"m: a\.bmp and a\.png are two masks of one name"):
        pair_masks(["a.jpg"], ["a.bmp", "a.png"], "m")


def test_collisions_get_a_hash_and_nothing_else_does():
    names = ["a/b.jpg", "a__b.jpg", "A/B.jpg", "c.v1.jpg", "c_v1.png", "d.jpg"]
    keys = unique_keys(names)
    assert len({key.casefold() for key in keys.values()}) == len(names)
    assert keys["d.jpg"] == "d"
    assert keys["a/b.jpg"].startswith("a__b-")
    assert unique_keys(reversed(names)) == keys


def test_masks_pair_by_path_then_by_a_name_that_is_unique():
    images = ["a/1.jpg", "b/1.jpg", "b/2.jpg"]
    assert pair_masks(images, ["a/1.png", "b/1.png", "2.png"], "m") == {
        "a/1.jpg": "a/1.png",
        "b/1.jpg": "b/1.png",
        "b/2.jpg": "2.png",
    }
    # One mask 1.png for two images called 1 belongs to neither.
    with pytest.raises(InputError, match=r"m: no mask for a/1.jpg and 1 more images"):
        pair_masks(images, ["1.png", "2.png"], "m")


def test_accents_pair_however_they_are_composed():
    images = ["a/e\u0301.jpg", "b/u\u0308.jpg"]
    masks = ["a/\xe9.png", "\xfc.png"]
    assert pair_masks(images, masks, "m") == dict(zip(images, masks, strict=True))
    assert len(set(unique_keys([*images, "a/\xe9.jpg"]).values())) == 3
