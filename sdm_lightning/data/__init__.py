"""Data: shards in, batches ``{"image", "mask", "key"}`` out.

Names are loaded when they are used, so that packing shards does not import Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdm_lightning.data.datamodule import InpaintingDataModule
    from sdm_lightning.data.decode import BadImageError, decode_image, decode_mask
    from sdm_lightning.data.indexing import index_shards
    from sdm_lightning.data.mask_sources import mask_seed
    from sdm_lightning.data.masks import MASK_PRESETS, free_form_mask
    from sdm_lightning.data.packing import pack_shards
    from sdm_lightning.data.photos import make_demo_images
    from sdm_lightning.data.shards import RawSample, Shard, ShardIndex, ShardReader
    from sdm_lightning.data.stream import EvalStream, TrainStream

_HOMES = {
    "InpaintingDataModule": "datamodule",
    "BadImageError": "decode",
    "decode_image": "decode",
    "decode_mask": "decode",
    "MASK_PRESETS": "masks",
    "free_form_mask": "masks",
    "index_shards": "indexing",
    "pack_shards": "packing",
    "make_demo_images": "photos",
    "mask_seed": "mask_sources",
    "RawSample": "shards",
    "Shard": "shards",
    "ShardIndex": "shards",
    "ShardReader": "shards",
    "EvalStream": "stream",
    "TrainStream": "stream",
}

__all__ = [
    "MASK_PRESETS",
    "BadImageError",
    "EvalStream",
    "InpaintingDataModule",
    "RawSample",
    "Shard",
    "ShardIndex",
    "ShardReader",
    "TrainStream",
    "decode_image",
    "decode_mask",
    "free_form_mask",
    "index_shards",
    "make_demo_images",
    "mask_seed",
    "pack_shards",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
