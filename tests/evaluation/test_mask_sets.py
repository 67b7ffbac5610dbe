import json
import os
import stat
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sdm_lightning.data import free_form_mask, mask_seed
from sdm_lightning.data.masks.sources import FolderMasks
from sdm_lightning.data.shards.indexing import index_shards
from sdm_lightning.data.shards.reading import RawSample
from sdm_lightning.errors import InputError
from sdm_lightning.evaluation.evaluate import evaluate_folders
from sdm_lightning.evaluation.mask_sets import check_mask_set, sample_keys, write_mask_set
from tests.data.shard_tools import encoded, photo, write_tar


@pytest.fixture
def mask_set(folders):
    target = folders.root / "set"
    write_mask_set(str(target), folders.real, preset="mat256_small", size=48, seed=3)
    return target


def test_files_are_the_masks_that_a_test_draws(mask_set, folders):
    manifest = check_mask_set(mask_set)
    assert [entry["file"] for entry in manifest["files"]] == [f"photo{i}.png" for i in range(6)]
    for entry in manifest["files"]:
        pixels = cv2.imread(str(mask_set / entry["file"]), cv2.IMREAD_UNCHANGED)
        expected = free_form_mask("mat256_small", 48, mask_seed(3, entry["file"][:-4]))
        assert set(np.unique(pixels)) <= {0, 255}
        assert np.array_equal(pixels == 255, expected == 1)
        assert entry["hole_ratio"] == pytest.approx((expected == 0).mean(), abs=1e-6)
    ratios = [entry["hole_ratio"] for entry in manifest["files"]]
    assert manifest["mean_hole_ratio"] == pytest.approx(np.mean(ratios))
    assert {p.name for p in folders.root.iterdir()} == {"real", "fake", "masks", "set"}


def test_masks_of_shards_with_folders_in_their_keys(tmp_path, capsys):
    """As another program packs them; ``sdm test`` and ``sdm evaluate`` find the masks by name."""
    members = {f"{name}/000.png": encoded(photo(i)) for i, name in enumerate(("abbey", "zoo"))}
    (tmp_path / "shards").mkdir()
    write_tar(tmp_path / "shards" / "0.tar", members)
    index_shards(str(tmp_path / "shards"), num_workers=0)
    target = tmp_path / "set"
    write_mask_set(str(target), str(tmp_path / "shards"), preset="mat256_small", size=16)
    assert sorted(path.name for path in target.glob("*.png")) == ["abbey__000.png", "zoo__000.png"]
    masks = FolderMasks(str(target))
    mask = masks(RawSample("zoo/000", b"", None, "0.tar"), 16)
    assert np.array_equal(mask, free_form_mask("mat256_small", 16, mask_seed(0, "zoo/000")))


def test_masks_of_names_that_differ_in_case_are_found(folders):
    """Such keys get a hash: two files of these names would be one on many systems."""
    for folder in (folders.real, folders.fake):
        Path(folder, "photo0.png").rename(Path(folder, "Photo1.png"))
    target = folders.root / "set"
    write_mask_set(str(target), folders.real, preset="mat256_small", size=48)
    assert len(list(target.glob("[Pp]hoto1-*.png"))) == 2
    evaluate_folders(
        folders.real, folders.fake, masks=str(target), crop=48, features=None, lpips=None,
        record=None, num_workers=0,
    )  # fmt: skip


def test_permissions_follow_the_umask(folders):
    before = os.umask(0o027)
    try:
        write_mask_set(str(folders.root / "set"), preset="mat256_small", size=48, count=1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folders.root / "set").stat().st_mode) == 0o750


def test_what_is_printed(folders, capsys):
    write_mask_set(str(folders.root / "set"), folders.real, preset="mat256_small", size=48)
    out = capsys.readouterr().out
    manifest = check_mask_set(folders.root / "set")
    assert manifest["digest"] in out
    assert f"mean {manifest['mean_hole_ratio']:.3f}" in out


def test_a_set_depends_on_names_preset_and_seed_alone(mask_set, folders):
    def digest(name, **changes):
        settings = {"images": folders.real, "preset": "mat256_small", "size": 48, "seed": 3}
        write_mask_set(str(folders.root / name), **{**settings, **changes})
        return check_mask_set(folders.root / name)["digest"]

    assert digest("again") == check_mask_set(mask_set)["digest"]
    assert digest("other", seed=4) != check_mask_set(mask_set)["digest"]
    assert digest("counted", images=None, count=2) != check_mask_set(mask_set)["digest"]
    assert (folders.root / "counted" / "00000001.png").is_file()


def test_drawing_in_several_processes_gives_the_same_set(tmp_path):
    for workers in (0, 2):
        write_mask_set(
            str(tmp_path / str(workers)), count=520, preset="mat256_small", size=16,
            num_workers=workers,
        )  # fmt: skip
    one, several = (check_mask_set(tmp_path / name) for name in "02")
    assert several["digest"] == one["digest"]
    assert [entry["file"] for entry in several["files"]][-1] == "00000519.png"


