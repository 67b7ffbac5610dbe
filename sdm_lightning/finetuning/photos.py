"""From a folder of photos to shards of windows: a split by file hash, any scale, packed once.

A network sees the surroundings of a hole shrunk to the size it was trained at, so it is trained on
windows of photos at all scales, from one pixel per pixel to the whole photo.
"""

import json
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from sdm_lightning.data.decode import BadImageError, decode_image, probe_image
from sdm_lightning.data.shards.packing import pack_shards
from sdm_lightning.data.sources import FolderSource
from sdm_lightning.data.windows import fixed_window, random_window, reduce_to_shorter_side, resized
from sdm_lightning.errors import InputError
from sdm_lightning.files import sha256_of_file, write_atomically
from sdm_lightning.finetuning.defaults import MIN_HELD_OUT, FinetuneDefaults
from sdm_lightning.seeding import stable_rng

LONGEST_SHORT_SIDE = 1600
"""Photos are reduced to it first: finer detail is mostly noise, and it costs time."""

HELD_OUT_WINDOWS = 256
"""Windows to cut from the held-out photos together."""


@dataclass(frozen=True)
class PhotoFile:
    """A photo by its content: renamed or copied, it is the same photo.

    Attributes:
        path: Where it lies.
        sha256: Hash of the file.
    """

    path: Path
    sha256: str

    @property
    def held_out(self) -> bool:
        """Whether it is among the fifth that is kept for judging."""
        return int(self.sha256[:8], 16) % 5 == 0


def find_photos(folder: str) -> list[PhotoFile]:
    """List the photos of a folder, each content once, in the order of their hashes.

    Files that cannot be read are left out, with a line that says why, and files of other formats
    with their number.

    Raises:
        InputError: If it is no folder, or holds no images that can be read.
    """
    path = Path(folder)
    if not path.is_dir():
        what = "is a file; give a folder of photos" if path.exists() else "no such folder"
        raise InputError(f"{folder}: {what}")
    source = FolderSource(folder)
    files = [path / entry.name for entry in source.entries()]
    if source.left_out:
        print(f"{folder}: left out: {source.left_out}")
    by_hash = {sha256_of_file(file): file for file in reversed(files)}
    photos = []
    for digest in tqdm(sorted(by_hash), "photos", unit="photo", disable=not sys.stderr.isatty()):
        try:
            probe_image(by_hash[digest].read_bytes())
        except BadImageError as error:
            print(f"{by_hash[digest]}: left out, {error}")
        else:
            photos.append(PhotoFile(by_hash[digest], digest))
    if not photos:
        raise InputError(f"{folder}: none of its {len(by_hash)} images can be read")
    return photos


def split_photos(photos: Sequence[PhotoFile]) -> tuple[list[PhotoFile], list[PhotoFile]]:
    """Return the photos to train on and those held out; none are held out of too few."""
    held_out = [photo for photo in photos if photo.held_out]
    if len(held_out) < MIN_HELD_OUT:
        if len(photos) < 5 * MIN_HELD_OUT:
            return list(photos), []
        by_hash = sorted(photos, key=lambda photo: (not photo.held_out, photo.sha256))
        held_out = by_hash[:MIN_HELD_OUT]
    chosen = set(held_out)
    return [photo for photo in photos if photo not in chosen], held_out


def make_shards(
    folder: Path,
    train: Sequence[PhotoFile],
    held_out: Sequence[PhotoFile],
    side: int,
    defaults: FinetuneDefaults,
) -> None:
    """Cut windows and pack them into ``FOLDER/train`` and ``FOLDER/val``; once.

    The windows of held-out photos also stay as pictures, in ``FOLDER/windows/val``.

    Args:
        folder: Folder of the run's data.
        train: Photos to train on.
        held_out: Photos to judge by; none makes no ``val``.
        side: Side of the crops that the network sees; training windows are a quarter larger.
        defaults: Says how many windows to train on.

    Raises:
        InputError: If the folder was made from other photos or settings.
    """
    facts = {
        "train": [photo.sha256 for photo in train],
        "val": [photo.sha256 for photo in held_out],
        "side": side,
        "num_windows": defaults.num_windows,
    }
    done = folder / "photos.json"
    if done.is_file():
        # Earlier versions wrote more.
        if facts.items() <= json.loads(done.read_text(encoding="utf-8")).items():
            print(f"{folder}: windows of these photos already exist; reusing them")
            return
        raise InputError(
            f"{folder}: was made from other photos or with other settings; choose another --name"
        )
    windows = folder / "windows"
    for split, photos in (("train", train), ("val", held_out)):
        if not photos:
            continue
        shutil.rmtree(windows / split, ignore_errors=True)  # of an interrupted run
        (windows / split).mkdir(parents=True)
        count = defaults.num_windows if split == "train" else HELD_OUT_WINDOWS
        _cut(photos, windows / split, side, math.ceil(count / len(photos)), split)
        pack_shards(
            str(windows / split), str(folder / split), shuffle=split == "train", overwrite=True,
            num_workers=0,
        )  # fmt: skip
    # Those of the held-out photos stay: a calibration takes pictures and not shards.
    shutil.rmtree(windows / "train" if held_out else windows)
    write_atomically(done, json.dumps(facts, indent=1) + "\n")


def _cut(photos: Sequence[PhotoFile], folder: Path, side: int, each: int, split: str) -> None:
    for photo in tqdm(photos, f"{split} photos", unit="photo", disable=not sys.stderr.isatty()):
        pixels = reduce_to_shorter_side(decode_image(photo.path.read_bytes()), LONGEST_SHORT_SIDE)
        for turn in range(each):
            if split == "train":
                rng = stable_rng(photo.sha256, turn)
                window = random_window(pixels, side + side // 4, rng)
            else:
                window = resized(fixed_window(pixels, side, turn, least=0.0), side)
            if not cv2.imwrite(str(folder / f"{photo.sha256[:16]}-{turn:05d}.png"),
                               window[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1]):  # fmt: skip
                raise InputError(f"{folder}: cannot be written to")
