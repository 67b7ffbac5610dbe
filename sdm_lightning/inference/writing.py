"""Writing completed pictures: formats, colour profile and EXIF, before beside after."""

import struct
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from sdm_lightning.data.decode import JPEG_EXTENSIONS, over_white
from sdm_lightning.errors import InputError
from sdm_lightning.inference.pictures import eight_bits
from sdm_lightning.inference.results import InpaintingSample

JPEG = tuple(f".{extension}" for extension in JPEG_EXTENSIONS)
FLAT = (*JPEG, ".bmp")
"""Formats without transparency, or whose transparency no viewer shows."""
LOSSY = (*JPEG, ".webp")
DEEP = (".png", ".tif", ".tiff")
"""Formats that hold 16 bits per pixel."""
COMPARE_SIDE = 1600
"""Longest side, in pixels, of each half of a before/after picture."""


def file_content(image: Image.Image, suffix: str, name: str) -> bytes:
    """Encode a result's picture, flattened where its format shows no transparency.

    Raises:
        InputError: If the format is unknown or cannot hold it.
    """
    suffix = suffix.lower()
    if suffix not in Image.registered_extensions():
        raise InputError(f"{name}: cannot write that format; choose .png, .tif or .jpg")
    if suffix in FLAT and image.mode in ("RGBA", "LA"):
        flat = over_white(image)
        flat.info = image.info
        image = flat.convert(image.mode[:-1])
    try:
        return encoded(image, suffix)
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise InputError(f"{name}: cannot be written as {suffix}: {error}") from error


def file_options(image: Image.Image) -> dict[str, Any]:
    """Return what a picture file keeps beside its pixels, as arguments of ``Image.save``."""
    return {key: image.info[key] for key in ("icc_profile", "exif", "dpi") if image.info.get(key)}


def encoded(image: Image.Image, suffix: str) -> bytes:
    """Encode a picture for a file with that suffix; 16 bits become 8 where it cannot hold them.

    A JPEG photo is encoded as it was, so that known pixels hardly change, other pictures at 95.
    """
    options = file_options(image)
    if suffix not in DEEP and image.mode.startswith("I"):
        image = Image.fromarray(eight_bits(np.asarray(image)))
    if suffix in JPEG and "jpeg" in image.info:
        options |= image.info["jpeg"]
    elif suffix in LOSSY:
        options["quality"] = 95
    buffer = BytesIO()
    image.save(buffer, format=Image.registered_extensions()[suffix], **options)
    return buffer.getvalue()


def side_by_side(sample: InpaintingSample) -> Image.Image:
    """Return the photo and its filling beside each other; a wide one has them one above the other.

    Each half is at most ``COMPARE_SIDE`` pixels long: it is for looking at, not for keeping pixels.
    """
    picture = sample.picture
    before = picture.filled(picture.normalised(), np.ones(picture.shape, bool))
    halves = []
    for array in (before, sample.array):
        image = picture.to_pil(eight_bits(array))
        half = image.convert("RGBA" if "A" in image.mode else "RGB")
        half.thumbnail((COMPARE_SIDE, COMPARE_SIDE))
        halves.append(half)
    width, height = halves[0].size
    gap = max(2, max(width, height) // 100)
    wide = width > height
    size = (width, 2 * height + gap) if wide else (2 * width + gap, height)
    both = Image.new(halves[0].mode, size, "white")
    both.paste(halves[0], (0, 0))
    both.paste(halves[1], (0, height + gap) if wide else (width + gap, 0))
    both.info.update({key: value for key, value in picture.info.items() if key == "icc_profile"})
    return both
