import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sdm_lightning.cli.main import main
from sdm_lightning.errors import InputError
from sdm_lightning.inference import load_generator, save_weights
from sdm_lightning.inference.inpaint import inpaint_files
from sdm_lightning.inference.pictures import TIFF_LAYOUT, read_picture

RNG = np.random.default_rng(0)


def write_pair(folder: Path, name: str, suffix: str = ".png", size: int = 32) -> np.ndarray:
    array = RNG.integers(0, 256, (size, size + 8, 3), dtype=np.uint8)
    known = np.full(array.shape[:2], 255, np.uint8)
    known[8:16, 8:20] = 0
    for sub in ("photos", "masks"):
        (folder / sub).mkdir(exist_ok=True)
    Image.fromarray(array).save(folder / "photos" / f"{name}{suffix}", icc_profile=b"profile")
    Image.fromarray(known).save(folder / "masks" / f"{name}.png")
    return array


def test_one_photo(tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture) -> None:
    array = write_pair(tmp_path, "a")
    photo, mask = str(tmp_path / "photos/a.png"), str(tmp_path / "masks/a.png")
    inpaint_files(photo, mask, weights=str(tiny_weights), uncertainty=True, steps=True)
    out = capsys.readouterr().out
    assert "filled 7.5% of the picture" in out
    assert "use --mask_convention hole-white for the opposite" in out
    names = sorted(path.name for path in (tmp_path / "photos").iterdir())
    assert names == [
        "a-inpainted-step1.png", "a-inpainted-step2.png", "a-inpainted-step3.png",
        "a-inpainted-uncertainty.png", "a-inpainted.png", "a.png",
    ]  # fmt: skip
    with Image.open(tmp_path / "photos/a-inpainted.png") as image:
        result = np.asarray(image)
        assert image.info["icc_profile"] == b"profile"
    assert (result[8:16, 8:20] != array[8:16, 8:20]).any()
    result = result.copy()
    result[8:16, 8:20] = array[8:16, 8:20]
    np.testing.assert_array_equal(result, array)


def test_nothing_is_overwritten_by_default(tmp_path: Path, tiny_weights: Path) -> None:
    write_pair(tmp_path, "a")
    photo, mask = str(tmp_path / "photos/a.png"), str(tmp_path / "masks/a.png")
    output = tmp_path / "out.png"
    output.write_text("dear")
    with pytest.raises(InputError, match="exists already"):
        inpaint_files(photo, mask, str(output), weights=str(tiny_weights))
    assert output.read_text() == "dear"
    inpaint_files(photo, mask, str(output), weights=str(tiny_weights), overwrite=True)
    assert output.read_bytes()[:4] == b"\x89PNG"
    for target in (photo, mask):
        with pytest.raises(InputError, match="is an input"):
            inpaint_files(photo, mask, target, weights=str(tiny_weights), overwrite=True)


