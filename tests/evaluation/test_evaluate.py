import inspect
import shutil
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.errors import InputError
from sdm_lightning.evaluation.evaluate import evaluate_folders
from sdm_lightning.reports.results import read_result_lines


def evaluate(folders, **changes):
    settings = {
        "masks": folders.masks,
        "features": "random-conv",
        "few_pairs": True,
        "lpips": None,
        "record": str(folders.root / "results.jsonl"),
        "cache": str(folders.root / "cache"),
        "num_workers": 0,
        "protocol": "toy6",
        **changes,
    }
    evaluate_folders(folders.real, folders.fake, **settings)
    return read_result_lines(settings["record"])[-1]


def refused(folders, **changes):
    with pytest.raises(InputError) as error:
        evaluate(folders, **changes)
    text = str(error.value)
    assert "\n" not in text
    return text


def load(folder, i):
    return np.asarray(Image.open(f"{folder}/photo{i}.png")).astype(float)


def test_table_and_record(folders, capsys):
    record = evaluate(folders, method="grey square", seed=3)
    real = np.stack([load(folders.real, i) for i in range(6)])
    fake = np.stack([load(folders.fake, i) for i in range(6)])
    hole = np.stack([load(folders.masks, i) for i in range(6)]) == 0
    error = [((f - r)[h] ** 2).mean() for f, r, h in zip(fake, real, hole, strict=True)]
    expected = np.mean(10 * np.log10(255**2 / np.array(error)))
    assert record["metrics"]["psnr_hole/toy6"] == pytest.approx(expected, rel=1e-12)
    assert record["metrics"]["l1/toy6"] == pytest.approx(np.abs(fake - real).mean() / 255)
    assert record["metrics"]["hole_ratio/toy6"] == pytest.approx(320 / 1920)
    assert (record["method"], record["seed"]) == ("grey square", 3)
    assert record["num_images"] == 6
    assert record["known_error"] == 0
    assert record["real"] == {"path": folders.real, "crop": None}
    assert record["fake"] == {"path": folders.fake}
    assert len(record["images_digest"]) == len(record["masks_digest"]) == 64
    assert record["networks"]["features"]["name"] == "random-conv"
    out = capsys.readouterr().out
    assert "fid[random-conv]/toy6" in out
    assert "p_ids[random-conv,n<2500]/toy6" in out
    assert f"{expected:.2f}" in out
    assert out.count("note:") == 1
    assert "note: FID of 6 images is unreliable" in out


def test_kid_of_few_images_is_noted_with_the_size_of_its_subsets(folders, capsys):
    evaluate(folders, kid=True)
    assert "note: KID of 6 images is a mean over random subsets of 3" in capsys.readouterr().out


def test_file_names_pair_whatever_order_and_extension(folders):
    expected = evaluate(folders)["metrics"]
    # Sorted order now differs between the folders, and one side has another extension.
    for folder in (folders.real, folders.fake, folders.masks):
        Path(folder, "photo0.png").rename(f"{folder}/zebra.png")
    Image.open(f"{folders.real}/photo1.png").save(f"{folders.real}/photo1.bmp")
    Path(folders.real, "photo1.png").unlink()
    found = evaluate(folders)["metrics"]
    assert found["l1_hole/toy6"] == pytest.approx(expected["l1_hole/toy6"], rel=1e-12)
    assert found["fid[random-conv]/toy6"] == pytest.approx(expected["fid[random-conv]/toy6"])
    for i in range(6):
        old = Path(folders.fake, "zebra.png" if i == 0 else f"photo{i}.png")
        old.rename(old.with_name(f"{old.stem}_mask001.png"))
    again = evaluate(folders, fake_suffix="_mask001")["metrics"]
    assert again == pytest.approx(found)


def test_zipped_folders_pair_as_their_folders_do(folders):
    expected = evaluate(folders)["metrics"]
    for name in ("real", "fake", "masks"):
        setattr(
            folders, name, shutil.make_archive(str(folders.root / name), "zip", folders.root, name)
        )
    assert evaluate(folders)["metrics"] == expected
    folders.real = str(folders.root / "real")
    assert evaluate(folders)["metrics"] == expected