@pytest.mark.parametrize("convention", ["known-white", "hole-white"])
def test_numbered_files_are_paired_in_order(mask_set, folders, convention):
    theirs = folders.root / "theirs"
    theirs.mkdir()
    for i in range(6):
        mask = cv2.imread(str(mask_set / f"photo{i}.png"), cv2.IMREAD_UNCHANGED)
        drawn = mask if convention == "known-white" else 255 - mask
        cv2.imwrite(str(theirs / f"{i:06d}.png"), np.repeat(drawn[..., None], 3, axis=2))
    target = folders.root / "taken"
    write_mask_set(
        str(target), folders.real, files=str(theirs), mask_convention=convention, num_workers=0
    )
    manifest = check_mask_set(target)
    assert manifest["digest"] == check_mask_set(mask_set)["digest"]
    assert (manifest["preset"], manifest["generator"]) == (None, str(theirs))
    (theirs / "000005.png").unlink()
    with pytest.raises(InputError, match="theirs: 5 masks for 6 images"):
        write_mask_set(str(folders.root / "x"), folders.real, files=str(theirs))
    with pytest.raises(InputError, match=r"^--files needs --images"):
        write_mask_set(str(folders.root / "x"), count=5, files=str(theirs))
    assert not (folders.root / "x").exists()


def test_the_order_of_pairs_is_that_of_paths(folders):
    # By their keys, a__0 and a0, the second would come first.
    root = folders.root
    for name, value in (("a/0", 0), ("a0", 255)):
        for folder in ("photos", "theirs"):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / folder / f"{name}.png"), np.full((8, 8), value, np.uint8))
    write_mask_set(str(root / "taken"), str(root / "photos"), files=str(root / "theirs"))
    assert cv2.imread(str(root / "taken" / "a__0.png")).max() == 0
    assert cv2.imread(str(root / "taken" / "a0.png")).min() == 255


def test_names_of_shards(tiny_shards, tiny_images):
    assert sample_keys(str(tiny_shards)) == sample_keys(str(tiny_images))


def test_what_is_refused(mask_set, folders):
    with pytest.raises(InputError, match=r"^--count must be at least 1, got 0"):
        write_mask_set(str(folders.root / "none"), count=0, preset="mat256_small")
    with pytest.raises(InputError, match=r"^--size must be at least 2, got 0"):
        write_mask_set(str(folders.root / "none"), count=3, size=0)
    with pytest.raises(InputError, match="set --overwrite true"):
        write_mask_set(str(mask_set), folders.real)
    with pytest.raises(InputError, match="not a mask set, so it is not replaced"):
        write_mask_set(folders.real, folders.real, overwrite=True)
    with pytest.raises(InputError, match=r"^give either --images or --count$"):
        write_mask_set(str(folders.root / "x"))
    with pytest.raises(InputError, match="the nearest is 'mat512_large'"):
        write_mask_set(str(folders.root / "x"), folders.real, preset="mat512_lrge")
    assert not (folders.root / "x").exists()
    write_mask_set(str(mask_set), folders.real, size=48, seed=9, overwrite=True)
    assert check_mask_set(mask_set)["seed"] == 9


def test_a_changed_set_is_noticed(mask_set):
    manifest = json.loads((mask_set / "manifest.json").read_text())
    (mask_set / "extra.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"extra\.png: not in the manifest"):
        check_mask_set(mask_set)
    (mask_set / "extra.png").unlink()
    Image.new("L", (48, 48), 255).save(mask_set / "photo2.png")
    with pytest.raises(InputError, match=r"photo2\.png: changed"):
        check_mask_set(mask_set)
    (mask_set / "photo2.png").unlink()
    with pytest.raises(InputError, match=r"photo2\.png: missing"):
        check_mask_set(mask_set)
    manifest["digest"] = "0"
    (mask_set / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        check_mask_set(mask_set)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"convention": "hole-white"}, "convention 'hole-white', not 'known-white'"),
     ({"convention": ...}, "no convention"), ({"preset": ...}, "no preset")],
)  # fmt: skip
def test_a_manifest_that_sdm_masks_does_not_write_is_refused(mask_set, folders, changes, reason):
    file = mask_set / "manifest.json"
    manifest = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in manifest.items() if v is not ...}))
    with pytest.raises(InputError) as error:
        evaluate_folders(folders.real, folders.fake, masks=str(mask_set), features=None)
    assert str(error.value) == f"{file}: damaged ({reason}); write the mask set again"


def test_evaluation_records_the_set_and_holds_to_its_convention(mask_set, folders):
    settings = {
        "masks": str(mask_set), "crop": 48, "features": None, "lpips": None, "cache": None,
        "num_workers": 0, "record": str(folders.root / "r.jsonl"),
    }  # fmt: skip
    evaluate_folders(folders.real, folders.real, **settings)
    record = json.loads((folders.root / "r.jsonl").read_text())
    manifest = check_mask_set(mask_set)
    assert record["masks"]["set"]["digest"] == manifest["digest"]
    assert record["masks"]["set"]["preset"] == "mat256_small"
    assert record["metrics"]["hole_ratio/custom"] == pytest.approx(
        manifest["mean_hole_ratio"], abs=1e-6
    )
    with pytest.raises(InputError, match="leave mask_convention out"):
        evaluate_folders(folders.real, folders.real, mask_convention="hole-white", **settings)


def test_results_of_a_method_that_took_white_for_hole_are_refused(folders):
    """Composited, they would be the originals."""
    target, given = str(folders.root / "set"), {"features": None, "lpips": None, "num_workers": 0}
    write_mask_set(target, folders.real, files=folders.masks, mask_convention="hole-white")
    for composite in (False, True):
        with pytest.raises(InputError, match="the method took white for hole"):
            evaluate_folders(
                folders.real, folders.fake, masks=target, composite=composite, record=None, **given
            )
    record = str(folders.root / "r.jsonl")
    evaluate_folders(
        folders.real, folders.fake, masks=target, mask_convention="known-white", record=record,
        **given,
    )  # fmt: skip
    assert json.loads(Path(record).read_text())["known_error"] > 0.5
