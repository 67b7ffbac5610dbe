"""How certain a filling is: one number for each hole, and what it has been worth so far.

The network predicts a standard deviation for every pixel. Its mean over a hole, in the first
iteration, ranks fillings by their error; a logistic function, fitted on held-out photos
(``sdm calibrate``), turns it into a probability.
"""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sdm_lightning.arrays import BoolArray
from sdm_lightning.errors import InputError, parse_json
from sdm_lightning.files import write_atomically
from sdm_lightning.inference.regions import enlarge
from sdm_lightning.inference.results import RegionStep
from sdm_lightning.inference.weights import WeightsInfo


@dataclass(frozen=True)
class Calibration:
    """The fitted function from a hole's mean deviation to the probability of a bad filling.

    Attributes:
        intercept: Intercept of the logistic function of the deviation's natural logarithm.
        slope: Slope of the same function.
        bad_error: Mean absolute error in a hole, of values in [0, 1], above which a filling counts
            as bad: that of the worst quarter of the holes it was fitted on.
        weights_sha256: Hash of the weights file.
        num_photos: Photos it was fitted on.
        num_holes: Holes in them.
        spearman: Rank correlation of deviation and error.
        auroc: Area under the ROC curve for finding bad fillings, cross-validated.
        calibration_error: Mean difference between the predicted probability and the share found,
            over ten bins of equal count, cross-validated.
    """

    intercept: float
    slope: float
    bad_error: float
    weights_sha256: str
    num_photos: int
    num_holes: int
    spearman: float
    auroc: float
    calibration_error: float

    def __post_init__(self) -> None:
        """Refuse values of other types, which files from outside may hold.

        Raises:
            InputError: If one is no finite number, or the hash no text.
        """
        for name, value in vars(self).items():
            if name == "weights_sha256":
                usable = isinstance(value, str)
            else:
                usable = type(value) in (int, float) and abs(value) <= sys.float_info.max
            if not usable:
                raise InputError(f"{name} is {value!r:.40}")

    def certainty(self, deviation: float) -> float:
        """Return the probability, in [0, 1], that a filling is not a bad one.

        Args:
            deviation: Mean over the hole; see ``HoleDeviations``.
        """
        logit = self.intercept + self.slope * float(np.log(max(deviation, 1e-6)))
        return float(1 / (1 + np.exp(np.clip(logit, -50, 50))))


def calibration_file(weights: Path) -> Path:
    """Return where the calibration of a weights file lies: ``demo.safetensors.certainty.json``."""
    return weights.with_name(weights.name + ".certainty.json")


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration as JSON."""
    write_atomically(path, json.dumps(asdict(calibration), indent=1) + "\n")


def read_calibration(info: WeightsInfo | None) -> Calibration | None:
    """Read what ``sdm calibrate`` wrote beside a weights file, or what a copy carries inside.

    Returns:
        None if there is none, or if it was made for other weights, such as the average of a
        checkpoint whose raw ones these are.

    Raises:
        InputError: If it is damaged; the message names the file that holds it.
    """
    if info is None or (info.parameters == "raw" and info.path.suffix == ".ckpt"):
        return None
    path = calibration_file(info.path)
    source = str(path)
    try:
        if path.is_file():
            beside = Calibration(**parse_json(path.read_bytes()))
            if beside.weights_sha256 == info.sha256:
                return beside
        source = f"{info.path}: the calibration inside"
        inside = info.extra.get("calibration")
        return None if inside is None else Calibration(**inside)
    except (ValueError, TypeError) as error:
        raise InputError(f"{source}: not written by sdm calibrate: {error}") from error


def with_calibration(info: WeightsInfo) -> WeightsInfo:
    """Return a description that holds the calibration, so that a copy of the weights keeps it."""
    found = read_calibration(info)
    if found is None:
        return info
    return replace(info, extra={**info.extra, "calibration": asdict(found)})


class HoleDeviations:
    """Collects the mean predicted deviation of each hole while a picture is being filled.

    An instance is given as ``on_step`` to ``Inpainter``. A hole is a connected set of missing
    pixels, diagonal neighbours included. Deviations are standard deviations of a colour in units of
    the range [-1, 1], of the first iteration, when the whole hole is unknown.

    Args:
        known: ``(H, W)``.
    """

    def __init__(self, known: BoolArray) -> None:
        hole = (~known).astype(np.uint8)
        _, self.labels, stats, _ = cv2.connectedComponentsWithStats(hole, connectivity=8)
        self.boxes = [tuple(map(int, row[:4])) for row in stats[1:]]
        self.pixels = stats[1:, 4]
        self.sums: dict[int, np.ndarray] = {}

    def __call__(self, step: RegionStep) -> None:
        """Take over the first iteration in a cut-out."""
        if step.iteration > 1:
            return
        box, target = step.region.box, step.region.target
        labels = self.labels[box.slices][target]
        values = enlarge(step.deviation, box.height, box.width)[target].clip(0)
        found = np.bincount(labels, values, minlength=len(self.boxes) + 1)[1:]
        self.sums[step.sample] = self.sums.get(step.sample, np.zeros(len(found))) + found

    def means(self, sample: int) -> np.ndarray:
        """Return the mean deviation of every hole, in the order of ``boxes``."""
        return np.asarray(self.sums[sample] / self.pixels) if self.boxes else np.zeros(0)

    def records(self, sample: int, calibration: Calibration | None) -> list[dict[str, Any]]:
        """Return each hole for JSON, the least certain first.

        Keys: ``box`` (left, top, width, height), ``pixels``, ``deviation``, and ``certainty`` in
        [0, 1], None without a calibration.
        """
        records = []
        for box, pixels, deviation in zip(self.boxes, self.pixels, self.means(sample), strict=True):
            certain = None if calibration is None else calibration.certainty(float(deviation))
            records.append(
                {
                    "box": list(box),
                    "pixels": int(pixels),
                    "deviation": round(float(deviation), 5),
                    "certainty": None if certain is None else round(certain, 4),
                }
            )
        return sorted(records, key=lambda record: -record["deviation"])
