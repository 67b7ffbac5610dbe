"""The scores by name: unit and direction, for tables, records and the choice of checkpoints."""

from typing import Literal, NamedTuple


class Score(NamedTuple):
    """How to read the values of a score."""

    better: Literal["lower", "higher"]
    unit: str = ""


SCORES = {
    "fid": Score("lower"),
    "kid": Score("lower", "x 1000"),
    "kid_deviation": Score("lower", "of one subset"),
    "feature_distance": Score("lower"),
    "p_ids": Score("higher", "%"),
    "u_ids": Score("higher", "%"),
    "lpips": Score("lower"),
    "psnr": Score("higher", "dB"),
    "psnr_hole": Score("higher", "dB"),
    "ssim": Score("higher"),
    "l1": Score("lower"),
    "l1_hole": Score("lower"),
    "precision": Score("higher"),
    "recall": Score("higher"),
    "uncertainty_error_correlation": Score("higher"),
}


def find_score(name: str) -> Score | None:
    """Find a score by the name under which it is logged or recorded; None if it is unknown.

    Args:
        name: Such as ``val/kid_quick[efficientnet-lite2]`` or ``fid/places36500-512-large``.
    """
    bases = (part.partition("[")[0].removesuffix("_quick") for part in name.split("/"))
    return next((SCORES[base] for base in bases if base in SCORES), None)
