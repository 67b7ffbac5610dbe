"""Images of a folder or archive by name, to pair them with images or masks elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.data.decode import BadImageError, decode_image, decode_mask
from sdm_lightning.data.masks.convention import MaskConvention
from sdm_lightning.data.naming import key_for_path
from sdm_lightning.data.sources import Entry, open_source
from sdm_lightning.errors import InputError


class NamedImages:
    """The images of a folder, zip or tar by key, as ``key_for_path`` makes it of their paths.

    Args:
        path: The folder or archive.
        suffix: Ending of the file names (before the extension) that the keys leave out, such as
            ``_mask000``.

    Attributes:
        source: Where the images are.
        entries: Key -> file, sorted by path.

    Raises:
        InputError: If there are no images, or two with one key.
    """

    def __init__(self, path: str, suffix: str = "") -> None:
        self.source = open_source(path)
        self.entries: dict[str, Entry] = {}
        for entry in self.source.entries():
            name = PurePosixPath(entry.name)
            key = key_for_path(str(name.with_name(name.stem.removesuffix(suffix) + name.suffix)))
            if key in self.entries:
                raise InputError(
                    f"{path}: {self.entries[key].name} and {entry.name} both become {key} "
                    "(extensions are dropped, and other characters than letters, digits and "
                    "hyphens become _); rename or remove one of them"
                )
            self.entries[key] = entry

    def require(self, keys: Sequence[str], what: str) -> None:
        """Check that each of these images has its counterpart here.

        Args:
            keys: Keys of the other images.
            what: What the counterparts are, such as ``mask``, for the message.

        Raises:
            InputError: If one is missing.
        """
        missing = [key for key in keys if key not in self.entries]
        if missing:
            raise InputError(
                f"{self.source.path}: no {what} for {len(missing)} of {len(keys)} images, the "
                f"first is {missing[0]}; files are paired by name, never by order"
            )

    def label(self, key: str) -> str:
        """Return the path of an image, for messages."""
        return f"{self.source.path}/{self.entries[key].name}"

    def read(self, key: str) -> bytes:
        """Return the encoded bytes of an image.

        Raises:
            InputError: If the file cannot be read.
        """
        try:
            return self.source.read(self.entries[key])
        except OSError as error:
            raise InputError(f"{self.label(key)}: cannot be read ({error})") from error

    def image(self, key: str) -> UInt8Array:
        """Decode an image to RGB, ``(H, W, 3)``.

        Raises:
            InputError: If it cannot be read or decoded.
        """
        try:
            return decode_image(self.read(key))
        except BadImageError as error:
            raise InputError(f"{self.label(key)}: {error}") from error

    def mask(self, key: str, convention: MaskConvention = "known-white") -> UInt8Array:
        """Decode a mask to ``(H, W)``, 1 = known.

        Raises:
            InputError: If it cannot be read or decoded.
        """
        try:
            return decode_mask(self.read(key), convention)
        except BadImageError as error:
            raise InputError(f"{self.label(key)}: {error}") from error
