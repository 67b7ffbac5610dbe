"""Pictures and masks from files, bytes, PIL images or arrays, converted to one form.

A picture may be grey, coloured, palette, with or without transparency, 8 or 16 bits deep, turned
by its EXIF orientation, and of any size. A mask may be black and white either way round.
"""

import os
import warnings
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from sdm_lightning.data.decode import (
    MAX_ENCODED_BYTES,
    BadImageError,
    load_pixels,
    open_header,
    upright,
)
from sdm_lightning.data.masks.convention import MOSTLY_HOLE, MaskConvention, opposite_convention
from sdm_lightning.errors import InputError

Array: TypeAlias = npt.NDArray[Any]
PictureLike: TypeAlias = str | Path | bytes | Image.Image | Array

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as PIL's "L"
RIM_HOLE = 0.9
GREY_FRACTION = 0.02
"""Share of grey pixels from which a mask is warned of."""
PICTURE_FRACTION = 0.25
"""Share from which it is a picture: photos have 0.4 or more, masks with soft edges hardly 0.1."""

TIFF_LAYOUT = frozenset(
    {*range(254, 260), 262, 263, 264, 265, 266, 273, *range(277, 282), 284, *range(288, 294), 297,
     301, 317, 318, 319, 320, *range(321, 326), 330, 332, 333, 334, *range(336, 348),
     *range(512, 522), *range(529, 533), 34675}
)  # fmt: skip
"""Tags of a TIFF file that say how its pixels lie in it, and nothing of the photo: wrong in any
other file, and a TIFF file with them cannot be read."""

RESOLUTION = frozenset({282, 283, 296})
"""EXIF tags of the pixels per inch."""
MAX_DPI = 65535
"""Pixels per inch that all formats can store."""


@dataclass(frozen=True)
class Picture:
    """A picture, upright.

    Attributes:
        pixels: ``(H, W, C)`` uint8 or uint16, C = 1 (grey) or 3.
        alpha: ``(H, W)`` of the same type, or None; opaque in the hole once it is filled.
        array_shape: Shape of the array that the caller gave; what goes back has it too.
        info: What a file keeps beside its pixels: ``icc_profile``, ``exif``, ``dpi``; and ``jpeg``,
            Pillow's options that encode known pixels nearly as the JPEG file has them.
        name: For messages.
    """

    pixels: Array
    alpha: Array | None
    array_shape: tuple[int, ...]
    info: dict[str, Any]
    name: str

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def highest(self) -> int:
        """The value of white: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    def normalised(self) -> npt.NDArray[np.float32]:
        """Return ``(H, W, 3)`` float32 in [-1, 1]; grey is repeated."""
        scaled = self.pixels.astype(np.float32) * (2.0 / self.highest) - 1.0
        return np.repeat(scaled, 3, axis=2) if scaled.shape[2] == 1 else scaled

    def filled(self, values: npt.NDArray[np.float32], known: npt.NDArray[np.bool_]) -> Array:
        """Replace the hole, in the caller's shape and type.

        Args:
            values: ``(H, W, 3)``, cut off at -1 and 1; read in the hole only.
            known: ``(H, W)``; known pixels stay exactly the same.

        Raises:
            InputError: If a value in the hole is NaN or infinite.
        """
        hole = ~known
        inside = values[hole]
        self.require_finite(inside)
        if self.pixels.shape[2] == 1:
            inside = (inside @ LUMA)[:, None]
        levels = np.rint((inside + 1.0) * (self.highest / 2)).clip(0, self.highest)
        result = self.pixels.copy()
        result[hole] = levels.astype(result.dtype)
        if self.alpha is not None:
            result = np.concatenate([result, self.alpha[:, :, None]], axis=2)
        return result.reshape(self.array_shape)

    def opaque_in(self, hole: npt.NDArray[np.bool_]) -> "Picture":
        """Return the picture, opaque in the hole ``(H, W)``: what is filled is to be seen."""
        if self.alpha is None:
            return self
        alpha = np.where(hole, self.highest, self.alpha).astype(self.alpha.dtype)
        return replace(self, alpha=alpha)

    def require_finite(self, values: npt.NDArray[np.float32]) -> None:
        """Refuse what a network has put into the hole if no picture can show it.

        Raises:
            InputError: If a value is NaN or infinite.
        """
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.name}: the network's output for its hole holds NaN or infinity; take other "
                "weights"
            )

    def to_pil(self, array: Array) -> Image.Image:
        """Convert an array made by ``filled`` to PIL; 16-bit colour becomes 8-bit, PIL's limit."""
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        image = Image.fromarray(eight_bits(array) if array.ndim == 3 else array)
        image.info.update(self.info)
        return image


