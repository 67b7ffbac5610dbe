"""A model and the classical methods on the same images and masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sdm_lightning.arrays import BoolArray, UInt8Array
from sdm_lightning.evaluation.cache import RealFeatureCache
from sdm_lightning.evaluation.evaluator import Evaluator
from sdm_lightning.features.extractors import FeatureExtractor
from sdm_lightning.inference.inpainter import Inpainter
from sdm_lightning.inference.methods import BASELINES
from sdm_lightning.inference.results import InpaintingStep
from sdm_lightning.scores import metric_name

SCORES = ("psnr_hole", "l1_hole", "psnr", "ssim")
NUM_BINS = 10


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


def compare(
    inpainter: Inpainter,
    images: Sequence[UInt8Array],
    masks: Sequence[BoolArray],
    seeds: Sequence[int],
    iterations: Sequence[int],
    on_result: Callable[[int, list[InpaintingStep], dict[str, UInt8Array]], None],
    features: FeatureExtractor,
) -> Comparison:
    """Score the model at several numbers of iterations, and the baselines.

    Args:
        inpainter: The model; it works at the images' own size.
        images: Originals, ``(H, W, 3)`` uint8.
        masks: ``(H, W)`` bool, True = known.
        seeds: One per image.
        iterations: Numbers of iterations; the last one's steps are handed out.
        on_result: Called with the index, the steps and each baseline's picture.
        features: Network for KID against the originals, named ``kid[<network>]``; fewer than 4
            images leave it out.

    Raises:
        InputError: If there is no image.
    """
    models = {f"SDM, {count} iteration{'s' if count > 1 else ''}": count for count in iterations}
    cache = RealFeatureCache(None, {}, features.dim)
    evaluators = {
        method: Evaluator(features, ids=False, kid=True, precision_recall=False, cache=cache)
        for method in (*models, *BASELINES)
    }
    bins: list[list[float]] = [[] for _ in range(NUM_BINS)]
    for index, (image, known, seed) in enumerate(zip(images, masks, seeds, strict=True)):
        steps: list[InpaintingStep] = []
        filled = {name: fill(image, known) for name, fill in BASELINES.items()}
        completed = dict(filled)
        for name, count in models.items():
            result = inpainter(
                image, known, seed=seed, num_iterations=count, work_size=0, seams=False
            )
            steps, completed[name] = result.steps, result.array
        mask = torch.from_numpy(known.astype(np.float32))[None, None]
        for name, array in completed.items():
            evaluators[name].update(_tensor(array), _tensor(image), mask, [f"{index:08d}"])
        if steps:
            _add_bins(bins, steps[0], image, known)
        on_result(index, steps, filled)
    found = {name: evaluator.compute() for name, evaluator in evaluators.items()}
    shown = [*SCORES, metric_name("kid", features.label)]
    any_method = next(iter(found.values()))
    return Comparison(
        {
            name: {score: one.metrics[score] for score in shown if score in one.metrics}
            for name, one in found.items()
        },
        [float(np.mean(values)) if values else 0.0 for values in bins],
        any_method.num_images,
        any_method.metrics["hole_ratio"],
    )


def _tensor(array: UInt8Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None]


def _add_bins(
    bins: list[list[float]], step: InpaintingStep, image: UInt8Array, known: BoolArray
) -> None:
    hole = ~known
    if hole.sum() < NUM_BINS:
        return
    difference = np.abs(step.array.astype(np.float64) - image).mean(axis=2)[hole] / 255
    order = np.argsort(step.uncertainty[hole], kind="stable")
    for values, part in zip(bins, np.array_split(difference[order], NUM_BINS), strict=True):
        values.append(float(part.mean()))