def test_several_samples_and_jpeg(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    write_pair(tmp_path, "a")
    photo, mask = str(tmp_path / "photos/a.png"), str(tmp_path / "masks/a.png")
    inpaint_files(photo, mask, f"{tmp_path}/new/o.jpg", str(tiny_weights), num_samples=2)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["o-1.jpg", "o-2.jpg"]
    assert "changes known pixels a little" in capsys.readouterr().out


def test_folders_are_paired_by_name_and_the_bad_are_reported(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("a", "b", "cut", "lonely", "small"):
        write_pair(tmp_path, name, ".jpg" if name in ("b", "cut") else ".png")
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    (masks / "lonely.png").unlink()
    (photos / "cut.jpg").write_bytes((photos / "cut.jpg").read_bytes()[:700])
    Image.new("L", (9, 9), 255).save(masks / "small.png")
    with pytest.raises(SystemExit):
        inpaint(photos, masks, "--weights", tiny_weights)
    lines = capsys.readouterr().err.splitlines()
    assert f"not filled: {photos}/lonely.png: no mask named lonely.*" in lines[0]
    assert f"not filled: {photos}/cut.jpg: cannot be decoded" in lines[1]
    assert f"{photos}/small.png: {masks}/small.png: 9x9 pixels (width x height), but" in lines[2]
    assert lines[3] == "error: not filled: 3 of 5 photos"
    results = tmp_path / "photos-inpainted"
    assert sorted(path.name for path in results.iterdir()) == ["a.png", "b.png"]
    before = (results / "a.png").stat().st_mtime_ns
    with pytest.raises(InputError):
        inpaint_files(str(photos), str(masks), weights=str(tiny_weights))
    assert "2 done already, skipped" in capsys.readouterr().out
    assert (results / "a.png").stat().st_mtime_ns == before


def test_one_mask_for_a_folder(tmp_path: Path, tiny_weights: Path) -> None:
    for name in ("a", "b"):
        write_pair(tmp_path, name)
    mask = tmp_path / "masks/a.png"
    inpaint_files(str(tmp_path / "photos"), str(mask), f"{tmp_path}/out", str(tiny_weights))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]


def inpaint(*words: object) -> None:
    main(["inpaint", *map(str, words)])


def test_boxes_compare_and_json(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    array = write_pair(tmp_path, "a")
    inpaint(
        tmp_path / "photos/a.png", "--box", "1,2,3,4", "--box=20,10,5,6", "--weights", tiny_weights,
        "--compare", "--uncertainty", "--steps", "--num_samples", 2, "--seed", 5, "--json",
    )  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    (photo,) = told["photos"]
    assert (photo["width"], photo["height"]) == (40, 32)
    assert photo["hole_ratio"] == pytest.approx(42 / (40 * 32))
    assert photo["mask"] is None
    assert told["problems"] == []
    assert told["skipped"] == 0
    assert told["weights"]["sha256"] == hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    assert [sample["seed"] for sample in photo["samples"]] == [5, 6]
    files = [Path(photo["image"])]
    for sample in photo["samples"]:
        assert [len(sample[kind]) for kind in ("uncertainty", "step", "compare")] == [1, 3, 1]
        files += map(Path, [sample["file"], *sample["uncertainty"], *sample["step"]])
        files += map(Path, sample["compare"])
        result = np.asarray(Image.open(sample["file"])).copy()
        for box in ((slice(2, 6), slice(1, 4)), (slice(10, 16), slice(20, 25))):
            assert (result[box] != array[box]).any()
            result[box] = array[box]
        np.testing.assert_array_equal(result, array)
    assert sorted(files) == sorted((tmp_path / "photos").iterdir())
    assert files[1].name == "a-inpainted-1.png"


def test_transparency_and_paint(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    array = write_pair(tmp_path, "a")
    cut = np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])
    cut[8:16, 8:20] = 0
    Image.fromarray(cut).save(tmp_path / "cut.png")
    inpaint(tmp_path / "cut.png", "--mask", "alpha", "--weights", tiny_weights)
    result = np.asarray(Image.open(tmp_path / "cut-inpainted.png"))
    assert (result[:, :, 3] == 255).all()
    known = cut[:, :, 3] > 0
    np.testing.assert_array_equal(result[known], cut[known])
    assert (result[8:16, 8:20, :3] > 0).any()

    painted = array // 2
    painted[8:16, 8:20] = (255, 0, 255)
    Image.fromarray(painted).save(tmp_path / "painted.png")
    inpaint(
        tmp_path / "painted.png", "--mask_color", "#ff00ff", "--grow", 1, "--weights", tiny_weights
    )
    out = capsys.readouterr().out
    assert "filled 10.6% of the picture" in out  # 8 x 12 and the ring around it, without corners
    assert "hole-white" not in out
    result = np.asarray(Image.open(tmp_path / "painted-inpainted.png"))
    assert not (result == (255, 0, 255)).all(axis=2).any()


def test_a_folder_without_masks_tells_json_and_problems(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("a", "b"):
        write_pair(tmp_path, name)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "photos/small.png")
    with pytest.raises(SystemExit) as stopped:
        inpaint(tmp_path / "photos", "--box", "30,20,4,4", "--weights", tiny_weights, "--json")
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert [Path(photo["image"]).name for photo in told["photos"]] == ["a.png", "b.png"]
    box = "box '30,20,4,4': lies outside the photo of 9x9 pixels"
    assert told["problems"] == [f"{tmp_path}/photos/small.png: {box}"]
    assert captured.err.endswith("error: not filled: 1 of 3 photos\n")


def test_what_a_folder_holds_beside_photos(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    write_pair(tmp_path, "a")
    photos = tmp_path / "photos"
    for name in ("._a.jpg", ".hidden.png", "b.heic", "c.GIF", "d.JFIF"):
        (photos / name).write_bytes((photos / "a.png").read_bytes())
    (photos / "dir.png").mkdir()
    inpaint(photos, "--box", "-5,-5,20,20", "--weights", tiny_weights)
    assert capsys.readouterr().err == (
        "left out: 2 files of other formats (.gif, .heic), 1 subfolder\n"
    )
    filled = sorted(path.name for path in (tmp_path / "photos-inpainted").iterdir())
    assert filled == ["a.png", "d.png"]
    for name in ("a.png", "d.JFIF"):
        (photos / name).unlink()
    with pytest.raises(InputError, match=r"holds no pictures .* but 2 files of other formats"):
        inpaint_files(str(photos), weights=str(tiny_weights), box=["1,1,2,2"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--num_samples", "0"), "num_samples is 0; it must be at least 1"),
        (("--num_samples", "-3"), "num_samples is -3"),
        (("--seed", "-1"), "seed is -1"),
        (("--seed", "100000000000000000000"), "seed is 1000"),
        (("--work_size", "-1"), "work_size is -1"),
        (("--box", "1,2,3"), "box '1,2,3': write X,Y,W,H"),
        (("--mask_color", "red"), "mask_color 'red': write six"),
        (("--grow", "-1"), "grow is -1"),
    ],
)
def test_what_is_wrong_for_every_photo_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture, words: tuple[str, ...], says: str
) -> None:
    for name in ("a", "b"):
        write_pair(tmp_path, name)
    with pytest.raises(SystemExit):
        inpaint(tmp_path / "photos", tmp_path / "masks", *words, "--weights", "nowhere")
    error = capsys.readouterr().err
    assert error.startswith(f"error: {says}")
    assert error.count("\n") == 1


def test_an_empty_name_is_not_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write_pair(tmp_path, "a")
    monkeypatch.chdir(tmp_path / "photos")
    for words in (("", "a.png"), ("a.png", "")):
        with pytest.raises(SystemExit):
            inpaint(*words, "--weights", "nowhere")
        assert capsys.readouterr().err.startswith("error: missing: ")


@pytest.mark.parametrize("suffix", [".webp", ".jpg", ".jfif", ".bmp"])
def test_16_bits_become_8_where_a_format_has_no_more(
    tmp_path: Path, tiny_weights: Path, suffix: str
) -> None:
    grey = np.linspace(0, 65535, 32 * 40).reshape(32, 40).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "in.png", icc_profile=b"profile")
    output = tmp_path / f"out{suffix}"
    inpaint(tmp_path / "in.png", "--box=0,0,4,4", "--output", output, "--weights", tiny_weights)
    image = Image.open(output)
    difference = np.asarray(image.convert("L"))[8:].astype(int) - (grey[8:] >> 8)
    assert np.abs(difference).max() <= (0 if suffix == ".bmp" else 4)
    assert image.info.get("icc_profile") == (None if suffix == ".bmp" else b"profile")