def eight_bits(array: Array) -> npt.NDArray[np.uint8]:
    """Return uint8 or uint16 values as uint8, the high byte of 16 bits."""
    # Not by Pillow's conversion from I;16, which clips.
    return (array >> 8 if array.dtype == np.uint16 else array).astype(np.uint8, copy=False)


def read_picture(source: PictureLike | Picture) -> Picture:
    """Convert a file, PIL image or array to a ``Picture``.

    Args:
        source: Path, a file's bytes, PIL image, or array ``(H, W)``, ``(H, W, 1 | 2 | 3 | 4)`` of
            uint8 or uint16 (two and four channels: the last is transparency). Files and PIL images
            are turned upright by their EXIF orientation. A ``Picture`` is returned as it is.

    Raises:
        InputError: If it cannot be read or is of another type.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, "the image array", source.shape, {})
    return _from_pil(*_opened(source, "the image", "a uint8 array (H, W, 3)"))


def _opened(source: object, name: str, array: str) -> tuple[Image.Image, str]:
    """Return what was given, decoded, and its name for messages."""
    if isinstance(source, Image.Image | bytes):
        return _decoded(source, name), name
    if isinstance(source, str | os.PathLike):
        return open_image(source), str(source)
    kind = type(source).__name__
    raise InputError(f"{name}: {kind}; give a path, a file's bytes, a PIL image or {array}")


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Open and decode an image file completely.

    Raises:
        InputError: If it is missing, cut short, larger than what is decoded, or no image of the
            formats that shards may hold.
    """
    try:
        size = os.stat(path).st_size
        if size > MAX_ENCODED_BYTES:
            raise BadImageError(f"has {size} bytes; at most {MAX_ENCODED_BYTES} are read")
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (BadImageError, OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
    return _decoded(data, str(path))


def _decoded(source: Image.Image | bytes, name: str) -> Image.Image:
    try:
        if not isinstance(source, bytes):
            return load_pixels(source)  # Pillow decodes at first use
        image = open_header(source)
        tile = getattr(image, "tile", None)
        rawmode = str(tile[0][3]) if tile else ""
        if ";16" in rawmode and image.mode in ("RGB", "RGBA", "LA"):
            warnings.warn(
                f"{name}: 16 bits per colour channel are read as 8 (Pillow); pass a uint16 array "
                "to keep them",
                stacklevel=3,
            )
        return load_pixels(image)
    except BadImageError as error:
        raise InputError(f"{name}: {error}") from error


def _from_pil(image: Image.Image, name: str) -> Picture:
    turned = upright(image)
    info = {
        key: image.info[key] for key in ("icc_profile", "dpi") if image.info.get(key) is not None
    }
    unwanted = TIFF_LAYOUT
    if "dpi" in info and not _is_dpi(info["dpi"]):
        del info["dpi"]
        unwanted |= RESOLUTION
    try:
        exif = turned.getexif()
        for tag in unwanted & set(exif):
            del exif[tag]
        if len(exif):
            info["exif"] = exif.tobytes()
    except Exception:  # damaged EXIF raises nearly anything, and is not worth a picture
        warnings.warn(f"{name}: its EXIF data are damaged and left out", stacklevel=3)
    # Of a turned photo other blocks are encoded, and its own coarse steps would be a second loss.
    if isinstance(image, JpegImageFile) and turned is image and image.mode in ("L", "RGB"):
        tables = [image.quantization[layer[3]] for layer in image.layer]
        info["jpeg"] = {"qtables": tables, "subsampling": get_sampling(image)}
    if turned.mode in ("L", "RGB") and "transparency" in turned.info:  # one colour is transparent
        turned = turned.convert({"L": "LA", "RGB": "RGBA"}[turned.mode])
    mode = turned.mode
    if mode in ("L", "RGB", "LA", "RGBA", "I;16"):
        array = np.asarray(turned)
    elif mode in ("I;16B", "I;16L", "I;16N", "I"):
        array = np.asarray(turned)
        if array.size and (array.min() < 0 or array.max() > 65535):
            raise InputError(f"{name}: 32-bit pixels beyond 0..65535; convert to 8 or 16 bits")
        array = array.astype(np.uint16)
    elif mode == "1":
        array = np.asarray(turned.convert("L"))
    elif mode in ("P", "PA"):
        transparent = mode == "PA" or "transparency" in turned.info
        array = np.asarray(turned.convert("RGBA" if transparent else "RGB"))
    elif mode == "CMYK":
        # The profile describes inks; on RGB pixels it would turn every colour.
        array = np.asarray(_from_inks(turned, info.pop("icc_profile", b""), name))
    elif mode in ("YCbCr", "HSV", "LAB", "RGBX", "RGBa", "La"):
        array = np.asarray(turned.convert({"RGBa": "RGBA", "La": "LA"}.get(mode, "RGB")))
    else:
        raise InputError(f"{name}: PIL mode {mode}; convert it to L, RGB, RGBA or I;16 first")
    return _from_array(array, name, array.shape, info)


def _from_inks(image: Image.Image, profile: bytes, name: str) -> Image.Image:
    """Convert CMYK to sRGB, by its profile if that can be used."""
    try:
        inks, srgb = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, inks, srgb, outputMode="RGB")
    except (OSError, ImportError, ImageCms.PyCMSError):  # ImportError: Pillow without littlecms
        converted = None
    if converted is None:
        warnings.warn(
            f"{name}: CMYK without a usable colour profile is converted to RGB; its colours change",
            stacklevel=4,
        )
        return image.convert("RGB")
    return converted


