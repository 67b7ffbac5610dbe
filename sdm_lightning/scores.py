"""The scores: how their names are built and read, and how their values are shown and compared.

``fid[random-conv]/places36500-512-large`` is a score, its labels (a stand-in for the network of the
paper, a small number of images) and the protocol of the evaluation. During training a stage comes
first and no protocol follows: ``val/fid_quick[random-conv]``.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

Better = Literal["lower", "higher"]


class Score(NamedTuple):
    """How to read the values of a score.

    Attributes:
        better: Which values are better.
        unit: Unit of the values, if they have one.
        digits: Decimals to show.
        heading: In the paper's tables; the score's name if empty.
        feature: Whether it compares sets by the features of a network, and so depends on their
            number of images.
    """

    better: Better
    unit: str = ""
    digits: int = 4
    heading: str = ""
    feature: bool = False


SCORES = {
    "fid": Score("lower", digits=3, heading="FID", feature=True),
    "kid": Score("lower", "x 1000", feature=True),
    "kid_deviation": Score("lower", "of one subset", feature=True),
    "feature_distance": Score("lower"),
    "p_ids": Score("higher", "%", digits=2, heading="P-IDS", feature=True),
    "u_ids": Score("higher", "%", digits=2, heading="U-IDS", feature=True),
    "lpips": Score("lower", digits=3, heading="LPIPS"),
    "psnr": Score("higher", "dB", digits=2),
    "psnr_hole": Score("higher", "dB", digits=2),
    "ssim": Score("higher"),
    "l1": Score("lower"),
    "l1_hole": Score("lower"),
    "precision": Score("higher", feature=True),
    "recall": Score("higher", feature=True),
    "uncertainty_error_correlation": Score("higher"),
}

_UNKNOWN = Score("higher")


def metric_name(name: str, *labels: str) -> str:
    """Join a score and its labels: ``fid`` and ``random-conv`` to ``fid[random-conv]``."""
    given = [label for label in labels if label]
    return f"{name}[{','.join(given)}]" if given else name


def protocol_name(name: str, protocol: str) -> str:
    """Join a score and its protocol: ``fid/places36500-512-large``."""
    return f"{name}/{protocol}"


def split_metric(name: str) -> tuple[str, str, str]:
    """Split ``fid[random-conv]/demo`` into ``fid``, ``random-conv`` and ``demo``."""
    match = re.fullmatch(r"([^\[/]+)(?:\[([^\]]*)\])?(?:/(.*))?", name)
    if match is None:
        return name, "", ""
    return match[1], match[2] or "", match[3] or ""


def quick_name(name: str) -> str:
    """Name a score of a validation during training.

    Feature scores depend on the number of images and on fixed masks, so the ones of a small
    validation set get another name than the protocol's: ``fid`` becomes ``fid_quick``.
    """
    base, label, _ = split_metric(name)
    return metric_name(f"{base}_quick", label) if SCORES.get(base, _UNKNOWN).feature else name


def find_score(name: str) -> Score | None:
    """Find a score by the name under which it is logged or recorded; None if it is unknown.

    Args:
        name: Such as ``val/kid_quick[efficientnet-lite2]`` or ``fid/places36500-512-large``.
    """
    bases = (part.partition("[")[0].removesuffix("_quick") for part in name.split("/"))
    return next((SCORES[base] for base in bases if base in SCORES), None)


def better_of(name: str, lines: Iterable[Mapping[str, Any]] = ()) -> str:
    """Return which values are better; of an unknown score as result lines say, else higher."""
    said = (line["better"][name] for line in lines if name in (line.get("better") or {}))
    score = find_score(name)
    return score.better if score is not None else str(next(said, _UNKNOWN.better))


def digits_of(name: str) -> int:
    """Return how many decimals of a score are shown."""
    return (find_score(name) or _UNKNOWN).digits