def test_no_hole_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        inpaint(tmp_path / "a.png")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "error: missing: mask; give a file, --mask alpha, --box X,Y,W,H or --mask_color '#rrggbb'\n"
    )


@pytest.mark.parametrize(
    ("image", "mask", "output", "says"),
    [
        ("photos/none.png", "masks/a.png", None, "none.png: no such file"),
        ("photos/a.png", "masks", None, "masks: is a folder, but the photo is a file; give two"),
        ("photos", "masks/none.png", None, "no such file or folder"),
        ("photos", "masks", "photos", "is an input folder"),
        ("empty", "masks", None, "holds no pictures"),
        ("photos", "empty", None, "no photo and mask have the same name"),
        ("photos/a.png", "masks/a.png", "a.psd", "cannot write that format"),
    ],
)
def test_what_cannot_be_done(
    tmp_path: Path, tiny_weights: Path, image: str, mask: str, output: str | None, says: str
) -> None:
    write_pair(tmp_path, "a")
    (tmp_path / "empty").mkdir()
    target = None if output is None else str(tmp_path / output)
    with pytest.raises(InputError, match=says):
        inpaint_files(str(tmp_path / image), str(tmp_path / mask), target, str(tiny_weights))


def test_an_unwritable_place_is_told_before_the_weights_are_read(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    output = tmp_path / "photos" / "a.png" / "out.png"
    with pytest.raises(InputError, match=f"^{output}: cannot be written"):
        inpaint_files(
            str(tmp_path / "photos/a.png"), str(tmp_path / "masks/a.png"), str(output), "no weights"
        )


def test_no_result_takes_the_place_of_an_input(tmp_path: Path, tiny_weights: Path) -> None:
    """Neither as one of several samples nor as a picture beside the result."""
    write_pair(tmp_path, "a-1")
    write_pair(tmp_path, "a-compare")
    photos, mask = tmp_path / "photos", str(tmp_path / "masks/a-1.png")
    kept = {path: path.read_bytes() for path in photos.iterdir()}
    output, weights = str(photos / "a.png"), str(tiny_weights)
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"a-1\.png: is an input"):
            inpaint_files(
                str(photos / "a-1.png"), mask, output, weights, num_samples=2, overwrite=overwrite
            )
        with pytest.raises(InputError, match=r"a-compare\.png: is an input"):
            inpaint_files(
                str(photos / "a-compare.png"), mask, output, weights, compare=True,
                overwrite=overwrite,
            )  # fmt: skip
        masks = str(tmp_path / "masks")
        with pytest.raises(InputError, match="is an input folder"):
            inpaint_files(str(photos), masks, masks, weights, overwrite=overwrite)
    assert {path: path.read_bytes() for path in photos.iterdir()} == kept


