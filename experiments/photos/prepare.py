"""Make training and test windows of photos that installed packages carry.

Debian's packages need not be installed, only unpacked::

    apt-get download mate-backgrounds plasma-workspace-wallpapers tuxpaint-data palapeli-data \\
        gcompris-qt-data
    for file in *.deb; do dpkg -x $file packages; done
    python experiments/photos/prepare.py runs/photos --packages packages

Every fifth subject, chosen by a hash of its name, is held out whole for testing. Photos of ``sdm
demo`` keep the split that they have there, since the packaged weights began with it.
``OUT/photos.json`` lists each with split, package and licence.
"""

import hashlib
import importlib.util
import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import yaml
from braceexpand import braceexpand
from PIL import Image
from rcc import read_rcc
from tqdm import tqdm

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.data.windows import fixed_window, reduce_to_shorter_side, resized
from sdm_lightning.demo.photos import PHOTOS
from sdm_lightning.errors import InputError
from sdm_lightning.seeding import stable_rng

LONGEST_SHORT_SIDE = 768
"""Larger photos are reduced: at full size their windows show little but blur."""
FLAT = 8.0
"""Windows whose mean standard deviation of a colour, in levels, is below this teach little."""


@dataclass(frozen=True)
class Photo:
    """One photo.

    Attributes:
        name: Package and file, unique.
        split: ``train`` or ``test``.
        package: That carries it.
        licence: As the package states it.
        size: Width and height in pixels.
        pixels: uint8 ``(H, W, 3)``.
    """

    name: str
    split: str
    package: str
    licence: str
    size: tuple[int, int]
    pixels: UInt8Array = field(repr=False)


def subject(name: str) -> str:
    """Return what a photo shows, by its file name: the same for photos of the same monument."""
    return PurePosixPath(name).stem.lower().removesuffix("_background").replace("_", "")


def is_held_out(name: str) -> bool:
    """Tell whether a photo is for testing only."""
    shown = subject(name)
    for photo in PHOTOS:
        if shown == subject(photo.path):
            return photo.split == "test"
    return int.from_bytes(hashlib.sha256(shown.encode()).digest()[:4], "big") % 5 == 0


def read_photos(packages: Path) -> list[Photo]:
    """Read every photo of ``collections.yaml``.

    Args:
        packages: Where Debian's packages are unpacked; ``/`` where they are installed.

    Raises:
        InputError: If a package is missing.
    """
    photos = []
    for collection in yaml.safe_load(Path(__file__).with_name("collections.yaml").read_text()):
        for path, content in sorted(_files(collection, packages).items()):
            place = Path(collection.get("archive", "")).stem
            # KDE's files are all called by their size; the folder above names the photo.
            parts = PurePosixPath(path).parts
            stem = parts[0] if "contents" in parts else PurePosixPath(path).stem
            name = "/".join(part for part in (collection["package"], place, stem) if part)
            with Image.open(io.BytesIO(content)) as image:
                pixels = np.array(image.convert("RGB"))
            split = "test" if is_held_out(name) else "train"
            size = (pixels.shape[1], pixels.shape[0])
            photos.append(
                Photo(name, split, collection["package"], collection["licence"], size, pixels)
            )
    return photos


def _files(collection: dict, packages: Path) -> dict[str, bytes]:
    """Return path -> content of the files that a collection names."""
    include = [p for pattern in collection["files"] for p in braceexpand(pattern)]

    def wanted(path: str) -> bool:
        excluded = any(fnmatch(path, pattern) for pattern in collection.get("exclude", []))
        return not excluded and any(fnmatch(path, pattern) for pattern in include)

    package = collection["package"]
    if "archive" in collection:
        archive = packages / collection["archive"]
        if not archive.is_file():
            raise InputError(f"{archive} is missing; unpack Debian's package {package} there")
        return {path: data for path, data in read_rcc(archive).items() if wanted(path)}
    folder = packages / collection["folder"]
    if "python" in collection:
        spec = importlib.util.find_spec(collection["python"])
        if spec is None or spec.origin is None:
            raise InputError(f"photos of {package}: run: pip install {package}")
        folder = Path(spec.origin).parent / collection["folder"]
    found = {}
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).as_posix()
        if path.is_file() and not path.is_symlink() and wanted(inside):
            found[inside] = path.read_bytes()
    if not found:
        raise InputError(f"{folder} has no photos; unpack Debian's package {package} there")
    return found


