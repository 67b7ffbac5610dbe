"""From encoded bytes to uint8 arrays: the only decoders that data from outside ever meets.

Nothing here looks at a file name, runs code from the data, or opens any format that is not in
``IMAGE_FORMATS``: Pillow itself would hand a file that begins with ``%!PS`` to Ghostscript.
"""

from __future__ import annotations

import io
import logging

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.data.image_structure import (
    covered_share,
    jpeg_exif_bytes,
    jpeg_scans,
    tiff_jpeg_scans,
    tiff_value_bytes,
)
from sdm_lightning.data.masks.convention import MaskConvention

try:
    import simplejpeg
except ImportError:  # the extra "fast"; Pillow gives the same pixels
    simplejpeg = None


IMAGE_FORMATS: dict[str, str] = {
    "JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif",
}  # fmt: skip
"""Pillow's format name and the file extension that a packed sample gets."""

JPEG_EXTENSIONS = ("jpg", "jpeg", "jfif")
IMAGE_EXTENSIONS = (*JPEG_EXTENSIONS, "png", "webp", "bmp", "tif", "tiff")
"""Lower-case extensions that are taken for images."""

MAX_PIXELS = 178_956_970
"""Largest image that is decoded: Pillow's own limit, which other code may have switched off."""

MAX_ENCODED_BYTES = 1 << 30
"""Largest image file that is read, 1 GiB."""

MAX_JPEG_SCANS = 100
"""Most scans of a JPEG. Encoders write about ten, and each costs a pass over the image: 200 of them
in 270 kB took 22 s."""

MAX_SCANNED_PIXELS = 20 * MAX_PIXELS
"""Most pixels that all scans of a JPEG pass over: 20 scans of the largest image. 100 scans of 16
million pixels took 2 s."""

MAX_EXIF_BYTES = 1 << 16
"""Largest EXIF block: what one segment of a JPEG holds. Its tags can share their values, so that
its memory grows with the square of its size."""

MAX_RUN_LENGTH_BYTES = 1 << 24
"""Largest run-length encoded BMP: Pillow reads it byte by byte in Python, half a second for each
megabyte."""

_JPEG = b"\xff\xd8\xff"
_EIGHT_BITS = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)
_ORIENTATION = 0x0112
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class BadImageError(Exception):
    """Bytes that are no readable image; the message is the reason alone.

    The caller, which knows the key and the shard, turns it into an ``InputError``, or counts it.
    """