def test_one_existing_sample_is_reason_enough(tmp_path: Path, tiny_weights: Path) -> None:
    write_pair(tmp_path, "a")
    photo, mask = str(tmp_path / "photos/a.png"), str(tmp_path / "masks/a.png")
    inpaint_files(photo, mask, weights=str(tiny_weights), num_samples=2)
    with pytest.raises(InputError, match=r"a-inpainted-1\.png: exists already"):
        inpaint_files(photo, mask, weights=str(tiny_weights), num_samples=3, seed=7)
    assert not (tmp_path / "photos/a-inpainted-3.png").exists()


def test_what_a_folder_lacks_is_made_and_what_it_has_stays(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    write_pair(tmp_path, "a")
    photos, out = tmp_path / "photos", tmp_path / "out"
    arguments = (photos, "--box=4,4,9,9", "--output", out, "--weights", tiny_weights)
    inpaint(*arguments)
    first = (out / "a.png").read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        inpaint(*arguments, "--uncertainty", "--seed", 5)
    assert "a.png: exists, made with other settings" in capsys.readouterr().err
    assert not (out / "a-uncertainty.png").exists()
    inpaint(*arguments, "--uncertainty")
    assert (out / "a.png").read_bytes() == first
    assert (out / "a-uncertainty.png").is_file()
    capsys.readouterr()
    inpaint(*arguments, "--uncertainty")
    assert "1 done already" in capsys.readouterr().out
    write_pair(tmp_path, "a-compare")
    with pytest.raises(SystemExit):
        inpaint(*arguments, "--compare", "--overwrite")
    assert "a-compare.png: would be the result of one photo and" in capsys.readouterr().err
    assert (out / "a.png").read_bytes() == first


def test_the_folder_that_one_is_in(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair(tmp_path, "a")
    monkeypatch.chdir(tmp_path / "photos")
    inpaint(".", "--box=4,4,9,9", "--weights", tiny_weights)
    assert (tmp_path / "photos-inpainted" / "a.png").is_file()


def tiff(kind: str, path: Path) -> None:
    """A TIFF file whose tags would be wrong for the colours that are written."""
    colour = Image.fromarray(RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8))
    options: dict = {"description": "a photo", "artist": "somebody"}
    if kind in ("CMYK", "LAB", "P"):
        colour = colour.convert(kind)
    elif kind == "I":
        wide = RNG.integers(0, 65536, (32, 40)).astype(np.int32)
        wide[0, :2] = 0, 65535
        colour = Image.fromarray(wide)
    elif kind == "predictor":
        options |= {"compression": "tiff_lzw", "tiffinfo": {317: 2}}
    elif kind == "jpeg":
        options |= {"compression": "jpeg"}
    colour.save(path, **options)


def test_a_jpeg_with_layout_tags_becomes_a_tiff(tmp_path: Path, tiny_weights: Path) -> None:
    array = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif.update({256: 40, 257: 24, 274: 6, 338: 1, 270: "a photo"})
    Image.fromarray(array).save(tmp_path / "a.jpg", exif=exif)
    inpaint(
        tmp_path / "a.jpg", "--box=4,4,9,9", "--output", tmp_path / "a.tif", "--weights",
        tiny_weights,
    )  # fmt: skip
    before, after = (read_picture(tmp_path / name).pixels for name in ("a.jpg", "a.tif"))
    assert before.shape == (40, 24, 3)
    np.testing.assert_array_equal(before[20:], after[20:])
    assert Image.open(tmp_path / "a.tif").getexif()[270] == "a photo"


def test_what_is_filled_is_to_be_seen(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    """Also where the photo is transparent there; elsewhere it stays transparent."""
    array = RNG.integers(0, 256, (32, 40, 4), dtype=np.uint8)
    array[:, :, 3] = 0
    Image.fromarray(array).save(tmp_path / "a.png")
    inpaint(tmp_path / "a.png", "--box=4,4,9,9", "--weights", tiny_weights)
    result = np.asarray(Image.open(tmp_path / "a-inpainted.png"))
    assert (result[4:13, 4:13, 3] == 255).all()
    assert (result[:, :, 3] == 255).sum() == 81
    assert not capsys.readouterr().err
    flat = tmp_path / "a.jpg"
    inpaint(tmp_path / "a.png", "--box=4,4,9,9", "--output", flat, "--weights", tiny_weights)
    assert capsys.readouterr().err == (
        f"warning: {flat}: .jpg has no transparency; laid over white\n"
    )


@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize("kind", ["RGB", "CMYK", "P", "LAB", "I", "predictor", "jpeg"])
def test_known_pixels_of_a_tiff_file(
    tmp_path: Path, tiny_weights: Path, kind: str, suffix: str
) -> None:
    """Its tags describe how its own pixels lie in it; the result's are other pixels."""
    photo, result = tmp_path / "in.tif", tmp_path / f"out{suffix}"
    tiff(kind, photo)
    before = read_picture(photo).pixels
    inpaint(photo, "--box=4,4,9,9", "--output", result, "--weights", tiny_weights)
    known = np.ones(before.shape[:2], bool)
    known[4:13, 4:13] = False
    after = read_picture(result).pixels
    np.testing.assert_array_equal(after[known], before[known])
    other = cv2.imread(str(result), cv2.IMREAD_UNCHANGED)
    other = other[:, :, None] if other.ndim == 2 else other[:, :, ::-1]
    np.testing.assert_array_equal(other[known], before[known])
    exif = Image.open(result).getexif()
    assert exif[270] == "a photo"
    if suffix == ".png":
        assert not set(exif) & TIFF_LAYOUT


def test_a_network_that_gives_nan_fills_nothing(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    generator, info = load_generator(tiny_weights)
    arguments = {**info.generator["init_args"], "mapping_lr_multiplier": 1e300}
    broken = replace(info, generator={**info.generator, "init_args": arguments})
    weights = save_weights(tmp_path / "broken.safetensors", broken, generator.state_dict())
    write_pair(tmp_path, "a")
    photos, out = tmp_path / "photos", tmp_path / "out"
    says = f"{photos / 'a.png'}: the network's output for its hole holds NaN or infinity"
    for image, output in ((photos / "a.png", out / "a.png"), (photos, out)):
        with pytest.raises(SystemExit) as stopped:
            inpaint(
                image, "--box=4,4,9,9", "--output", output, "--weights", weights, "--uncertainty",
                "--json",
            )  # fmt: skip
        assert stopped.value.code == 2
        told, error = capsys.readouterr()
        assert says in error
        assert not out.exists()
        (problem,) = json.loads(told)["problems"]
        assert problem.startswith(says)


def test_long_names(tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture) -> None:
    """What fits is filled; what does not is a line of its own, and not the end of the others."""
    longest = "x" * 251
    for name in ("a", longest, "y" * 240):
        write_pair(tmp_path, name)
    photos, out = tmp_path / "photos", tmp_path / "photos-inpainted"
    inpaint(photos, "--box=4,4,9,9", "--weights", tiny_weights)
    assert len(list(out.iterdir())) == 3
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        inpaint(photos, "--box=4,4,9,9", "--weights", tiny_weights, "--uncertainty")
    assert stopped.value.code == 2
    first, second, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"not filled: {photos}/{longest}.png: the name of its result, ")
    assert first.endswith("-uncertainty.png, has 267 bytes, more than 255; rename the photo")
    assert second.startswith(f"not filled: {photos}/yyy")
    assert last == "error: not filled: 2 of 3 photos"
    assert (out / "a-uncertainty.png").is_file()
    with pytest.raises(SystemExit):
        inpaint(photos / f"{longest}.png", "--box=4,4,9,9", "--weights", tiny_weights)
    assert f"{longest}-inpainted.png, has 265 bytes" in capsys.readouterr().err