def test_masks_pair_with_zips_whose_folders_have_one_name(folders):
    """Originals and results pair as they are, the masks only without the folders."""
    expected = evaluate(folders)["metrics"]
    for name in ("real", "fake"):
        inside = folders.root / name / "images"
        shutil.copytree(folders.root / name, inside)
        target = str(folders.root / name)
        setattr(folders, name, shutil.make_archive(target, "zip", folders.root / name, "images"))
    assert evaluate(folders)["metrics"] == expected


def test_missing_files(folders, capsys):
    Path(folders.fake, "photo2.png").unlink()
    Path(folders.fake, "photo4.png").unlink()
    text = refused(folders)
    assert "no result for 2 of 6 images" in text
    assert "photo2.png" in text
    record = evaluate(folders, only_common=True)
    assert (record["num_images"], record["unpaired"]) == (4, 2)
    assert "2 files without a counterpart" in capsys.readouterr().out
    Path(folders.masks, "photo5.png").unlink()
    assert "no mask for 1 of 4 images, the first is photo5" in refused(folders, only_common=True)


def test_results_without_original(folders):
    Path(folders.real, "photo0.png").unlink()
    assert "no original for 1 of 6 images" in refused(folders)


def test_corrupt_files(folders, capsys):
    path = Path(folders.fake, "photo3.png")
    path.write_bytes(path.read_bytes()[:200])
    text = refused(folders, num_workers=1)
    assert "fake/photo3.png" in text
    assert "--skip_bad true" in text
    record = evaluate(folders, skip_bad=True)
    assert record["num_images"] == 5
    assert list(record["skipped"]) == ["photo3"]
    assert "left out: " in capsys.readouterr().out


def zipped(folder, damage):
    """The images of a folder in a zip, with a byte of one changed."""
    target = f"{folder}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(Path(folder).iterdir()):
            archive.write(path, path.name)
    content = Path(folder, damage).read_bytes()
    Path(target).write_bytes(
        Path(target).read_bytes().replace(content, content[:-9] + b"123456789")
    )
    return target


@pytest.mark.parametrize("where", ["real", "fake"])
def test_unreadable_members_are_skipped(folders, where):
    setattr(folders, where, zipped(getattr(folders, where), "photo2.png"))
    assert f"{where}.zip/photo2.png: cannot be read" in refused(folders)
    record = evaluate(folders, skip_bad=True)
    assert list(record["skipped"]) == ["photo2"]
    assert record["num_images"] == 5


def test_a_place_that_cannot_be_written_is_refused_before_the_work(folders, monkeypatch):
    monkeypatch.setattr("sdm_lightning.evaluation.evaluate.run_pairs", None)
    with pytest.raises(InputError, match="masks: cannot be written"):
        evaluate(folders, record=folders.masks)
    with pytest.raises(InputError, match="cannot be written"):
        evaluate(folders, record=f"{folders.masks}/photo0.png/results.jsonl")
    assert "give masks" in refused(folders, composite=True, masks=None)


def test_single_masks_may_be_nearly_all_hole(folders):
    """The set is judged; with one image in a batch, the first used to be."""
    Image.new("L", (40, 48), 255).save(f"{folders.masks}/photo1.png")
    Image.new("L", (40, 48), 0).save(f"{folders.masks}/photo0.png")
    record = evaluate(folders, batch_size=1)
    assert 0.25 < record["metrics"]["hole_ratio/toy6"] < 0.35


def test_sizes(folders):
    path = Path(folders.fake, "photo1.png")
    picture = Image.open(path)
    picture.resize((20, 24)).save(path)
    text = refused(folders)
    assert "photo1.png: is 24x20" in text
    assert "is 48x40" in text
    assert "--crop" not in text
    picture.resize((60, 60)).save(path)
    text = refused(folders)
    assert "it is larger: give the originals" in text
    assert "--crop" not in text
    for i in range(6):  # results of the published protocol: central squares
        real = Image.open(f"{folders.real}/photo{i}.png")
        real.crop((4, 8, 36, 40)).save(f"{folders.fake}/photo{i}.png")
    assert "--crop 32 cuts the centre" in refused(folders)
    assert refused(folders, crop=0) == "--crop must be at least 1, got 0"
    assert refused(folders, batch_size=0) == "--batch_size must be at least 1, got 0"
    assert refused(folders, num_workers=-1) == "--num_workers must be at least 0, got -1"
    record = evaluate(folders, crop=32, masks=None)
    assert record["metrics"]["l1/toy6"] == 0
    assert float(record["metrics"]["psnr/toy6"]) == np.inf
    assert record["counts"]["psnr/toy6"] == 6
    assert evaluate(folders, crop=32)["metrics"]["hole_ratio/toy6"] > 0
    assert "mask is 48x40" not in refused(folders, crop=30)


