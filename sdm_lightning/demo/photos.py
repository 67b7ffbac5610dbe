"""Real photos without a download, and the demo's training and test images made of them.

scikit-image, scikit-learn and matplotlib carry a few photos inside their wheels. Four natural
colour photos are held out whole for testing: no crop of them is ever trained on, not even as the
texture of a dead leaf.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
from PIL import Image
from tqdm.contrib.concurrent import thread_map

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.data.windows import (
    fixed_window,
    is_grey,
    random_window,
    recoloured,
    resized,
    tinted,
)
from sdm_lightning.demo.dead_leaves import dead_leaves_image
from sdm_lightning.errors import InputError
from sdm_lightning.workers import usable_cores


@dataclass(frozen=True)
class Photo:
    """One photo that ships inside a Python package.

    Attributes:
        name: Short name, the key of ``train_photos`` and ``test_photos``.
        package: Import name of the package that carries it.
        path: Place inside the package.
        split: ``train`` or ``test``.
        licence: Terms as its package states them.
        source: Who made it, or where it comes from.
        weight: How often it is drawn for training; scenes more often than textures.
    """

    name: str
    package: Literal["skimage", "sklearn", "matplotlib"]
    path: str
    split: Literal["train", "test"]
    licence: str
    source: str
    weight: int = 1


_PUBLIC = "public domain"
_SK: Final = "skimage"

PHOTOS: tuple[Photo, ...] = (
    # Held out: a person, an animal, a thing, a plant.
    Photo("astronaut", _SK, "data/astronaut.png", "test", _PUBLIC, "NASA Great Images"),
    Photo("chelsea", _SK, "data/chelsea.png", "test", "CC0", "Stefan van der Walt"),
    Photo("coffee", _SK, "data/coffee.png", "test", "CC0", "Rachel Michetti"),
    Photo("flower", "sklearn", "datasets/images/flower.jpg", "test", "CC BY 2.0",
          "flickr.com/photos/vultilion/6056698931"),
    # Trained on: scenes first, then textures and pictures of science.
    Photo("china", "sklearn", "datasets/images/china.jpg", "train", "CC BY 2.0",
          "danielbuechele, flickr.com/photos/danielbuechele/6061409035", 5),
    Photo("grace_hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "train",
          _PUBLIC, "United States Navy", 5),
    Photo("motorcycle", _SK, "data/motorcycle_left.png", "train", "terms not stated; cite source",
          "Middlebury 2014 stereo benchmark, Scharstein et al., GCPR 2014", 6),
    Photo("rocket", _SK, "data/rocket.jpg", "train", _PUBLIC, "SpaceX", 2),
    Photo("camera", _SK, "data/camera.png", "train", "CC0", "Lav Varshney", 3),
    Photo("hubble", _SK, "data/hubble_deep_field.jpg", "train", _PUBLIC, "NASA, HubbleSite"),
    Photo("retina", _SK, "data/retina.jpg", "train", "CC0", "Mikael Haggstrom"),
    Photo("tissue", _SK, "data/ihc.png", "train", "no known copyright restrictions",
          "Center for Microscopy and Molecular Imaging"),
    Photo("brick", _SK, "data/brick.png", "train", "CC0", "CC0Textures Bricks25"),
    Photo("grass", _SK, "data/grass.png", "train", "CC0", "linolafett, DeviantArt Grass-01"),
    Photo("gravel", _SK, "data/gravel.png", "train", "CC0", "CC0Textures Gravel04"),
    Photo("coins", _SK, "data/coins.png", "train", "no known copyright restrictions",
          "Brooklyn Museum"),
    Photo("moon", _SK, "data/moon.png", "train", "not stated by scikit-image", "scikit-image"),
)  # fmt: skip
"""Every photo that is used, with its split, licence and source."""

DAMAGE = {
    "astronaut": "an old print's scratches and dust",
    "chelsea": "lettering over the picture",
    "coffee": "a spoon to be removed",
    "flower": "a large piece torn out",
}
"""Held-out photo -> what is wrong with it, in words."""

MARGIN = 8
"""Extra pixels of a training image, so that random crops of it differ."""

LEAF_FRACTION = 0.4
"""Share of the training images that are dead leaves."""

_MANIFEST = "demo_images.json"
_RECIPE = 1  # raise it when the same arguments make other pictures


def train_photos() -> dict[str, UInt8Array]:
    """Load the photos that may be trained on.

    Returns:
        name -> uint8 ``(H, W, 3)`` RGB; grey photos have three equal channels.
    """
    return {photo.name: _load(photo) for photo in PHOTOS if photo.split == "train"}


def test_photos() -> dict[str, UInt8Array]:
    """Load the photos that are held out whole for testing; see ``train_photos``."""
    return {photo.name: _load(photo) for photo in PHOTOS if photo.split == "test"}


# pytest would otherwise take the name for a test wherever it is imported.
test_photos.__test__ = False  # type: ignore[attr-defined]


def damage_mask(name: str, photo: UInt8Array) -> UInt8Array:
    """Load the mask of a held-out photo's damage.

    Returns:
        ``(H, W)``, 255 = known, 0 = hole.

    Raises:
        InputError: If the photo is not of the size that the mask was drawn for.
    """
    path = Path(__file__).with_name("masks") / f"{name}.png"
    with Image.open(path) as image:
        mask = np.array(image.convert("L"))
    if mask.shape != photo.shape[:2]:
        raise InputError(f"{path}: is not of {name}'s size, {photo.shape[1]}x{photo.shape[0]}")
    return mask


def _load(photo: Photo) -> UInt8Array:
    # Found without importing it, which for these packages takes seconds.
    spec = importlib.util.find_spec(photo.package)
    assert spec is not None  # a dependency of this package
    assert spec.submodule_search_locations
    with Image.open(Path(spec.submodule_search_locations[0]) / photo.path) as image:
        return np.array(image.convert("RGB"))


def make_demo_images(
    output_dir: str | Path,
    *,
    size: int = 64,
    num_train: int = 20_000,
    num_test: int = 100,
    seed: int = 0,
    num_workers: int | None = None,
) -> None:
    """Write the demo's images as ``train/*.png`` and ``test/*.png`` with a manifest.

    Training images are ``size + MARGIN`` pixels wide, so that a random crop of ``size`` still
    varies them. They are random windows of the training photos or, ``LEAF_FRACTION`` of them,
    dead leaves textured from those photos. A window has a random scale from one pixel per
    pixel up to the whole photo, averaged down, its aspect ratio changed by up to a quarter; a
    half of the images are mirrored, one in seven turned by 90 degrees, and all have their
    brightness, contrast and colour balance changed (one in eight with its channels permuted; grey
    photos are mostly tinted). All of this is baked into the files, because a dozen photos are few.

    Test images are ``size`` pixels wide: square windows of the held-out photos, from the whole
    shorter side (the first window of each photo) to a quarter of it, untouched but for averaging
    down. They do not depend on ``seed``.

    The same arguments write the same files with the same library versions, whatever
    ``num_workers``. A folder that was already made with the same arguments is left as it is;
    nothing is left half-written.

    Args:
        output_dir: Folder to make.
        size: Side of the crops that the model sees, in pixels.
        num_train: Number of training images.
        num_test: Number of test images.
        seed: Seed of the training images.
        num_workers: Threads; by default one per core.

    Raises:
        InputError: If an argument is out of range, or ``output_dir`` holds something else.
    """
    if size < 8 or num_train < 0 or num_test < 0:
        raise InputError(
            "make_demo_images: size must be at least 8 and num_train, num_test not negative, got "
            f"{size}, {num_train}, {num_test}"
        )
    output = Path(output_dir)
    facts = {
        "recipe": _RECIPE,
        "size": size,
        "margin": MARGIN,
        "num_train": num_train,
        "num_test": num_test,
        "leaf_fraction": LEAF_FRACTION,
        "seed": seed,
        "photos": [asdict(photo) for photo in PHOTOS],
    }
    manifest = (json.dumps(facts, indent=2) + "\n").encode()
    made = output / _MANIFEST
    if made.is_file() and made.read_bytes() == manifest:
        return
    with suppress(OSError):
        output.rmdir()  # an empty folder may be there already
    if output.exists():
        raise InputError(
            f"{output}: holds something else than these demo images; remove it or choose another "
            "folder"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
        partial = Path(scratch) / "images"  # with the user's permissions
        partial.mkdir()
        painter = _TrainPainter(train_photos(), size + MARGIN, seed)
        _write_all(partial / "train", num_train, painter, "train images", num_workers)
        tests = _test_images(test_photos(), size, num_test)
        _write_all(partial / "test", num_test, tests.__getitem__, "test images", num_workers)
        (partial / _MANIFEST).write_bytes(manifest)
        os.replace(partial, output)


def _write_all(
    folder: Path,
    count: int,
    paint: Callable[[int], tuple[str, UInt8Array]],
    label: str,
    num_workers: int | None,
) -> None:
    folder.mkdir()

    def write(index: int) -> None:
        name, image = paint(index)
        # No effort on compression: shards are read far more often than they are sent.
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        done, data = cv2.imencode(".png", image[..., ::-1], options)
        if not done:
            raise RuntimeError(f"could not encode {name}")
        (folder / f"{name}.png").write_bytes(data.tobytes())

    # Threads are enough: OpenCV releases the interpreter lock while it resizes and encodes.
    workers = num_workers or usable_cores()
    # disable=None: no bar where there is no terminal.
    thread_map(write, range(count), max_workers=workers, desc=label, unit="img", disable=None)


class _TrainPainter:
    """Paints training image ``index`` from ``(seed, index)`` alone."""

    def __init__(self, photos: dict[str, UInt8Array], side: int, seed: int) -> None:
        self.side, self.seed = side, seed
        weights = {photo.name: photo.weight for photo in PHOTOS}
        self.photos: list[UInt8Array] = []
        self.textures: list[UInt8Array] = []
        rng = np.random.default_rng([seed, 0])
        for name, image in photos.items():
            for _ in range(weights[name]):
                self.photos.append(image)
                self.textures.append(tinted(image, rng) if is_grey(image) else image)

    def __call__(self, index: int) -> tuple[str, UInt8Array]:
        rng = np.random.default_rng([self.seed, 1, index])
        if rng.random() < LEAF_FRACTION:
            # From a photo with one thing in front of it to nothing but leaves. Exponents below
            # the scale-invariant 3 make more large leaves, whose long edges are worth learning.
            count, exponent = round(80 ** rng.random()), rng.uniform(1.0, 3.0)
            image = dead_leaves_image(
                self.side, self.textures, rng, num_leaves=count, exponent=exponent
            )
            return f"{index:06d}-leaves", recoloured(image, rng)
        photo = self.photos[int(rng.integers(len(self.photos)))]
        image = random_window(photo, self.side, rng)
        if rng.random() < 0.5:
            image = image[:, ::-1]
        if rng.random() < 1 / 7:
            image = np.rot90(image, 1 if rng.random() < 0.5 else 3)
        image = np.ascontiguousarray(image)
        if is_grey(image) and rng.random() < 0.8:
            image = tinted(image, rng)
        return f"{index:06d}-photo", recoloured(image, rng)


def _test_images(
    photos: dict[str, UInt8Array], size: int, count: int
) -> Sequence[tuple[str, UInt8Array]]:
    """Cut ``count`` fixed square windows, going round the photos."""
    names = list(photos)
    images = []
    for index in range(count):
        name, turn = names[index % len(names)], index // len(names)
        window = fixed_window(photos[name], size, turn)
        images.append((f"{index:04d}-{name}-{len(window)}px", resized(window, size)))
    return images
