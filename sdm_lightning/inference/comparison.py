"""A model and the classical methods on the same images and masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from sdm_lightning.features.extractors import FeatureExtractor
from sdm_lightning.inference.baselines import BASELINES
from sdm_lightning.inference.inpainter import Inpainter
from sdm_lightning.inference.results import InpaintingStep
from sdm_lightning.metrics.kid import MIN_IMAGES, kernel_distance
from sdm_lightning.metrics.paired import paired_scores

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
SCORES = ("psnr_hole", "l1_hole", "psnr", "ssim")
NUM_BINS = 10
ORIGINALS = ""  # no method has this name


@dataclass
class Comparison:
    """Mean scores per method, and how well the uncertainty predicts the error.

    Attributes:
        scores: Method -> score -> mean over images.
        error_by_uncertainty: Mean absolute error, on the scale [0, 1], of the hole pixels of each
            tenth, from the least uncertain to the most, ranked within each image.
        num_images: Images compared.
        hole_ratio: Mean share of missing pixels.
    """

    scores: dict[str, dict[str, float]]
    error_by_uncertainty: list[float]
    num_images: int
    hole_ratio: float


@dataclass
class _Sums:
    scores: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    bins: list[list[float]] = field(default_factory=lambda: [[] for _ in range(NUM_BINS)])
    holes: list[float] = field(default_factory=list)
    rows: dict[str, list[torch.Tensor]] = field(default_factory=dict)


def compare(
    inpainter: Inpainter,
    images: Sequence[Bytes],
    masks: Sequence[Bools],
    seeds: Sequence[int],
    iterations: Sequence[int],
    on_result: Callable[[int, list[InpaintingStep], dict[str, Bytes]], None] | None = None,
    features: FeatureExtractor | None = None,
) -> Comparison:
    """Score the model at several numbers of iterations, and the baselines.

    Args:
        inpainter: The model; it works at the images' own size.
        images: Originals, ``(H, W, 3)`` uint8.
        masks: ``(H, W)`` bool, True = known.
        seeds: One per image.
        iterations: Numbers of iterations; the last one's steps are handed out.
        on_result: Called with the index, the steps and each baseline's picture.
        features: Network for KID against the originals, named ``kid[<network>]``; None leaves it
            out, as do fewer than 4 images.
    """
    sums = _Sums()
    for index, (image, known, seed) in enumerate(zip(images, masks, seeds, strict=True)):
        steps: list[InpaintingStep] = []
        for count in iterations:
            result = inpainter(
                image, known, seed=seed, num_iterations=count, work_size=0, seams=False
            )
            steps = result.steps
            name = f"SDM, {count} iteration{'s' if count > 1 else ''}"
            _add(sums, name, result.array, image, known)
            _add_features(sums, name, result.array, features)
        filled = {name: fill(image, known) for name, fill in BASELINES.items()}
        for name, array in filled.items():
            _add(sums, name, array, image, known)
            _add_features(sums, name, array, features)
        _add_features(sums, ORIGINALS, image, features)
        if steps:
            _add_bins(sums, steps[0], image, known)
        sums.holes.append(1 - float(known.mean()))
        if on_result is not None:
            on_result(index, steps, filled)
    scores = {
        name: {score: _mean(values) for score, values in found.items()}
        for name, found in sums.scores.items()
    }
    if features is not None and len(sums.holes) >= MIN_IMAGES:
        originals = torch.cat(sums.rows.pop(ORIGINALS))
        for name, rows in sums.rows.items():
            distance, _ = kernel_distance(originals, torch.cat(rows))
            scores[name][f"kid[{features.label}]"] = distance
    return Comparison(
        scores,
        [_mean(values) for values in sums.bins],
        len(sums.holes),
        _mean(sums.holes),
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _tensor(array: Bytes) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None]


def _add_features(
    sums: _Sums, name: str, picture: Bytes, features: FeatureExtractor | None
) -> None:
    if features is not None:
        sums.rows.setdefault(name, []).append(features.extract(_tensor(picture)))


def _add(sums: _Sums, name: str, filled: Bytes, image: Bytes, known: Bools) -> None:
    mask = torch.from_numpy(known.astype(np.float32))[None, None]
    found = paired_scores(_tensor(filled), _tensor(image), mask)
    rows = sums.scores.setdefault(name, {score: [] for score in SCORES})
    for score in SCORES:
        value = float(found[score])
        if np.isfinite(value):  # an image without a hole has no score of it
            rows[score].append(value)


def _add_bins(sums: _Sums, step: InpaintingStep, image: Bytes, known: Bools) -> None:
    hole = ~known
    if hole.sum() < NUM_BINS:
        return
    difference = np.abs(step.array.astype(np.float64) - image).mean(axis=2)[hole] / 255
    order = np.argsort(step.uncertainty[hole], kind="stable")
    for values, part in zip(sums.bins, np.array_split(difference[order], NUM_BINS), strict=True):
        values.append(float(part.mean()))
