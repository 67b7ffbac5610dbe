"""Results, originals and masks in folders (or zips, or tars), paired by file name."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdm_lightning.data.decode import BadImageError, decode_image, decode_mask
from sdm_lightning.data.masks.convention import MaskConvention
from sdm_lightning.data.sources import ImageSource, entries_by_key, open_source
from sdm_lightning.data.transforms import center_crop, pad_to
from sdm_lightning.errors import InputError

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """One decoded pair.

    Attributes:
        key: Name of the pair.
        real: uint8 ``(3, H, W)``.
        fake: uint8 ``(3, H, W)``.
        mask: float32 ``(1, H, W)``, 1 = known; None without masks.
    """

    key: str
    real: Tensor
    fake: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class BadPair:
    """A pair that could not be read, with the reason in one line."""

    key: str
    reason: str


@dataclass
class PairBatch:
    """Pairs of one size, stacked.

    Attributes:
        keys: ``B`` names.
        real: uint8 ``(B, 3, H, W)``.
        fake: uint8 ``(B, 3, H, W)``.
        mask: float32 ``(B, 1, H, W)``, 1 = known; None without masks.
    """

    keys: list[str]
    real: Tensor
    fake: Tensor
    mask: Tensor | None

    def pin_memory(self) -> "PairBatch":
        """Called by the loader: page-locked tensors reach a GPU while it computes."""
        self.real, self.fake = self.real.pin_memory(), self.fake.pin_memory()
        self.mask = None if self.mask is None else self.mask.pin_memory()
        return self


def collate_pairs(items: Sequence[Pair | BadPair]) -> tuple[list[PairBatch], list[BadPair]]:
    """Stack pairs, one batch for each size among them (in the workers: few, large tensors)."""
    groups: dict[tuple[int, ...], list[Pair]] = {}
    for item in items:
        if isinstance(item, Pair):
            groups.setdefault(tuple(item.real.shape), []).append(item)
    batches = []
    for group in groups.values():
        masks = [pair.mask for pair in group if pair.mask is not None]
        batches.append(
            PairBatch(
                [pair.key for pair in group],
                torch.stack([pair.real for pair in group]),
                torch.stack([pair.fake for pair in group]),
                torch.stack(masks) if masks else None,
            )
        )
    return batches, [item for item in items if isinstance(item, BadPair)]


class Images:
    """The images of a folder, zip or tar by key.

    Args:
        path: The folder or archive.
        suffix: Cut off the end of each file name (before the extension), such as ``_mask000``.

    Raises:
        InputError: No images in it, or two for one key.
    """

    def __init__(self, path: str, suffix: str = "") -> None:
        self.source: ImageSource = open_source(path)

        def without_suffix(path: str) -> str:
            name = PurePosixPath(path)
            return str(name.with_name(name.stem.removesuffix(suffix) + name.suffix))

        self.entries = entries_by_key(self.source, without_suffix)

    def label(self, key: str) -> str:
        """Path of an image, for messages."""
        return f"{self.source.path}/{self.entries[key].name}"

    def read(self, key: str) -> bytes:
        """Encoded bytes of an image."""
        try:
            return self.source.read(self.entries[key])
        except OSError as error:
            raise InputError(f"{self.label(key)}: cannot be read ({error})") from error

    def image(self, key: str) -> UInt8Array:
        """RGB ``(H, W, 3)`` of an image."""
        try:
            return decode_image(self.read(key))
        except BadImageError as error:
            raise InputError(f"{self.label(key)}: {error}") from error

    def mask(self, key: str, convention: MaskConvention) -> UInt8Array:
        """Mask ``(H, W)``, 1 = known."""
        try:
            return decode_mask(self.read(key), convention)
        except BadImageError as error:
            raise InputError(f"{self.label(key)}: {error}") from error

    def manifest(self, keys: Sequence[str], num_threads: int = 8) -> str:
        """SHA-256 over the keys and the hashes of the files' contents."""
        with ThreadPoolExecutor(num_threads) as pool:
            hashes = pool.map(lambda key: hashlib.sha256(self.read(key)).hexdigest(), keys)
            lines = [f"{digest}  {key}\n" for key, digest in zip(keys, hashes, strict=True)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


class PairedFolders(Dataset):
    """Pairs of an original and a result with the same file name, whatever their extensions.

    Args:
        real: Originals: a folder, zip or tar.
        fake: Results.
        masks: Masks; None without.
        mask_convention: What white means in the masks; None takes known-white.
        crop: Central square to cut originals, and results as large as these, to; smaller originals
            are mirrored at the bottom and the right. None takes images as they are.
        fake_suffix: Ending of the results' file names that the originals' names lack.
        only_common: Go on with the names that both have.

    Raises:
        InputError: A folder is missing or empty, or names have no counterpart.
    """

    def __init__(
        self,
        real: str,
        fake: str,
        masks: str | None = None,
        mask_convention: MaskConvention | None = None,
        crop: int | None = None,
        fake_suffix: str = "",
        only_common: bool = False,
    ) -> None:
        self.real, self.fake = Images(real), Images(fake, fake_suffix)
        self.masks = Images(masks) if masks is not None else None
        self.mask_convention: MaskConvention = mask_convention or "known-white"
        self.crop = crop
        common = self.real.entries.keys() & self.fake.entries.keys()
        for owner, other, what, example in (
            (self.real, self.fake, "result for", True),
            (self.fake, self.real, "original for", False),
        ):
            missing = sorted(owner.entries.keys() - common)
            if missing and not (only_common and common):
                name = owner.entries[missing[0]].name
                hint = f"expected a file named {missing[0]}{fake_suffix if example else ''}.*; "
                raise InputError(
                    f"{other.source.path}: no {what} {len(missing)} of {len(owner.entries)} images "
                    f"in {owner.source.path}, the first is {name}; {hint}"
                    "only_common=true scores the pairs that exist"
                )
        self.dropped = len(self.real.entries) + len(self.fake.entries) - 2 * len(common)
        self.keys = sorted(common)
        if self.masks is not None:
            missing = [key for key in self.keys if key not in self.masks.entries]
            if missing:
                raise InputError(
                    f"{masks}: no mask for {len(missing)} of {len(self.keys)} images, the first is "
                    f"{missing[0]}; masks are paired by file name, never by order"
                )

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Pair | BadPair:
        """Decode a pair; what is wrong with it is returned, since workers would garble it."""
        key = self.keys[index]
        try:
            return self._read(key)
        except InputError as error:
            return BadPair(key, str(error))

    def _read(self, key: str) -> Pair:
        real, fake = self.real.image(key), self.fake.image(key)
        mask = self.masks.mask(key, self.mask_convention) if self.masks is not None else None
        size = real.shape[:2]
        wanted = size if self.crop is None else (self.crop, self.crop)
        real = self._fit(real)
        if fake.shape[:2] == size:
            fake = self._fit(fake)
        if fake.shape[:2] != wanted:
            hint = (
                f"; crop={fake.shape[0]} cuts the centre out of the originals"
                if self.crop is None and fake.shape[0] == fake.shape[1]
                else ""
            )
            raise InputError(
                f"{self.fake.label(key)}: is {_size(fake)}, but its original {self.real.label(key)}"
                f" is {_size(real)} (HxW){hint}"
            )
        if mask is not None:
            if mask.shape == size:
                mask = self._fit(mask)
            if mask.shape != wanted:
                assert self.masks is not None
                raise InputError(
                    f"{self.masks.label(key)}: mask is {_size(mask)}, the image is {_size(real)} "
                    "(HxW); they must have one size"
                )
        return Pair(
            key,
            torch.from_numpy(real.transpose(2, 0, 1).copy()),
            torch.from_numpy(fake.transpose(2, 0, 1).copy()),
            None if mask is None else torch.from_numpy(mask[None].astype(np.float32)),
        )

    def _fit(self, image: UInt8Array) -> UInt8Array:
        return image if self.crop is None else center_crop(pad_to(image, self.crop), self.crop)

    def description(self) -> dict[str, Any]:
        """What the originals are, for the record and the feature cache."""
        return {"manifest": self.real.manifest(self.keys), "crop": self.crop, "pad": "symmetric"}

    def masks_manifest(self) -> str | None:
        """SHA-256 over the mask files' names and contents."""
        return None if self.masks is None else self.masks.manifest(self.keys)


def _size(image: UInt8Array) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"
