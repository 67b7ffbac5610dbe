"""The model card that goes with weights: licences, protocol, scores, limits, a picture."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdm_lightning.errors import InputError
from sdm_lightning.inference.pictures import PictureLike, eight_bits, read_picture
from sdm_lightning.inference.weights import CHECKPOINT, WeightsInfo

TEMPLATE = Path(__file__).with_name("model_card.md")
SPDX = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
        "openrail", "gpl-3.0")  # fmt: skip
"""Licences that the hub knows by name; others are ``other`` with their text."""


@dataclass(frozen=True)
class Scores:
    """Scores of one evaluation.

    Attributes:
        protocol: Names data, number and masks.
        num_images: How many images stand behind them.
        values: By name, without the protocol.
    """

    protocol: str = ""
    num_images: int = 0
    values: Mapping[str, float] = field(default_factory=dict)


def read_scores(results: str | Path, info: WeightsInfo) -> Scores:
    """Read the last line of a ``results.jsonl``, which must be about the given weights.

    Args:
        results: What ``sdm test`` or ``sdm validate`` wrote.
        info: Description of the weights: scores of their checkpoint, and of the same average, are
            theirs.

    Raises:
        InputError: If the file is missing, its last line is no record of an evaluation, or scores
            other weights, or does not say which.
    """
    path = Path(results)
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        record = json.loads(lines[-1])
        protocol = str(record["protocol"])
        values = {
            str(name).removesuffix(f"/{protocol}"): float(value)
            for name, value in record["metrics"].items()
        }
        scores = Scores(protocol, int(record["num_images"]), values)
        scored = dict(record.get("checkpoint") or {})
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (IndexError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: its last line is no record of sdm test or validate") from error
    own, averaged = info.extra.get(CHECKPOINT), record.get("parameters")
    if scored.get("sha256") == info.sha256:
        own = info.sha256  # scored as weights, not as the checkpoint that they are from
    if own is None:
        raise InputError(
            f"{info.path}: does not say which checkpoint it was exported from, so that the scores "
            f"in {path} may be others'; export it again, or leave them out"
        )
    if scored.get("sha256") != own:
        raise InputError(
            f"{path}: its last line scores {scored.get('path', 'no checkpoint')}, not the "
            f"checkpoint of {info.path}; give a line of sdm test on that one"
        )
    if averaged != info.parameters:
        raise InputError(
            f"{path}: its last line scores the {averaged} weights, and those of {info.path} are "
            f"{info.parameters}; choose with --parameters"
        )
    return scores


def model_card(
    repository: str,
    info: WeightsInfo,
    num_parameters: int,
    num_iterations: int,
    scores: Scores,
) -> str:
    """Fill in the card.

    Args:
        repository: ``user/repo``.
        info: What the weights say of themselves.
        num_parameters: Number of the generator's parameters.
        num_iterations: T.
        scores: What they were measured to do.

    Returns:
        Markdown with the hub's metadata at its head.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    name = repository.rpartition("/")[2]
    known = info.licence.lower() in SPDX
    results = [
        EvalResult(
            task_type="image-to-image",
            task_name="Inpainting",
            dataset_type=scores.protocol,
            dataset_name=scores.protocol,
            metric_type=score,
            metric_value=value,
        )
        for score, value in scores.values.items()
        if math.isfinite(value)  # the hub reads no others
    ]
    data = ModelCardData(
        library_name="sdm-lightning",
        pipeline_tag="image-to-image",
        tags=["inpainting", "spatial-diffusion", "gan", "arxiv:2212.02963"],
        license=info.licence.lower() if known else "other",
        license_name=None if known else info.licence,
        model_name=name if results else None,
        eval_results=results or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        repository=repository,
        parameters=num_parameters,
        averaged="moving average" if info.parameters == "ema" else "not averaged",
        resolution=info.resolution,
        images_seen=info.images_seen,
        iterations=num_iterations,
        sha256=info.sha256,
        licence=info.licence,
        data=info.data,
        protocol=scores.protocol,
        num_images=scores.num_images,
        scores=[(score, f"{value:.4g}") for score, value in scores.values.items()],
    )
    return str(card)


def example_picture(inpainter: Any, image: PictureLike | None, mask: PictureLike | None) -> bytes:
    """Return a PNG of a photo with its hole, its filling and the uncertainty, side by side.

    Args:
        inpainter: An ``Inpainter``.
        image: Photo; None takes one of a cup of coffee that scikit-image carries.
        mask: Its mask, white = known; None takes a square in the middle.
    """
    if image is None:
        from skimage.data import coffee

        image = coffee()[72:328, 150:406]
    height, width = read_picture(image).shape
    if mask is None:
        known = np.full((height, width), 255, dtype=np.uint8)
        known[height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8] = 0
        mask = known
    result = inpainter(image, mask)
    filled = np.asarray(result.picture.to_pil(eight_bits(result.array)).convert("RGB"))
    hidden = np.where(result.mask[:, :, None], filled, np.uint8(128))
    unsure = np.asarray(result.uncertainty_image.convert("RGB"))
    buffer = BytesIO()
    Image.fromarray(np.concatenate([hidden, filled, unsure], axis=1)).save(buffer, format="PNG")
    return buffer.getvalue()