def _is_dpi(value: Any) -> bool:
    """Return whether a value, as damaged files have it too, is a resolution to write again."""
    try:
        across, down = map(float, value)
    except (TypeError, ValueError, ArithmeticError):
        return False
    return 0 < across <= MAX_DPI and 0 < down <= MAX_DPI


def _from_array(array: Array, name: str, shape: tuple[int, ...], info: dict[str, Any]) -> Picture:
    if array.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{name}: type {array.dtype}; pictures are uint8 or uint16")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise InputError(f"{name}: shape {shape}; pictures are (H, W) or (H, W, 1 to 4 channels)")
    if 0 in array.shape:
        raise InputError(f"{name}: shape {shape} has no pixels")
    alpha = None
    if array.shape[2] in (2, 4):
        array, alpha = array[:, :, :-1], array[:, :, -1]
    return Picture(array, alpha, shape, info, name)


def read_mask(
    source: PictureLike,
    size: tuple[int, int],
    convention: MaskConvention = "known-white",
) -> npt.NDArray[np.bool_]:
    """Convert a mask to ``(H, W)`` bool, True = known.

    Args:
        source: Path, a file's bytes, PIL image, or array: bool, 0/1, 0..255, or float 0..1;
            ``(H, W)``, ``(H, W, 1)`` or three equal channels.
        size: Height and width that it must have.
        convention: ``"known-white"``: white (or 1, or True) is kept and black is filled, as in
            every file that this package writes. ``"hole-white"``: white is filled, as painting
            tools and many other inpainting programs do.

    Raises:
        InputError: If it cannot be read, has another size, or its colours or transparency leave
            open what is hole.
    """
    if convention not in ("known-white", "hole-white"):
        raise InputError(f"mask_convention {convention!r}: choose known-white or hole-white")
    turned: tuple[int, int] | None = None
    if isinstance(source, np.ndarray):
        name, array = "the mask array", source
        if array.dtype.kind not in "buif":
            raise InputError(f"{name}: type {array.dtype}; masks are bool, integers or floats")
    else:
        image, name = _opened(source, "the mask", "an array (H, W)")
        turned = (image.height, image.width)
        if turned not in (size, size[::-1]):  # before its levels are worked out
            raise InputError(_wrong_size(name, turned, size))
        array = _mask_levels(upright(image), name)
    if array.ndim == 3:
        if array.shape[2] not in (1, 3) or not (array == array[:, :, :1]).all():
            raise InputError(
                f"{name}: shape {array.shape} with differing channels; a mask is black and white"
            )
        array = array[:, :, 0]
    if array.shape != size:
        hint = ""
        if array.shape == size[::-1] or turned == size[::-1]:
            hint = "; one of them seems turned by 90 degrees (EXIF orientation is applied)"
        raise InputError(_wrong_size(name, array.shape, size) + hint)
    white = _threshold(array, name)
    known = ~white if convention == "hole-white" else white
    hole = 1.0 - float(known.mean())
    border = np.concatenate([known[0], known[-1], known[:, 0], known[:, -1]])
    # Painted strokes read the wrong way round leave the picture's rim and most of it as hole.
    if hole == 0 or hole > MOSTLY_HOLE or (hole > 0.5 and border.mean() < 1 - RIM_HOLE):
        warnings.warn(
            f"{name}: {hole:.1%} of the picture is hole (mask_convention={convention}); if it is "
            f"the other way round, set --mask_convention {opposite_convention(convention)}",
            stacklevel=3,
        )
    return known


