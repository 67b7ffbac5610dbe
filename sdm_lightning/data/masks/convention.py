"""What white means in a mask file."""

from typing import Literal, TypeAlias

MaskConvention: TypeAlias = Literal["known-white", "hole-white"]
"""White is kept (as in every file that this package writes, and in MAT's and CoModGAN's), or white
is the hole (LaMa's masks, painting tools)."""

MOSTLY_HOLE = 0.95
"""A single mask with more hole than this was probably read the wrong way round."""


def opposite_convention(convention: MaskConvention) -> MaskConvention:
    """Return the other convention."""
    return "hole-white" if convention == "known-white" else "known-white"
