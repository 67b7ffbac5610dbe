"""The photos inside the installed packages, dead leaves, and the demo's images."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.data.windows import is_grey
from sdm_lightning.demo import photos
from sdm_lightning.demo.dead_leaves import _power_law, dead_leaves_image
from sdm_lightning.demo.photos import PHOTOS, make_demo_images, train_photos
from sdm_lightning.errors import InputError


@pytest.fixture(scope="module")
def held_out() -> dict[str, np.ndarray]:
    return photos.test_photos()


@pytest.fixture(scope="module")
def training() -> dict[str, np.ndarray]:
    return train_photos()


def make(folder: Path, **changes: object) -> Path:
    arguments: dict = {"size": 32, "num_train": 24, "num_test": 9}
    make_demo_images(folder, **(arguments | changes))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


def test_every_photo_is_in_the_installed_wheels(training, held_out):
    assert set(held_out) == {"astronaut", "chelsea", "coffee", "flower"}
    assert len(training) == 13
    assert len({photo.name for photo in PHOTOS}) == len(PHOTOS)
    for name, image in (training | held_out).items():
        assert image.dtype == np.uint8, name
        assert image.shape[2:] == (3,), name
        assert min(image.shape[:2]) >= 300, name
    assert training["rocket"].shape == (427, 640, 3)
    assert not any(is_grey(image) for image in held_out.values())


def test_every_held_out_photo_is_damaged(held_out):
    assert set(photos.DAMAGE) == set(held_out)
    for name, photo in held_out.items():
        mask = photos.damage_mask(name, photo)
        assert mask.shape == photo.shape[:2]
        assert set(np.unique(mask)) == {0, 255}
        assert 0.01 < (mask == 0).mean() < 0.25
        with pytest.raises(InputError, match=rf"{name}\.png: is not of {name}'s size, \d+x99"):
            photos.damage_mask(name, photo[:99])


def test_split_shares_no_picture(training, held_out):
    def digest(image: np.ndarray) -> str:
        return hashlib.sha256(image.tobytes()).hexdigest()

    assert not {digest(i) for i in training.values()} & {digest(i) for i in held_out.values()}
    assert len({(p.package, p.path) for p in PHOTOS}) == len(PHOTOS)


def test_demo_images_have_the_asked_numbers_sizes_and_names(tmp_path):
    folder = make(tmp_path / "demo")
    train, test = sorted((folder / "train").iterdir()), sorted((folder / "test").iterdir())
    assert [len(train), len(test)] == [24, 9]
    assert {Image.open(p).size for p in train} == {(40, 40)}
    assert {Image.open(p).size for p in test} == {(32, 32)}
    assert test[0].name == "0000-astronaut-512px.png"
    kinds = {p.stem.split("-")[1] for p in train}
    assert kinds == {"photo", "leaves"}
    # A dot inside a name would end the key of a shard's sample early.
    assert all(p.name.count(".") == 1 for p in train + test)
    manifest = json.loads((folder / "demo_images.json").read_text())
    assert manifest["num_train"] == 24
    assert {p["licence"] for p in manifest["photos"]} >= {"CC0", "CC BY 2.0"}


def test_demo_images_depend_on_the_seed_alone(tmp_path):
    one = contents(make(tmp_path / "one", num_workers=1))
    assert contents(make(tmp_path / "three", num_workers=3)) == one
    other = contents(make(tmp_path / "other", seed=1))
    assert {k for k in one if k.startswith("test")} == {k for k in other if k.startswith("test")}
    assert all(one[k] == other[k] for k in one if k.startswith("test"))
    train = [k for k in one if k.startswith("train")]
    assert all(one[k] != other.get(k) for k in train)
    assert len({one[k] for k in train}) == len(train)


def test_no_held_out_photo_reaches_the_training_images(tmp_path, monkeypatch):
    before = contents(make(tmp_path / "before"))
    original = photos._load
    monkeypatch.setattr(photos, "_load", lambda p: original(p) // (2 if p.split == "test" else 1))
    after = contents(make(tmp_path / "after"))
    assert all(before[k] == after[k] for k in before if k.startswith("train"))
    assert all(before[k] != after[k] for k in before if k.startswith("test"))


def test_made_folder_is_kept_and_anything_else_refused(tmp_path):
    folder = make(tmp_path / "demo", num_train=2, num_test=1)
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    make(folder, num_train=2, num_test=1)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == times
    with pytest.raises(InputError, match="demo: holds something else"):
        make(folder, num_train=2, num_test=1, seed=5)
    (folder / "demo_images.json").write_text("{")
    with pytest.raises(InputError, match="demo: holds something else"):
        make(folder, num_train=2, num_test=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(InputError, match="mine: holds something else"):
        make(tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: holds something else"):
        make(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty", num_train=1, num_test=1)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        make(tmp_path / "images", num_train=0, num_test=1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "images").stat().st_mode) == 0o750


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(photos, "_test_images", fail)
    with pytest.raises(OSError, match="disk full"):
        make(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes", [{"size": 4}, {"num_train": -1}])
def test_bad_arguments_are_refused(tmp_path, changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        make(tmp_path / "demo", **changes)


@pytest.mark.parametrize("exponent", [1.1, 2.0, 3.0])
def test_radii_follow_the_power_law(exponent: float):
    low, high = 2.0, 50.0
    u = np.linspace(0, 1, 200_001)
    radii = np.array([_power_law(v, low, high, exponent) for v in u[::100]])
    assert radii[0] == pytest.approx(low)
    assert radii[-1] == pytest.approx(high)
    # Invert numerically: the integral of r^-exponent up to the radius is u of the whole.
    grid = np.geomspace(low, high, 200_001)
    density = grid**-exponent
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    np.testing.assert_allclose(np.interp(radii, grid, mass / mass[-1]), u[::100], atol=1e-4)


def test_dead_leaves_come_from_their_textures():
    red = np.zeros((50, 80, 3), np.uint8)
    red[..., 0] = 120
    image = dead_leaves_image(48, [red], np.random.default_rng(0))
    assert image.shape == (48, 48, 3)
    assert image.dtype == np.uint8
    assert image[..., 1:].max() == 0
    # shades of 0.75 to 1.25 of the texture, several of them
    assert 89 <= image[..., 0].min() < 105
    assert 130 < image[..., 0].max() <= 151
    same = dead_leaves_image(48, [red], np.random.default_rng(0))
    np.testing.assert_array_equal(image, same)
    with pytest.raises(InputError, match="textures"):
        dead_leaves_image(48, [], np.random.default_rng(0))


def test_dead_leaves_have_the_spectrum_of_natural_images(training):
    textures = [training[name] for name in ("china", "motorcycle", "grace_hopper")]
    rng = np.random.default_rng(0)
    side = 64
    window = np.outer(np.hanning(side), np.hanning(side))
    power = np.zeros((side, side))
    for _ in range(40):
        grey = dead_leaves_image(side, textures, rng).mean(-1)
        power += np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    frequency = np.fft.fftfreq(side) * side
    radius = np.hypot(*np.meshgrid(frequency, frequency))
    rings = np.arange(3, 24)
    mean = [power[(radius >= r - 0.5) & (radius < r + 0.5)].mean() for r in rings]
    slope = np.polyfit(np.log(rings), np.log(mean), 1)[0]
    # Natural images: power falls as frequency^-2, give or take (Field 1987).
    assert -2.8 < slope < -1.4
