"""Holes that are given without a mask file: boxes, transparency, a colour painted over a photo."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sdm_lightning.arrays import BoolArray
from sdm_lightning.data.masks.convention import MaskConvention
from sdm_lightning.errors import InputError
from sdm_lightning.inference.pictures import Picture, eight_bits, read_mask, read_picture

COLOUR_TOLERANCE = 32
"""Levels of 255 by which each channel of a painted pixel may differ: JPEG changes flat colours."""
SOFT_EDGE = 4
"""Pixels around a painted colour that a soft brush, or a JPEG file's coarser colours, have mixed
with the photo."""


@dataclass(frozen=True)
class HoleSource:
    """Everything that says what is filled; what is given together adds up.

    Attributes:
        boxes: See ``box_hole``.
        colour: See ``painted_hole``; empty for none.
        alpha: Fill what is transparent; see ``transparent``.
        grow: Pixels around the hole that are filled, too; None: ``SOFT_EDGE`` with a colour, 0
            without.
        convention: Meaning of white in mask files.
    """

    boxes: tuple[str, ...] = ()
    colour: str = ""
    alpha: bool = False
    grow: int | None = None
    convention: MaskConvention = "known-white"

    def __post_init__(self) -> None:
        """Refuse what is wrong for every photo before the first is read."""
        for box in self.boxes:
            parse_box(box)
        if self.colour:
            parse_colour(self.colour)
        if self.grow is not None and self.grow < 0:
            raise InputError(f"grow is {self.grow}; it must not be negative")

    @property
    def empty(self) -> bool:
        """Whether a mask file is needed."""
        return not (self.boxes or self.colour or self.alpha)

    def find(self, image: Path, mask: Path | None) -> tuple[Picture, BoolArray]:
        """Read a photo and find its hole.

        Args:
            image: The photo.
            mask: A mask file, if there is one.

        Returns:
            The photo, and ``(H, W)``, True = known.

        Raises:
            InputError: If a file, box or colour is unusable, or nothing is transparent.
        """
        picture = read_picture(image)
        hole = box_hole(self.boxes, picture.shape)
        if mask is not None:
            hole |= ~read_mask(mask, picture.shape, self.convention)
        if self.colour:
            hole |= painted_hole(picture, self.colour)
        if self.alpha:
            clear = transparent(picture)
            if not clear.any():
                raise InputError(f"{image}: nothing in it is transparent; --mask alpha fills that")
            hole |= clear
        grow = self.grow if self.grow is not None else SOFT_EDGE if self.colour else 0
        return picture, ~grown(hole, grow)


def parse_box(box: str) -> tuple[int, int, int, int]:
    """Read ``"X,Y,W,H"``.

    Raises:
        InputError: If it is malformed or empty.
    """
    if not re.fullmatch(r"\s*-?\d+\s*(,\s*-?\d+\s*){3}", box):
        raise InputError(f"box '{box}': write X,Y,W,H in whole pixels, as in 40,30,200,100")
    left, top, width, height = map(int, box.split(","))
    if width < 1 or height < 1:
        raise InputError(f"box '{box}': width and height must be at least 1")
    return left, top, width, height


def parse_colour(colour: str) -> tuple[int, ...]:
    """Read ``"#rrggbb"``.

    Raises:
        InputError: If it is malformed.
    """
    match = re.fullmatch(r"#?([0-9a-fA-F]{6})", colour)
    if match is None:
        raise InputError(f"mask_color '{colour}': write six hexadecimal digits, as in '#ff00ff'")
    return tuple(bytes.fromhex(match[1]))


def box_hole(boxes: Sequence[str], size: tuple[int, int]) -> BoolArray:
    """Return the union of boxes, ``(H, W)``, True = fill.

    Args:
        boxes: ``"X,Y,W,H"`` each: left, top, width and height in pixels of the upright photo. What
            reaches beyond the photo is cut off.
        size: Height and width of the photo.

    Raises:
        InputError: If a box is malformed, empty, or lies outside the photo.
    """
    hole = np.zeros(size, bool)
    for box in boxes:
        left, top, width, height = parse_box(box)
        if not hole[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)].size:
            raise InputError(f"box '{box}': lies outside the photo of {size[1]}x{size[0]} pixels")
        hole[max(top, 0) : top + height, max(left, 0) : left + width] = True
    return hole


def transparent(picture: Picture) -> BoolArray:
    """Return where a photo is transparent, ``(H, W)``; nowhere without an alpha channel.

    Every pixel that is not wholly opaque counts: what a soft eraser has left shows the background
    too.
    """
    if picture.alpha is None:
        return np.zeros(picture.shape, bool)
    return picture.alpha < picture.highest


def painted_hole(picture: Picture, colour: str) -> BoolArray:
    """Return where a colour is painted over a photo, ``(H, W)``, True = fill.

    Args:
        picture: The photo with the paint on it.
        colour: ``"#rrggbb"``; pixels within ``COLOUR_TOLERANCE`` of it in each channel count.

    Raises:
        InputError: If the colour is malformed or nowhere in the photo.
    """
    wanted = np.array(parse_colour(colour), np.int16)
    levels = eight_bits(picture.pixels).astype(np.int16)
    hole = (np.abs(levels - wanted) <= COLOUR_TOLERANCE).all(axis=2)
    if not hole.any():
        raise InputError(
            f"{picture.name}: no pixel is within {COLOUR_TOLERANCE} levels of mask_color {colour}"
        )
    return hole


def grown(hole: BoolArray, pixels: int) -> BoolArray:
    """Return the hole and everything within so many pixels of it."""
    if pixels == 0 or not hole.any():
        return hole
    distance = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance <= pixels
