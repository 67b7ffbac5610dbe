"""A photo that is open in the page: its reduced picture, and the hole that is painted over it."""

import base64
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from sdm_lightning.arrays import BoolArray, UInt8Array
from sdm_lightning.data.decode import BadImageError, open_header
from sdm_lightning.errors import InputError
from sdm_lightning.inference.holes import transparent
from sdm_lightning.inference.pictures import (
    Picture,
    eight_bits,
    read_mask,
    read_picture,
)
from sdm_lightning.inference.regions import reduce_to_longer_side

PAGE_SIDE = 1024
"""Longest side, in pixels, of the pictures that the page shows."""
IN_WORDS_OF_THE_PAGE = {
    r" \(Pillow\); pass a uint16 array.*": "",
    r" \(mask_convention=.*": "; if it is the other way round, press Invert",
    r"; --mask.*": "",
}
_recording = threading.Lock()


@dataclass
class OpenPhoto:
    """An open photo.

    Attributes:
        picture: At full size, with its transparency.
        preview: ``(h, w, 3)``, reduced for the page, without it.
        given_hole: ``(H, W)``, True = hole: what was transparent in the photo or black in the mask
            that was uploaded last; None without either.
    """

    picture: Picture
    preview: UInt8Array
    given_hole: BoolArray | None = None

    @property
    def name(self) -> str:
        """Name of its file, without suffix."""
        return Path(self.picture.name).stem

    def given_preview(self) -> BoolArray | None:
        """Reduce the given hole ``(h, w)`` for the page."""
        return None if self.given_hole is None else shrink_mask(self.given_hole, self.preview)

    def hole(self, painted: str) -> BoolArray:
        """Return the hole at full size, ``(H, W)``, True = fill.

        Where the painting still shows the given hole, the given one is taken: its edges are exact.

        Args:
            painted: PNG data URL of the size of ``preview``, opaque where to fill.

        Raises:
            InputError: If it is no such picture, or no pixel is painted.
        """
        small = decode_hole(painted, self.preview.shape[:2])
        height, width = self.picture.shape
        hole = enlarge_mask(small, height, width)
        if self.given_hole is not None:
            changed = (small != self.given_preview()).astype(np.uint8)
            # Grown by a pixel: the edge of the given hole can lie in the next one.
            changed = cv2.dilate(changed, np.ones((3, 3), np.uint8))
            changed = cv2.resize(changed, (width, height), interpolation=cv2.INTER_NEAREST)
            hole = np.where(changed, hole, self.given_hole)
        if not hole.any():
            raise InputError("nothing is painted yet: paint over what is to be filled")
        return hole


def open_photo(path: Path, max_pixels: int) -> OpenPhoto:
    """Read an uploaded photo.

    Args:
        path: The uploaded file.
        max_pixels: Photos with more are refused before they are decoded.

    Raises:
        InputError: If it is too large or cannot be read; the message has the file's name only.
    """
    try:
        check_size(path, max_pixels)
        picture = read_picture(path)
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from error
    hole = transparent(picture)
    colours = eight_bits(picture.pixels)
    colours = np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours
    preview = reduce_to_longer_side(colours, PAGE_SIDE)
    return OpenPhoto(replace(picture, name=path.name), preview, hole if hole.any() else None)


def read_hole(path: Path, photo: OpenPhoto, max_pixels: int) -> BoolArray:
    """Read an uploaded mask, black = fill; ``(H, W)``, True = hole.

    Raises:
        InputError: If it cannot be read or has another size than the photo.
    """
    try:
        check_size(path, max_pixels)
        return ~read_mask(path, photo.picture.shape)
    except InputError as error:
        raise InputError(_plain(str(error).replace(str(path), path.name))) from error


@contextmanager
def noted(path: Path) -> Iterator[list[str]]:
    """Collect our own warnings about an uploaded file, for the person at the page.

    Yields:
        A list that is filled when the block is left.
    """
    notes: list[str] = []
    # catch_warnings() belongs to the whole process: two must not be left in the wrong order.
    with _recording, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield notes
    for warning in caught:
        name, _, text = str(warning.message).rpartition(": ")
        if name != str(path):
            continue
        notes.append(f"{path.name}: {_plain(text)}")


def _plain(text: str) -> str:
    for technical, plain in IN_WORDS_OF_THE_PAGE.items():
        text = re.sub(technical, plain, text)
    return text


def check_size(path: Path, max_pixels: int) -> None:
    """Refuse a picture by its header alone, before its pixels are decoded.

    Raises:
        InputError: If it has more pixels.
    """
    try:
        image = open_header(path.read_bytes())
    except (BadImageError, OSError):
        return  # Reading it says what is wrong.
    if image.width * image.height > max_pixels:
        raise InputError(f"{path}: larger than the {max_pixels / 1e6:g} megapixels allowed here")


def shrink_mask(mask: BoolArray, preview: UInt8Array) -> BoolArray:
    """Reduce ``(H, W)`` to the size of ``preview``: True where most of a pixel is."""
    height, width = preview.shape[:2]
    levels = mask.astype(np.uint8) * 255
    return cv2.resize(levels, (width, height), interpolation=cv2.INTER_AREA) >= 128


def enlarge_mask(mask: BoolArray, height: int, width: int) -> BoolArray:
    """Bring ``(h, w)`` to full size with smooth edges."""
    levels = mask.astype(np.uint8) * 255
    return cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR) >= 128


def decode_hole(url: str, size: tuple[int, ...]) -> BoolArray:
    """Return the opaque part of a PNG data URL, ``(h, w)``.

    Raises:
        InputError: If it is no PNG data URL, or has another size.
    """
    try:
        head, _, content = url.partition(",")
        if head != "data:image/png;base64":
            raise ValueError
        image = Image.open(BytesIO(base64.b64decode(content, validate=True)), formats=["PNG"])
        if (image.height, image.width) != tuple(size):
            raise ValueError
        alpha = np.asarray(image.convert("RGBA"))[:, :, 3]
    except (
        AttributeError,
        ValueError,
        OSError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise InputError("the painted hole does not fit the photo: open the photo again") from error
    return alpha >= 128


def data_url(pixels: npt.NDArray[np.generic]) -> str:
    """Encode a picture for the page: colour as JPEG, a mask as PNG with a transparent rest."""
    buffer = BytesIO()
    if pixels.dtype == np.bool_:
        layer = np.zeros((*pixels.shape, 4), np.uint8)
        layer[pixels] = 255
        Image.fromarray(layer).save(buffer, "PNG")
        kind = "png"
    else:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