def _mask_levels(image: Image.Image, name: str) -> Array:
    if image.mode in ("1", "L"):
        return np.asarray(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        levels = np.asarray(image)
        return levels if levels.max() <= 255 else levels / np.float32(65535)
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise InputError(
                f"{name}: is partly transparent, so what is hole is open; flatten it to black "
                "and white; --mask alpha fills what is transparent in the photo itself"
            )
    return np.asarray(image.convert("L"))


def _threshold(array: Array, name: str) -> npt.NDArray[np.bool_]:
    if array.dtype == np.bool_:
        return np.array(array)
    if array.size == 0:
        raise InputError(f"{name}: has no pixels")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 255):
        raise InputError(f"{name}: values from {low:g} to {high:g}; a mask holds 0..1 or 0..255")
    # 0 and 1 in integers is the form free_form_mask() returns, not a nearly black picture.
    scale = 1.0 if high <= 1 else 255.0
    levels = array.astype(np.float32) / scale
    grey = float(((levels > 0.125) & (levels < 0.875)).mean())
    if grey > PICTURE_FRACTION:
        raise InputError(
            f"{name}: {grey:.1%} of its pixels are grey: a picture, not a mask; --mask_color "
            "'#rrggbb' fills what is painted over a photo, --mask alpha what is transparent in it"
        )
    if grey > GREY_FRACTION:
        warnings.warn(
            f"{name}: {grey:.1%} of its pixels are grey; cut at half (128 of 255)", stacklevel=4
        )
    return np.asarray(levels >= 128 / 255 if scale == 255.0 else levels >= 0.5)


def _wrong_size(name: str, found: tuple[int, ...], size: tuple[int, ...]) -> str:
    return f"{name}: {_by(found)} pixels (width x height), but its image has {_by(size)}"


def _by(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