def open_header(data: bytes) -> Image.Image:
    """Open an image file in one of ``IMAGE_FORMATS``, and decode nothing yet.

    Raises:
        BadImageError: If the bytes are of another format, or would decode to more than
            ``MAX_PIXELS``.
    """
    # A library imported elsewhere may have switched this on; damaged files would then pass
    # silently with grey bands in them.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    if not data:
        raise BadImageError("the file is empty")
    if len(data) > MAX_ENCODED_BYTES:
        raise BadImageError(f"has {len(data)} bytes; at most {MAX_ENCODED_BYTES} are read")
    _check_tags(data)
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(IMAGE_FORMATS))
    except UnidentifiedImageError as error:
        raise BadImageError(
            "is no JPEG, PNG, WebP, BMP or TIFF that can be read; save it as PNG or JPEG"
        ) from error
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception
        raise _undecodable(error) from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(
            f"has {image.width}x{image.height} pixels (WxH); at most {MAX_PIXELS} are decoded"
        )
    run_length = image.format == "BMP" and image.info.get("compression") in (1, 2)
    if run_length and len(data) > MAX_RUN_LENGTH_BYTES:
        raise BadImageError(
            f"is a run-length encoded BMP of {len(data)} bytes; at most {MAX_RUN_LENGTH_BYTES} are "
            "decoded: save it as PNG"
        )
    scans = 0
    if data.startswith(_JPEG):
        scans = jpeg_scans(data)
    elif image.format == "TIFF":
        try:
            scans, share = tiff_jpeg_scans(image, data), covered_share(image)
        except (ValueError, TypeError) as error:  # tags may hold numbers of any kind
            raise _undecodable(error) from error
        if share < 1:
            raise BadImageError(f"holds {share:.1%} of its pixels; it is truncated or damaged")
    most = min(MAX_JPEG_SCANS, MAX_SCANNED_PIXELS // max(1, image.width * image.height))
    if scans > most:
        raise BadImageError(
            f"is a JPEG of {scans} scans; at most {most} are decoded for its "
            f"{image.width}x{image.height} pixels (WxH)"
        )
    return image


def _check_tags(data: bytes) -> None:
    """Refuse tags that would fill the memory when Pillow opens the file.

    Raises:
        BadImageError: If there are such tags.
    """
    if data.startswith(_JPEG) and (size := jpeg_exif_bytes(data)) > MAX_EXIF_BYTES:
        raise BadImageError(f"has {size} bytes of EXIF data; at most {MAX_EXIF_BYTES} are read")
    if data[:2] in (b"II", b"MM") and (size := tiff_value_bytes(data)) > 4 * len(data):
        raise BadImageError(f"has tags of {size} bytes in a file of {len(data)}; it is damaged")


def load_pixels(image: Image.Image) -> Image.Image:
    """Decode an image that ``open_header`` opened.

    Raises:
        BadImageError: If it is truncated or damaged.
    """
    try:
        image.load()
    except Exception as error:
        raise _undecodable(error) from error
    # PNG and WebP hold EXIF of any size, a PNG even behind its pixels.
    for key, most in (("exif", MAX_EXIF_BYTES), ("Raw profile type exif", 3 * MAX_EXIF_BYTES)):
        if len(image.info.get(key) or b"") > most:
            logging.getLogger(__name__).debug("ignored EXIF data of more than 64 KiB")
            del image.info[key]
    return image


def _decode(data: bytes) -> Image.Image:
    return load_pixels(open_header(data))


def _decode_flawless_jpeg(data: bytes, image: Image.Image) -> UInt8Array | None:
    """Decode a JPEG about which libjpeg has no complaint, or leave it to Pillow.

    In strict mode every warning is an error, so what is damaged gets Pillow's verdict.

    Args:
        data: The encoded file.
        image: Its header.

    Returns:
        uint8 ``(H, W, 3)``, Pillow's own pixels in less time; None without ``simplejpeg`` and for
        images that have to be turned or are not RGB or grey.
    """
    if simplejpeg is None or image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    if _orientation(image) != 1:
        return None
    try:
        pixels: UInt8Array = simplejpeg.decode_jpeg(data, strict=True)
    except Exception:
        return None
    return pixels if pixels.shape[:2] == (image.height, image.width) else None


def _undecodable(error: Exception) -> BadImageError:
    reason = " ".join(str(error).split(" <_io")[0].split()) or type(error).__name__
    return BadImageError(f"cannot be decoded ({reason})")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, where 1 is upright; damaged EXIF counts as none."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        logging.getLogger(__name__).debug("ignored damaged EXIF data")
        return 1
    return value if value in range(2, 9) else 1


def upright(image: Image.Image) -> Image.Image:
    """Turn the image as its EXIF orientation says; damaged EXIF counts as none."""
    if _orientation(image) == 1:
        return image  # exif_transpose would copy it
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:
        logging.getLogger(__name__).debug("ignored damaged EXIF data")
        return image
    return image if turned is None else turned


def _wide_to_uint8(image: Image.Image) -> UInt8Array:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion clips everything above 255 instead."""
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise BadImageError(f"holds {image.mode} values outside 0 .. 65535")
    return _EIGHT_BITS[values]  # arithmetic in 64 bits took 25 s for the largest image


def _has_alpha(image: Image.Image) -> bool:
    return image.getbands()[-1] == "A"  # LAB has an A that is colour


def over_white(image: Image.Image) -> Image.Image:
    """Lay an image with transparency over white; RGBA, opaque everywhere."""
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)


def _to_array(image: Image.Image, mode: str) -> UInt8Array:
    image = upright(image)
    if image.mode in _WIDE_MODES:
        grey = _wide_to_uint8(image)
        return grey if mode == "L" else np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise BadImageError("holds floating-point pixels; save it with 8 or 16 bits")
    try:
        if _has_alpha(image) or "transparency" in image.info:
            # Hidden pixels hold anything; what a viewer shows is the picture over white.
            image = over_white(image)
        return np.array(image if image.mode == mode else image.convert(mode))
    except (OSError, ValueError, MemoryError) as error:
        raise BadImageError(f"cannot be converted from mode {image.mode} ({error})") from error


def decode_image(data: bytes) -> UInt8Array:
    """Decode a photo, whatever its colour mode, to RGB as a viewer shows it.

    Grey becomes three equal channels, 16 bits are scaled to 8 (grey is rounded; of colour Pillow
    keeps the high byte, which differs by a level at most), CMYK and palettes are converted,
    transparency is laid over white, and the EXIF orientation is applied. Colour profiles are
    ignored, as in the paper's peers.

    Args:
        data: The encoded file, in one of ``IMAGE_FORMATS``.

    Returns:
        uint8 ``(H, W, 3)`` in 0 .. 255.

    Raises:
        BadImageError: If the bytes are truncated, damaged, of another format, or absurdly large.
    """
    image = open_header(data)
    pixels = _decode_flawless_jpeg(data, image)
    return _to_array(load_pixels(image), "RGB") if pixels is None else pixels


def decode_mask(data: bytes, convention: MaskConvention = "known-white") -> UInt8Array:
    """Decode a mask file.

    Args:
        data: The encoded file; colour is read as grey, and the threshold is half of full scale,
            or 1 where the file holds only zeros and ones.
        convention: What white means in the file.

    Returns:
        uint8 ``(H, W)``, 1 = known, 0 = hole.

    Raises:
        BadImageError: As ``decode_image``.
    """
    image = _decode(data)
    # A mask drawn by hand often carries an alpha channel; its colour is what counts.
    if _has_alpha(image):
        image = image.convert("RGB" if "R" in image.getbands() else "L")
    image.info.pop("transparency", None)
    grey = _to_array(image, "L")
    threshold = 1 if grey.size and grey.max() == 1 else 128
    known = grey >= threshold
    return (known if convention == "known-white" else ~known).astype(np.uint8)


def probe_image(data: bytes) -> tuple[str, tuple[int, int]]:
    """Decode an image fully, only to know that it can be done.

    Returns:
        The extension of its true format, such as ``"jpg"``, whatever the file was called, and its
        height and width, upright.

    Raises:
        BadImageError: As ``decode_image``.
    """
    image = _decode(data)
    height, width, _ = _to_array(image, "RGB").shape
    # Phones write JPEGs with several pictures, which Pillow opens as JPEG and calls MPO.
    return IMAGE_FORMATS.get(image.format or "", "jpg"), (height, width)
