"""From an undecoded sample to tensors: crop, flip and mask for training, fixed ones for testing.

Source: paper Sec. 4.1-4.2 and the data loaders of its peers: no resize; padding at the bottom and
the right; random crop and flip for training, central crop for testing.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from sdm_lightning.data.decode import BadImageError, decode_image, decode_mask
from sdm_lightning.data.masks import MASK_PRESETS, free_form_mask, hole_ratio
from sdm_lightning.data.seeding import stable_rng, stable_seed
from sdm_lightning.data.shards import RawSample
from sdm_lightning.data.sources import ImageSource, key_for_path, open_source
from sdm_lightning.data.stream import Example
from sdm_lightning.data.transforms import center_crop, pad_to, random_crop, random_flip, to_tensor
from sdm_lightning.errors import InputError

__all__ = [
    "EvalPreprocess",
    "FolderMasks",
    "MaskSource",
    "PresetMasks",
    "SampleMasks",
    "TrainPreprocess",
    "make_mask_source",
    "mask_mix",
    "mask_seed",
]

UInt8Array = npt.NDArray[np.uint8]

MOSTLY_HOLE = 0.95
"""A mask file with a larger share of hole is suspected of the other convention."""

_log = logging.getLogger(__name__)
_warned: set[str] = set()


def _require_preset(name: str) -> None:
    if name not in MASK_PRESETS:
        near = difflib.get_close_matches(name, MASK_PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(MASK_PRESETS)}"
        raise InputError(f"no mask preset {name!r}; {hint}")


def mask_mix(masks: str | Mapping[str, float]) -> dict[str, float]:
    """Turn a preset, or presets with weights, into probabilities.

    Raises:
        InputError: an unknown preset, a negative weight, or no weight at all.
    """
    weights = {masks: 1.0} if isinstance(masks, str) else dict(masks)
    for name, weight in weights.items():
        _require_preset(name)
        if not weight >= 0:
            raise InputError(f"mask preset {name}: weight {weight} must not be negative")
    total = sum(weights.values())
    if not total > 0:
        raise InputError("train masks: at least one preset needs a weight above 0")
    return {name: weight / total for name, weight in weights.items()}


def mask_seed(seed: int, key: str) -> int:
    """Return the seed of the fixed test mask of a sample: the same wherever it is drawn."""
    return stable_seed("mask", seed, key)


def _fit(image: UInt8Array, raw: RawSample, size: int, pad_small: bool) -> UInt8Array:
    height, width = image.shape[:2]
    if not pad_small and min(height, width) < size:
        raise InputError(
            f"{raw.origin}: image {raw.key} is {height}x{width} (HxW), smaller than the crop of "
            f"{size}x{size}; set data.pad_small to true or data.resolution to at most "
            f"{min(height, width)}"
        )
    return pad_to(image, size)


def _mask_tensor(mask: UInt8Array) -> torch.Tensor:
    return torch.from_numpy(np.array(mask, dtype=np.float32)[None])


@dataclass(frozen=True)
class TrainPreprocess:
    """Random crop, flip and mask, all of them functions of (seed, key, pass).

    Attributes:
        size: side of the crop in pixels.
        masks: mask presets with their probabilities.
        seed: of crops, flips and masks.
        flip: mirror left to right with probability one half.
        pad_small: mirror smaller images at the bottom and the right; False refuses them.
    """

    size: int
    masks: Mapping[str, float]
    seed: int = 0
    flip: bool = True
    pad_small: bool = True

    def __call__(self, raw: RawSample, number: int) -> Example:
        """Decode and transform a sample in a pass.

        Raises:
            BadImageError: the image cannot be decoded.
            InputError: the image is too small and padding is off.
        """
        rng = stable_rng("sample", self.seed, raw.key, number)
        image = _fit(decode_image(raw.image), raw, self.size, self.pad_small)
        image = random_crop(image, self.size, rng)
        if self.flip:
            image = random_flip(image, rng)
        names = list(self.masks)
        name = names[int(rng.choice(len(names), p=[self.masks[name] for name in names]))]
        mask = free_form_mask(name, self.size, int(rng.integers(2**62)))
        return {"image": to_tensor(image), "mask": _mask_tensor(mask), "key": raw.key}


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


def _read_mask(data: bytes, name: str, invert: bool) -> UInt8Array:
    try:
        mask = decode_mask(data, invert=invert)
    except BadImageError as error:
        raise InputError(f"{name}: mask {error}; write it again as an 8-bit PNG") from error
    folder = os.path.dirname(name)
    if hole_ratio(mask) > MOSTLY_HOLE and folder not in _warned:
        _warned.add(folder)
        _log.warning(
            "%s: %.0f %% of this mask is hole; white means known. If your masks mean the "
            "opposite, set data.invert_masks to %s",
            name, 100 * hole_ratio(mask), "false" if invert else "true",
        )  # fmt: skip
    return mask


@dataclass(frozen=True)
class SampleMasks:
    """The mask that lies with the image, ``key.mask.png`` in the shard; white = known."""

    invert: bool = False

    def __call__(self, raw: RawSample, size: int) -> UInt8Array:
        """Decode the mask of a sample."""
        if raw.mask is None:
            raise InputError(
                f"{raw.origin}: sample {raw.key} has no mask with it; pack the images with "
                "masks, or name a folder of masks or a preset"
            )
        return _read_mask(raw.mask, f"{raw.origin}/{raw.key}.mask.png", self.invert)


class FolderMasks:
    """Masks in a folder, zip or tar, paired with the samples by file name; white = known.

    A mask belongs to a sample if its name without extension is the sample's key, or if its path
    packs to that key (``a/b.png`` to ``a__b``).

    Args:
        path: the folder or archive.
        invert: the files use the other convention, white = hole.

    Raises:
        InputError: no masks in it, or two for one key.
    """

    def __init__(self, path: str, invert: bool = False) -> None:
        self.source: ImageSource = open_source(path)
        self.invert = invert
        self.entries = {}
        for entry in self.source.entries():
            key = key_for_path(entry.name)
            if key in self.entries:
                raise InputError(
                    f"{path}: {self.entries[key].name} and {entry.name} are masks for one image; "
                    "keep one of them"
                )
            self.entries[key] = entry
        if not self.entries:
            raise InputError(f"{path}: no mask files in it; expected png files named as images")

    def __call__(self, raw: RawSample, size: int) -> UInt8Array:
        """Read the mask of a sample."""
        entry = self.entries.get(raw.key) or self.entries.get(key_for_path(raw.key + ".png"))
        if entry is None:
            raise InputError(
                f"{self.source.path}: no mask for {raw.key}; expected a file {raw.key}.png"
            )
        name = f"{self.source.path}/{entry.name}"
        try:
            data = self.source.read(entry)
        except OSError as error:
            raise InputError(f"{name}: mask cannot be read ({error})") from error
        return _read_mask(data, name, self.invert)


def make_mask_source(masks: str, seed: int, invert: bool) -> Callable[[RawSample, int], UInt8Array]:
    """Turn a setting into a source of test masks.

    Args:
        masks: ``"sample"`` for the masks that lie with the images, the name of a preset, or the
            path of a folder, zip or tar of mask files.
        seed: of masks drawn from a preset.
        invert: mask files use the other convention, white = hole.

    Raises:
        InputError: none of the three.
    """
    if masks == "sample":
        return SampleMasks(invert)
    if masks in MASK_PRESETS:
        return PresetMasks(masks, seed)
    if os.path.exists(masks):
        return FolderMasks(masks, invert)
    near = difflib.get_close_matches(masks, ["sample", *MASK_PRESETS], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(
        f"masks {masks!r}: neither 'sample', nor a preset ({', '.join(MASK_PRESETS)}), nor a "
        f"folder that exists{hint}"
    )


@dataclass(frozen=True)
class EvalPreprocess:
    """Central crop and a fixed mask.

    Attributes:
        size: side of the crop in pixels.
        masks: where masks come from.
        pad_small: mirror smaller images at the bottom and the right; False refuses them.
    """

    size: int
    masks: Callable[[RawSample, int], UInt8Array]
    pad_small: bool = True

    def __call__(self, raw: RawSample, number: int = 0) -> Example:
        """Decode and transform a sample; the number of the pass makes no difference.

        Raises:
            BadImageError: the image cannot be decoded.
            InputError: no mask, a mask of another size than image and crop, or an image that is
                too small while padding is off.
        """
        image = decode_image(raw.image)
        mask = self.masks(raw, self.size)
        if mask.shape == image.shape[:2]:
            # As large as the image: it is cut out at the same place.
            mask = center_crop(pad_to(mask, self.size), self.size)
        elif mask.shape != (self.size, self.size):
            height, width = mask.shape
            raise InputError(
                f"{raw.origin}: mask of {raw.key} is {height}x{width} (HxW); it must be as large "
                f"as the image, {image.shape[0]}x{image.shape[1]}, or the crop, "
                f"{self.size}x{self.size}"
            )
        image = center_crop(_fit(image, raw, self.size, self.pad_small), self.size)
        return {"image": to_tensor(image), "mask": _mask_tensor(mask), "key": raw.key}