def test_crops_of_mirrored_pixels_are_refused_as_by_sdm_test(folders):
    text = refused(folders, crop=64, masks=None)
    assert "real: 53% of the crops of 64x64 is mirrored padding, more than 25%" in text
    assert evaluate(folders, crop=48, masks=None)["num_images"] == 6  # a sixth


def test_inverted_masks(folders):
    for i in range(6):
        path = Path(folders.masks, f"photo{i}.png")
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    text = refused(folders)
    assert "looks inverted" in text
    assert "--mask_convention hole-white" in text
    record = evaluate(folders, mask_convention="hole-white")
    assert record["metrics"]["hole_ratio/toy6"] == pytest.approx(320 / 1920)
    assert record["masks"]["convention"] == "hole-white"
    taken = evaluate(folders, mask_convention="known-white")
    assert taken["metrics"]["hole_ratio/toy6"] == pytest.approx(1600 / 1920)


def test_masks_without_hole(folders):
    for i in range(6):
        Image.new("L", (40, 48), 255).save(f"{folders.masks}/photo{i}.png")
    assert "no mask has a hole" in refused(folders)


def test_scores_that_need_more_pairs_are_left_out_with_the_reason(folders, capsys):
    record = evaluate(folders, few_pairs=False)
    assert not any(name.startswith("p_ids") for name in record["metrics"])
    assert "fid[random-conv]/toy6" in record["metrics"]
    printed = capsys.readouterr().out
    assert "not reported: p_ids[random-conv]: 6 pairs; below 2500 it is near 0" in printed
    assert "few_pairs true reports it as p_ids[random-conv,n<2500]" in printed


def test_missing_weights_and_empty_folders(folders, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folders.root))
    assert "efficientnet-lite2 (extra `features`) or random-conv" in refused(
        folders, features="inception-v3-compat"
    )
    assert "lpips=null" in refused(folders, lpips="alex")
    Path(folders.root, "empty").mkdir()
    assert "no images in it" in refused(folders, masks=str(folders.root / "empty"))
    assert "does not exist" in refused(folders, masks=str(folders.root / "nowhere"))


def test_results_not_composited_or_lossy_are_noted(folders, capsys):
    for i in range(6):
        path = Path(folders.fake, f"photo{i}.png")
        Image.open(path).save(path.with_suffix(".jpg"), quality=60)
        path.unlink()
    record = evaluate(folders, device="cpu")
    out = capsys.readouterr().out
    assert "6 results are JPEG" in out
    assert "known pixels differ" in out
    assert record["known_error"] > 0.5
    assert (record["device"], record["versions"]["timm"]) == ("cpu", version("timm"))
    pasted = evaluate(folders, composite=True)
    assert pasted["metrics"]["l1/toy6"] < record["metrics"]["l1/toy6"]
    assert pasted["images_digest"] == record["images_digest"]
    assert pasted["results_digest"] != record["results_digest"]
    assert pasted["metrics"]["l1_hole/toy6"] == record["metrics"]["l1_hole/toy6"]


def test_changed_originals_invalidate_the_cache(folders, capsys):
    first = evaluate(folders)
    assert "came from the cache" not in capsys.readouterr().out
    second = evaluate(folders)
    assert "features of 6 originals came from the cache" in capsys.readouterr().out
    assert second["metrics"] == first["metrics"]
    picture = Image.open(f"{folders.real}/photo2.png")
    picture.putpixel((0, 0), (1, 2, 3))
    picture.save(f"{folders.real}/photo2.png")
    third = evaluate(folders)
    assert "came from the cache" not in capsys.readouterr().out
    assert third["images_digest"] != first["images_digest"]


def test_progress_tells_images_per_second(folders, capsys):
    evaluate(folders)
    assert "6/6" in (err := capsys.readouterr().err)
    assert "img/s" in err


def test_every_argument_is_documented():
    documented = inspect.getdoc(evaluate_folders).split("Args:")[1]
    for name in inspect.signature(evaluate_folders).parameters:
        assert f"    {name}: " in documented


def test_a_device_that_is_not_there(folders, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert refused(folders, device="cuda").startswith("device cuda: this machine has no usable")
