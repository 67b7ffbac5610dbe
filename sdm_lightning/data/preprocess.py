"""From an undecoded sample to tensors: crop, flip and mask for training, fixed ones for testing.

Source: paper Sec. 4.1 and the data loaders of its peers: no resize; padding at the bottom and
the right; random crop and flip for training, central crop for testing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.data.decode import decode_image
from sdm_lightning.data.masks.convention import MaskConvention
from sdm_lightning.data.masks.presets import MASK_PRESETS, free_form_mask
from sdm_lightning.data.masks.sources import (
    TRIES,
    MaskSource,
    RandomMasks,
    SampleMasks,
    require_masks,
)
from sdm_lightning.data.shards.reading import RawSample
from sdm_lightning.data.stream import EvalExample, Example
from sdm_lightning.data.transforms import (
    pad_to,
    padded_center_crop,
    padding_share,
    random_crop,
    random_flip,
    to_tensor,
)
from sdm_lightning.errors import InputError
from sdm_lightning.seeding import stable_rng


def _size_error(raw: RawSample, mask: UInt8Array, image: UInt8Array, other: str = "") -> InputError:
    return InputError(
        f"{raw.origin}: mask of {raw.key} is {mask.shape[0]}x{mask.shape[1]} (HxW); it must be as "
        f"large as the image, {image.shape[0]}x{image.shape[1]}{other}"
    )


def _mask_tensor(mask: UInt8Array) -> torch.Tensor:
    return torch.from_numpy(np.array(mask, dtype=np.float32)[None])


@dataclass(frozen=True)
class TrainPreprocess:
    """Random crop, flip and mask, all of them functions of (seed, key, pass).

    Attributes:
        size: Side of the crop in pixels.
        masks: Mask presets, ``sample``, and folders or archives of masks, with their probabilities.
        seed: Seed of crops, flips and masks.
        flip: Mirror left to right with probability one half.
        convention: What white means in the mask files of folders and archives.

    Raises:
        InputError: If a name is none of these, or a folder or archive holds no masks.
    """

    size: int
    masks: Mapping[str, float]
    seed: int = 0
    flip: bool = True
    convention: MaskConvention = "known-white"
    folders: Mapping[str, RandomMasks] = field(init=False)

    def __post_init__(self) -> None:
        """Read the names of the masks, once for all workers."""
        folders = {}
        for name in self.masks:
            require_masks(name)
            if name != "sample" and name not in MASK_PRESETS:
                folders[name] = RandomMasks(name, self.convention)
        object.__setattr__(self, "folders", folders)

    def __call__(self, raw: RawSample, number: int) -> Example:
        """Decode and transform a sample in a pass.

        Raises:
            BadImageError: If the image cannot be decoded.
            InputError: If a mask file cannot be decoded or has the wrong size.
        """
        rng = stable_rng("sample", self.seed, raw.key, number)
        image = decode_image(raw.image)
        if "sample" in self.masks:
            mask = SampleMasks()(raw, self.size)
            if mask.shape != image.shape[:2]:
                raise _size_error(raw, mask, image)
            image = np.dstack((image, mask))  # a fourth channel is cropped and mirrored alike
        image = pad_to(image, self.size)
        crop = self._crop(image, rng)
        names = list(self.masks)
        name = names[int(rng.choice(len(names), p=[self.masks[name] for name in names]))]
        if name in MASK_PRESETS:
            mask = free_form_mask(name, self.size, int(rng.integers(2**62)))
        elif name == "sample":
            # A crop of one kind teaches little where the mask has both.
            for _ in range(TRIES - 1 if mask.min() < mask.max() else 0):
                if crop[..., 3].min() < crop[..., 3].max():
                    break
                crop = self._crop(image, rng)
            mask = crop[..., 3]
        else:
            mask = self.folders[name](self.size, rng)
        return {"image": to_tensor(crop[..., :3]), "mask": _mask_tensor(mask), "key": raw.key}

    def _crop(self, image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        crop = random_crop(image, self.size, rng)
        return random_flip(crop, rng) if self.flip else crop


@dataclass(frozen=True)
class EvalPreprocess:
    """Central crop and a fixed mask.

    Attributes:
        size: Side of the crop in pixels.
        masks: Where masks come from.
    """

    size: int
    masks: MaskSource

    def __call__(self, raw: RawSample, number: int = 0) -> EvalExample:
        """Decode and transform a sample; the number of the pass makes no difference.

        The result states which share of the crop is padding, since a score of mirrored pixels is
        none of the image's.

        Raises:
            BadImageError: If the image cannot be decoded.
            InputError: If there is no mask, or its size is neither the image's nor the crop's.
        """
        image = decode_image(raw.image)
        mask = self.masks(raw, self.size)
        if mask.shape == image.shape[:2]:
            # As large as the image: it is cut out at the same place.
            mask = padded_center_crop(mask, self.size)
        elif mask.shape != (self.size, self.size):
            raise _size_error(raw, mask, image, f", or the crop, {self.size}x{self.size}")
        return {
            "image": to_tensor(padded_center_crop(image, self.size)),
            "mask": _mask_tensor(mask),
            "key": raw.key,
            "padding": torch.tensor(padding_share(image.shape, self.size)),
        }