def is_flat(pixels: UInt8Array) -> bool:
    """Tell whether a window shows next to nothing."""
    return bool(pixels.std((0, 1)).mean() < FLAT)


def training_window(photos: list[UInt8Array], side: int, seed: int, index: int) -> UInt8Array:
    """Cut window ``index``: any photo, any scale from one pixel per pixel to the whole photo.

    Larger photos are drawn more often, by the square root of their area. The aspect ratio changes
    by up to 15 %, brightness and contrast a little. Four of five flat windows are drawn again.
    """
    rng = stable_rng(seed, index)
    weights = np.array([math.sqrt(p.shape[0] * p.shape[1]) for p in photos])
    while True:
        photo = photos[int(rng.choice(len(photos), p=weights / weights.sum()))]
        height, width = photo.shape[:2]
        longest = min(height, width)
        window = side * (longest / side) ** rng.random() if longest > side else longest
        stretch = 1.15 ** (rng.uniform(-1, 1) / 2)
        tall = min(max(round(window * stretch), min(side, height)), height)
        wide = min(max(round(window / stretch), min(side, width)), width)
        top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
        cut = photo[top : top + tall, left : left + wide]
        if not is_flat(cut) or rng.random() < 0.2:
            break
    levels = (np.linspace(0, 1, 256) - 0.5) * rng.uniform(0.9, 1.1) + 0.5
    curve = np.clip(levels, 0, 1) ** math.exp(rng.uniform(-0.2, 0.2))
    return np.rint(curve * 255).astype(np.uint8)[resized(cut, side)]


def test_windows(photo: UInt8Array, side: int, count: int) -> list[UInt8Array]:
    """Cut up to ``count`` fixed square windows of a held-out photo; flat ones are left out."""
    windows: list[UInt8Array] = []
    for turn in range(4 * count):
        cut = fixed_window(photo, side, turn, least=0.0)
        if not is_flat(cut):
            windows.append(resized(cut, side))
        if len(windows) == count:
            break
    return windows


def prepare(
    out: Path,
    packages: Path = Path("/"),
    size: int = 64,
    num_train: int = 60_000,
    num_test: int = 2_200,
    seed: int = 0,
) -> None:
    """Write ``OUT/train/*.png``, ``OUT/test/*.png``, ``OUT/photos/*.png`` and ``OUT/photos.json``.

    Args:
        out: Folder to make.
        packages: Where Debian's packages are unpacked.
        size: Side of the crops that a model sees; training windows are a quarter larger, so that
            random crops differ, test windows are exactly of it.
        num_train: Training windows.
        num_test: Test windows, as many from each held-out photo as from the others.
        seed: Seed of the training windows.
    """
    photos = read_photos(packages)
    for folder in ("train", "test", "photos"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    held_out = [photo for photo in photos if photo.split == "test"]
    sources = [
        reduce_to_shorter_side(photo.pixels, LONGEST_SHORT_SIDE)
        for photo in photos
        if photo.split == "train"
    ]
    side = size + size // 4

    def train(index: int) -> None:
        _write(out / "train" / f"{index:06d}.png", training_window(sources, side, seed, index))

    def test(photo: Photo) -> None:
        flat_name = photo.name.replace("/", "-")
        _write(out / "photos" / f"{flat_name}.png", photo.pixels)
        count = math.ceil(num_test / len(held_out))
        for turn, window in enumerate(
            test_windows(reduce_to_shorter_side(photo.pixels, LONGEST_SHORT_SIDE), size, count)
        ):
            _write(out / "test" / f"{flat_name}-{turn:03d}.png", window)

    with ThreadPoolExecutor() as pool:
        list(tqdm(pool.map(test, held_out), "held-out photos", len(held_out), unit="photo"))
        list(tqdm(pool.map(train, range(num_train)), "windows", num_train, unit="window"))
    facts = [{k: v for k, v in asdict(photo).items() if k != "pixels"} for photo in photos]
    (out / "photos.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{len(photos)} photos, {len(held_out)} of them held out: {out}")


def _write(path: Path, pixels: UInt8Array) -> None:
    if not cv2.imwrite(str(path), pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise InputError(f"{path} could not be written")


if __name__ == "__main__":
    from jsonargparse import auto_cli

    from sdm_lightning.cli.errors import user_errors

    with user_errors():
        auto_cli(prepare)
