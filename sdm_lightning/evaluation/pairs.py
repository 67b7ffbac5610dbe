"""Results, originals and masks in folders (or zips, or tars), paired by file name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.data.masks.convention import MaskConvention
from sdm_lightning.data.named_images import NamedImages
from sdm_lightning.data.naming import key_for_path, unique_keys
from sdm_lightning.data.sources import FolderSource
from sdm_lightning.data.transforms import padded_center_crop, padding_share
from sdm_lightning.errors import InputError

MAX_PADDING = 0.25
"""Crops with a larger share of mirrored padding, on average, are not scored."""


@dataclass(frozen=True)
class Pair:
    """One decoded pair.

    Attributes:
        key: Name of the pair.
        real: uint8 ``(3, H, W)``.
        fake: uint8 ``(3, H, W)``.
        mask: float32 ``(1, H, W)``, 1 = known; None without masks.
        padding: Share of the crop in [0, 1) that is mirrored padding.
    """

    key: str
    real: Tensor
    fake: Tensor
    mask: Tensor | None
    padding: float


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
        padding: Sum of the pairs' shares of mirrored padding.
    """

    keys: list[str]
    real: Tensor
    fake: Tensor
    mask: Tensor | None
    padding: float

    def pin_memory(self) -> "PairBatch":
        """Lock the tensors in memory for the loader, so that they reach a GPU while it computes."""
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
                sum(pair.padding for pair in group),
            )
        )
    return batches, [item for item in items if isinstance(item, BadPair)]


class PairedFolders(Dataset):
    """Pairs of an original and a result with the same file name, whatever their extensions.

    Where no names pair, the one folder in which all images of a zip or tar lie is left out of them.

    Args:
        real: Originals: a folder, zip or tar.
        fake: Results.
        masks: Masks; None without.
        mask_convention: What white means in the masks; None: known-white.
        crop: Side of the central square that originals, and results of their size, are cut to;
            smaller originals are mirrored at the bottom and the right. None: no cropping.
        fake_suffix: Ending of the results' file names that the originals' names lack.
        only_common: Use the names that both have, instead of raising an error.

    Raises:
        InputError: If a folder is missing or empty, or names have no counterpart.
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
        if crop is not None and crop < 1:
            raise InputError(f"--crop must be at least 1, got {crop}")
        self.real, self.fake = NamedImages(real), NamedImages(fake, fake_suffix)
        self.masks = NamedImages(masks) if masks is not None else None
        self.mask_convention: MaskConvention = mask_convention or "known-white"
        self.crop = crop
        given = [self.fake] if self.masks is None else [self.fake, self.masks]
        if any(self.real.entries.keys().isdisjoint(images.entries) for images in given):
            for images in (self.real, *given):
                _leave_out_top_folder(images)
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
                    "--only_common true scores the pairs that exist"
                )
        self.dropped = len(self.real.entries) + len(self.fake.entries) - 2 * len(common)
        self.keys = sorted(common)
        if self.masks is not None:
            self._find_masks_by_unique_keys(self.masks)
            self.masks.require(self.keys, "mask")

    def _find_masks_by_unique_keys(self, masks: NamedImages) -> None:
        """Let names that differ in case alone find their masks: a mask set tells them apart."""
        missing = [key for key in self.keys if key not in masks.entries]
        if missing:
            unique = unique_keys(entry.name for entry in self.real.entries.values())
            found = {key: unique[self.real.entries[key].name] for key in missing}
            masks.entries |= {k: masks.entries[n] for k, n in found.items() if n in masks.entries}

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Pair | BadPair:
        """Decode a pair; return a fault, since a worker's exception would carry a traceback."""
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
            hint = ""
            if fake.shape[0] > size[0] or fake.shape[1] > size[1]:
                hint = "; it is larger: give the originals that it was made from"
            elif self.crop is None and fake.shape[0] == fake.shape[1]:
                hint = f"; --crop {fake.shape[0]} cuts the centre out of the originals"
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
            0.0 if self.crop is None else padding_share(size, self.crop),
        )

    def _fit(self, image: UInt8Array) -> UInt8Array:
        return image if self.crop is None else padded_center_crop(image, self.crop)


def _leave_out_top_folder(images: NamedImages) -> None:
    tops = {PurePosixPath(entry.name).parent.parts[:1] for entry in images.entries.values()}
    if len(tops) == 1 and not isinstance(images.source, FolderSource):
        prefix = key_for_path("/".join((*tops.pop(), "x")))[:-1]
        images.entries = {key.removeprefix(prefix): e for key, e in images.entries.items()}


def _size(image: UInt8Array) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"
