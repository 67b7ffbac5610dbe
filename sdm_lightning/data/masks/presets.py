"""Free-form masks: rectangles, boxes and brush strokes, drawn from a seed.

A mask is ``uint8 (size, size)``, **1 = known, 0 = hole**. Two families are built in:

* ``RectanglesAndStrokes`` - the generator of CoModGAN and MAT, in which many rectangles and
  zigzag brush strokes lie over each other;
* ``StrokesOrBoxes`` - the generator of LaMa, in which a mask is either a bundle of straight
  strokes or a few boxes.

Both families give some lengths in pixels, so the share of an image that a preset removes would
depend on its size. Here a preset has a *nominal* size, and a mask of another size is the same
drawing scaled, with the same statistics.

Every random number is a function of ``(preset, seed)`` through PCG64, whose stream is the same on
every platform.

Source: the paper trains and tests on "rectangles and brush strokes" (Sec. 4.1); its own mask
parameters are not given.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.data.masks.families import MaskPreset, RectanglesAndStrokes, StrokesOrBoxes
from sdm_lightning.errors import InputError

_MAX_DRAWS = 10_000

# LaMa's configurations state a greatest number of strokes; its generator draws up to one more,
# which the numbers here include.
_LAMA_THICK_512 = StrokesOrBoxes(
    size=512, box_weight=0.3, strokes=(1, 6), max_length=450, max_width=250,
    boxes=(1, 4), box_sides=(30, 300), box_margin=10,
)  # fmt: skip
_LAMA_MEDIUM_512 = StrokesOrBoxes(
    size=512, box_weight=0.3, strokes=(4, 11), max_length=200, max_width=100,
    boxes=(1, 5), box_sides=(30, 150), box_margin=0,
)  # fmt: skip
_LAMA_THIN_512 = StrokesOrBoxes(
    size=512, box_weight=0.0, strokes=(4, 71), max_length=100, max_width=20
)

MASK_PRESETS: Mapping[str, MaskPreset] = MappingProxyType(
    {
        "mat512_large": RectanglesAndStrokes(
            size=512, small_rectangles=5, large_rectangles=3, strokes=9
        ),
        "mat512_small": RectanglesAndStrokes(
            size=512, small_rectangles=3, large_rectangles=2, strokes=4
        ),
        "mat256_large": RectanglesAndStrokes(
            size=256, small_rectangles=4, large_rectangles=2, strokes=8
        ),
        "mat256_small": RectanglesAndStrokes(
            size=256, small_rectangles=2, large_rectangles=2, strokes=3
        ),
        "comodgan512": RectanglesAndStrokes(
            size=512, small_rectangles=10, large_rectangles=5, strokes=20
        ),
        "comodgan256": RectanglesAndStrokes(
            size=256, small_rectangles=10, large_rectangles=5, strokes=20
        ),
        "lama_train": StrokesOrBoxes(
            size=256, box_weight=1.0, strokes=(1, 6), max_length=200, max_width=100,
            boxes=(1, 4), box_sides=(30, 150), box_margin=10,
        ),
        "lama_thick": StrokesOrBoxes(
            size=256, box_weight=0.3, strokes=(1, 6), max_length=200, max_width=100,
            boxes=(1, 3), box_sides=(30, 150), box_margin=10, variants=(_LAMA_THICK_512,),
        ),
        "lama_medium": StrokesOrBoxes(
            size=256, box_weight=0.3, strokes=(4, 6), max_length=100, max_width=50,
            boxes=(1, 5), box_sides=(10, 50), box_margin=0, variants=(_LAMA_MEDIUM_512,),
        ),
        "lama_thin": StrokesOrBoxes(
            size=256, box_weight=0.0, strokes=(4, 51), max_length=40, max_width=10,
            variants=(_LAMA_THIN_512,),
        ),
    }
)  # fmt: skip
"""The built-in presets by name; the numbers are the published settings of each family."""


def get_preset(name: str) -> MaskPreset:
    """Look a built-in preset up.

    Raises:
        InputError: If there is no preset of that name; the message names the nearest one.
    """
    if name in MASK_PRESETS:
        return MASK_PRESETS[name]
    near = difflib.get_close_matches(name, MASK_PRESETS, n=1, cutoff=0.0)[0]
    raise InputError(
        f"mask preset {name!r} is unknown; the nearest is {near!r} "
        f"(known: {', '.join(MASK_PRESETS)})"
    )


def free_form_mask(preset: str | MaskPreset, size: int, seed: int) -> UInt8Array:
    """Draw one mask; the same arguments give the same mask in any process.

    At another size than the preset's nominal one, the whole drawing is scaled, so that the
    hole-ratio statistics stay those of the preset: a smaller mask is the nominal one sampled down,
    a larger one is drawn with all lengths multiplied.

    Args:
        preset: Name in ``MASK_PRESETS``, or a custom preset.
        size: Side of the mask in pixels.
        seed: Any non-negative integer.

    Returns:
        uint8 ``(size, size)``, 1 = known, 0 = hole; never all of one kind.

    Raises:
        InputError: If the preset is unknown, size or seed is out of range, or the preset draws
            only hole, or none, at this size.
    """
    chosen = get_preset(preset) if isinstance(preset, str) else preset
    if size < 2:
        raise InputError(f"free_form_mask: size must be at least 2, got {size}")
    if seed < 0:
        raise InputError(f"free_form_mask: seed must not be negative, got {seed}")
    chosen = chosen.for_size(size)
    rng = np.random.Generator(np.random.PCG64(seed))
    side = max(size, chosen.size)
    scale = side / chosen.size
    # Centres of the `size` cells of the larger drawing: thin strokes keep their share of the area
    # that drawing at a few pixels' width would round away.
    cells = None if side == size else ((np.arange(size) + 0.5) * side / size).astype(np.intp)
    for _ in range(_MAX_DRAWS):
        mask = np.ones((side, side), np.uint8)
        chosen.draw(mask, scale, rng)
        if cells is not None:
            mask = mask[cells[:, None], cells]
        if 0 < hole_ratio(mask.view(np.bool_)) < 1:  # booleans are counted ten times as fast
            return mask
    raise InputError(
        f"free_form_mask: none of {_MAX_DRAWS} draws of size {size} had both hole and known "
        "pixels; choose another preset"
    )


def hole_ratio(mask: npt.NDArray[np.generic]) -> float:
    """Return the share of pixels that are hole, in [0, 1], of a mask with 1 = known."""
    return 1.0 - np.count_nonzero(mask) / mask.size
