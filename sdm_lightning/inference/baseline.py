"""The command ``sdm baseline``: other methods on a folder of pictures and masks."""

import shlex
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from sdm_lightning.arrays import BoolArray, UInt8Array
from sdm_lightning.data.masks.convention import MaskConvention
from sdm_lightning.data.named_images import NamedImages
from sdm_lightning.data.transforms import padded_center_crop
from sdm_lightning.errors import InputError
from sdm_lightning.files import atomic_file
from sdm_lightning.inference.methods import Method, load_method


def checked(method: Method, image: UInt8Array, known: BoolArray, name: str) -> UInt8Array:
    """Call a method on copies, check size and type of its result, and restore known pixels.

    Known pixels are put back: most networks change them a little, and the protocol compares
    composites.

    Raises:
        InputError: If the result is not an ``(H, W, 3)`` uint8 array of the picture's size.
    """
    result = np.asarray(method(image.copy(), known.copy()))
    if result.shape != image.shape or result.dtype != np.uint8:
        raise InputError(f"{name}: returned {result.dtype} {result.shape}, not uint8 {image.shape}")
    return np.where(known[:, :, None], image, result)


def run_baseline(
    method: str,
    images: str,
    masks: str,
    output: str,
    mask_convention: MaskConvention = "known-white",
    crop: int | None = None,
    overwrite: bool = False,
    device: str | None = None,
) -> None:
    """Fill the holes of a folder of pictures with another method, for comparison.

    The results are PNGs with the pictures' names, composited with the known pixels; the command
    that scores them is printed at the end.

    Args:
        method: One of mean, telea, navier-stokes; FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION,
            called with uint8 (H, W, 3) and bool (H, W), True = known; or a TorchScript file, fed as
            LaMa's is.
        images: Folder of pictures.
        masks: Folder of masks with the pictures' names.
        output: Folder for the results.
        mask_convention: What white means in them: known-white or hole-white.
        crop: Side of the central square that pictures, and masks of their size, are cut to, as by
            sdm evaluate --crop.
        overwrite: Replace results that exist.
        device: TorchScript: cpu (the default), cuda, ...

    Raises:
        InputError: If a folder, a mask or the method is missing or wrong.
    """
    if crop is not None and crop < 1:
        raise InputError(f"--crop must be at least 1, got {crop}")
    run = load_method(method, device)
    for folder in (images, masks):
        if Path(output).resolve() == Path(folder).resolve():
            raise InputError(f"{output}: is an input folder; name another")
    pictures, holes = NamedImages(images), NamedImages(masks)
    holes.require(list(pictures.entries), "mask")
    started, done = time.perf_counter(), 0
    for key, entry in tqdm(pictures.entries.items(), unit="img", disable=not sys.stderr.isatty()):
        target = (Path(output) / entry.name).with_suffix(".png")
        if target.exists() and not overwrite:
            continue
        image, mask = pictures.image(key), holes.mask(key, mask_convention)
        if crop is not None:
            if mask.shape == image.shape[:2]:
                mask = padded_center_crop(mask, crop)
            image = padded_center_crop(image, crop)
        if mask.shape != image.shape[:2]:
            sizes = [f"{shape[0]}x{shape[1]}" for shape in (mask.shape, image.shape)]
            larger = image.shape[0] > mask.shape[0] or image.shape[1] > mask.shape[1]
            hint = "--crop N cuts the pictures to squares"
            if not larger:
                hint = "draw masks with sdm masks --size N and give --crop N"
            if crop is not None:
                hint = f"draw masks with sdm masks --size {crop}"
            raise InputError(
                f"{holes.label(key)}: mask is {sizes[0]}, {pictures.label(key)} is {sizes[1]}"
                f"{', cut by --crop' if crop else ''} (HxW); {hint}"
            )
        with atomic_file(target) as file:
            name = f"{method}, {pictures.label(key)}"
            Image.fromarray(checked(run, image, mask.astype(bool), name)).save(file, format="PNG")
        done += 1
    seconds = time.perf_counter() - started
    total = len(pictures.entries)
    print(f"{output}: {done} of {total} pictures filled by {method} in {seconds:.1f} s")
    if done < total:
        kept = f"{total - done} already existed and were kept, even if another method made them"
        print(f"{kept}; --overwrite replaces them")
    words = ["sdm", "evaluate", images, output, "--masks", masks]
    if mask_convention != "known-white":
        words += ["--mask_convention", mask_convention]
    if crop is not None:
        words += ["--crop", str(crop)]
    print(f"score them: {shlex.join(words)}")
