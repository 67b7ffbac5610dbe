"""Samples that can be counted and read by range: those of shards, and those of plain files."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sdm_lightning.data.naming import unique_keys
from sdm_lightning.data.shards.index import INDEX_NAME, ShardIndex, is_tar_name
from sdm_lightning.data.shards.reading import RawSample, ShardReader
from sdm_lightning.data.shards.remote import local_path
from sdm_lightning.data.sources import Entry, ImageSource, is_image_name, open_source
from sdm_lightning.errors import InputError

_log = logging.getLogger(__name__)


class SampleSource(Protocol):
    """Samples that can be counted and read by range."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def read(self, start: int, stop: int) -> Iterator[RawSample]:
        """Yield samples ``start .. stop - 1``."""


@dataclass(frozen=True)
class ShardSource:
    """The samples of a set of shards, in the order of the index."""

    index: ShardIndex
    reader: ShardReader = field(default_factory=ShardReader)

    def __len__(self) -> int:
        return self.index.num_samples

    def read(self, start: int, stop: int) -> Iterator[RawSample]:
        """Yield samples ``start .. stop - 1``, reading only the shards that they are in."""
        first = 0
        for shard in self.index.shards:
            last = first + shard.samples
            if first < stop and start < last:
                yield from self.reader.read(shard)[max(start - first, 0) : stop - first]
            first = last


@functools.cache  # a fit or a test opens its images several times
def _warn_once(text: str) -> None:
    _log.warning(text)


class FileSource:
    """The images of a folder, zip or tar as samples without masks, in the order of their names.

    A warning says what else lies there and is left out.

    Args:
        source: Where they are.

    Raises:
        InputError: If there are no images.
    """

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self.entries: list[Entry] = source.entries()
        self.keys = unique_keys(entry.name for entry in self.entries)
        if source.left_out:
            _warn_once(f"{source.path}: left out {source.left_out}")

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, start: int, stop: int) -> Iterator[RawSample]:
        """Yield samples ``start .. stop - 1``."""
        for entry in self.entries[start:stop]:
            try:
                data = self.source.read(entry)
            except OSError as error:
                raise InputError(
                    f"{self.source.path}: {entry.name} cannot be read ({error})"
                ) from error
            yield RawSample(self.keys[entry.name], data, None, self.source.path)


def open_samples(place: str | Path | list[str], reader: ShardReader) -> SampleSource:
    """Open a data set: shards, or plain images in a folder, zip or tar.

    A folder with an index, or with tar files and no images in it, holds shards, and a tar with an
    index beside it is one; any other local folder or file holds plain images.

    Args:
        place: A path or an address, a brace range of shards, or a list of shards.
        reader: Reads the shards.

    Raises:
        InputError: If there is nothing, no image, or no index of the shards, or if a folder without
            an index holds both images and tar files.
    """
    place = str(place) if isinstance(place, Path) else place
    path = local_path(place) if isinstance(place, str) else None
    if path is None or _are_shards(path):
        return ShardSource(ShardIndex.load(place), reader)
    return FileSource(open_source(path))


def _are_shards(path: str) -> bool:
    if os.path.isdir(path):
        names = os.listdir(path)
        if INDEX_NAME in names:
            return True
        if any(map(is_image_name, names)):
            if any(name.endswith(".tar") for name in names):
                raise InputError(
                    f"{path}: holds images, and tar files without an {INDEX_NAME}; move one of the "
                    "two elsewhere, or if the tar files are shards, run `sdm index` on them"
                )
            return False  # a compressed archive may lie beside its photos
        return any(is_tar_name(os.path.join(path, name)) for name in names)
    if os.path.basename(path) == INDEX_NAME or ("{" in path and not os.path.exists(path)):
        return True
    return is_tar_name(path) and os.path.exists(os.path.join(os.path.dirname(path), INDEX_NAME))
