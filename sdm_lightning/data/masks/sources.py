"""Where masks come from: presets, the sample itself, or a folder of files."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.data.decode import BadImageError, decode_mask
from sdm_lightning.data.masks.convention import MOSTLY_HOLE, MaskConvention, opposite_convention
from sdm_lightning.data.masks.presets import MASK_PRESETS, free_form_mask, hole_ratio
from sdm_lightning.data.named_images import NamedImages
from sdm_lightning.data.naming import key_for_path
from sdm_lightning.data.shards.reading import RawSample
from sdm_lightning.data.sources import open_source
from sdm_lightning.data.transforms import random_crop
from sdm_lightning.errors import InputError
from sdm_lightning.seeding import stable_seed

TRIES = 100
"""Crops that training draws to find one with both hole and known pixels."""

_log = logging.getLogger(__name__)
_warned: set[str] = set()


def mask_mix(masks: str | Path | Mapping[str, float]) -> dict[str, float]:
    """Turn a source of training masks, or sources with weights, into probabilities.

    Args:
        masks: Names as ``require_masks`` checks them later, where training starts: elsewhere,
            their files need not exist.

    Raises:
        InputError: If a weight is negative, or none above 0.
    """
    weights = {str(masks): 1.0} if isinstance(masks, str | Path) else dict(masks)
    for name, weight in weights.items():
        if not weight >= 0:
            raise InputError(f"train masks {name}: weight {weight} must not be negative")
    total = sum(weights.values())
    if not total > 0:
        raise InputError("train masks: at least one source needs a weight above 0")
    return {name: weight / total for name, weight in weights.items()}


def require_masks(masks: str) -> None:
    """Check that a setting names masks.

    Args:
        masks: ``"sample"`` for the masks that lie with the images, the name of a preset, or the
            path of a folder, zip or tar of mask files.

    Raises:
        InputError: If it is none of the three.
    """
    if masks == "sample" or masks in MASK_PRESETS or os.path.exists(masks):
        return
    near = difflib.get_close_matches(masks, ["sample", *MASK_PRESETS], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(
        f"masks {masks!r}: neither 'sample', nor a preset ({', '.join(MASK_PRESETS)}), nor a "
        f"folder that exists{hint}"
    )


def mask_seed(seed: int, key: str) -> int:
    """Return the seed of the fixed test mask of a sample: the same wherever it is drawn."""
    return stable_seed("mask", seed, key)


class MaskSource(Protocol):
    """Where the fixed mask of a test sample comes from."""

    def __call__(self, raw: RawSample, size: int) -> UInt8Array:
        """Return a mask, 1 = known, of the crop's size or of the image's."""


@dataclass(frozen=True)
class PresetMasks:
    """A mask drawn from a preset with a seed made of the key; the same in every run."""

    preset: str
    seed: int = 0

    def __call__(self, raw: RawSample, size: int) -> UInt8Array:
        """Draw the mask of a sample."""
        return free_form_mask(self.preset, size, mask_seed(self.seed, raw.key))


def _read_mask(data: bytes, name: str, convention: MaskConvention, remedy: str = "") -> UInt8Array:
    try:
        mask = decode_mask(data, convention)
    except BadImageError as error:
        raise InputError(f"{name}: mask {error}; masks are 8-bit PNG files") from error
    folder = os.path.dirname(name)
    if hole_ratio(mask) > MOSTLY_HOLE and folder not in _warned:
        _warned.add(folder)
        _log.warning(
            "%s: %.0f %% of this mask is hole, read as %s. If your masks mean the opposite, %s",
            name, 100 * hole_ratio(mask), convention,
            remedy or f"set data.mask_convention to {opposite_convention(convention)}",
        )  # fmt: skip
    return mask


@dataclass(frozen=True)
class SampleMasks:
    """The mask that lies with the image, ``key.mask.png`` in the shard, always white = known."""

    def __call__(self, raw: RawSample, size: int) -> UInt8Array:
        """Decode the mask of a sample."""
        if raw.mask is None:
            raise InputError(
                f"{raw.origin}: sample {raw.key} has no mask with it; pack the images with "
                "masks, or name a folder of masks or a preset"
            )
        name = f"{raw.origin}/{raw.key}.mask.png"
        remedy = "pack the images again with --mask_convention hole-white"
        return _read_mask(raw.mask, name, "known-white", remedy)


class FolderMasks:
    """Masks in a folder, zip or tar, paired with the samples by file name.

    A mask belongs to a sample if its name without extension is the sample's key, or if its path
    packs to that key (``a/b.png`` to ``a__b``).

    Args:
        path: The folder or archive.
        convention: What white means in the files.

    Raises:
        InputError: If there are no masks, or two for one key.
    """

    def __init__(self, path: str, convention: MaskConvention = "known-white") -> None:
        self.images = NamedImages(path)
        self.convention = convention

    def __call__(self, raw: RawSample, size: int) -> UInt8Array:
        """Read the mask of a sample."""
        for key in (raw.key, key_for_path(raw.key + ".png")):
            if key in self.images.entries:
                return _read_mask(self.images.read(key), self.images.label(key), self.convention)
        raise InputError(
            f"{self.images.source.path}: no mask for {raw.key}; expected a file {raw.key}.png"
        )


class RandomMasks:
    """Masks in a folder, zip or tar for training: drawn and cropped at random, whatever their name.

    A crop without a hole, or all hole though its mask is not, teaches little, and another mask is
    drawn for it.

    Args:
        path: The folder or archive.
        convention: What white means in the files.

    Raises:
        InputError: If there are no masks.
    """

    def __init__(self, path: str, convention: MaskConvention = "known-white") -> None:
        self.source = open_source(path)
        self.entries = self.source.entries()
        self.convention = convention

    def __call__(self, size: int, rng: np.random.Generator) -> UInt8Array:
        """Draw a mask, ``(size, size)`` with 1 = known.

        Raises:
            InputError: If a mask cannot be read or decoded or is smaller than the crop, or none
                that was drawn has a hole.
        """
        kept = None
        for _ in range(TRIES):
            entry = self.entries[int(rng.integers(len(self.entries)))]
            name = f"{self.source.path}/{entry.name}"
            try:
                data = self.source.read(entry)
            except OSError as error:
                raise InputError(f"{name}: cannot be read ({error})") from error
            mask = _read_mask(data, name, self.convention)
            if min(mask.shape) < size:
                raise InputError(
                    f"{name}: mask is {mask.shape[0]}x{mask.shape[1]} (HxW), smaller than "
                    f"data.resolution {size}; training crops masks and never enlarges them"
                )
            crop = random_crop(mask, size, rng)
            if not crop.all():
                kept = crop
                if crop.any() or not mask.any():
                    break
        if kept is None:
            raise InputError(
                f"{self.source.path}: {TRIES} crops of {size}x{size} in a row had no hole; check "
                f"data.mask_convention ({self.convention}) and the size of the holes"
            )
        return kept


def make_mask_source(masks: str | Path, seed: int, convention: MaskConvention) -> MaskSource:
    """Turn a setting into a source of test masks.

    Args:
        masks: ``"sample"`` for the masks that lie with the images, the name of a preset, or the
            path of a folder, zip or tar of mask files.
        seed: Seed of masks drawn from a preset.
        convention: What white means in the mask files of a folder or archive.

    Raises:
        InputError: If it is none of the three.
    """
    masks = str(masks)
    require_masks(masks)
    if masks == "sample":
        return SampleMasks()
    return PresetMasks(masks, seed) if masks in MASK_PRESETS else FolderMasks(masks, convention)
