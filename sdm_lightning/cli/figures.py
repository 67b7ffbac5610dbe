"""The command ``sdm figure``: the paper's figures with your models.

Models are run here, through ``Inpainter``; the drawing is in ``sdm_lightning.reports.figures``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from sdm_lightning.arrays import UInt8Array
from sdm_lightning.data.named_images import NamedImages
from sdm_lightning.data.transforms import padded_center_crop
from sdm_lightning.errors import InputError
from sdm_lightning.reports.figures import (
    iteration_curves,
    panels,
    row_dots,
    save_figure,
    schedule_curves,
)
from sdm_lightning.reports.results import metric_values, metrics_of
from sdm_lightning.reports.tables import described, read_table

FigureName = Literal["fig2", "fig3", "fig5", "fig6", "fig7", "fig8", "table1", "table2", "table4"]


GREY = 200
"""What a hole looks like in an input."""


@dataclass(frozen=True)
class Example:
    """A picture and its hole.

    Attributes:
        name: Shown beside the row.
        image: ``(H, W, 3)`` uint8.
        known: ``(H, W)`` bool, True = known.
    """

    name: str
    image: UInt8Array
    known: npt.NDArray[np.bool_]

    @property
    def input(self) -> UInt8Array:
        """The picture with a grey hole."""
        return np.where(self.known[:, :, None], self.image, np.uint8(GREY))


def draw_figure(
    name: FigureName,
    weights: dict[str, str] | str | None = None,
    images: str | None = None,
    masks: str | None = None,
    methods: dict[str, str] | None = None,
    output: str = "figures",
    num_images: int = 3,
    num_iterations: int | None = None,
    num_samples: int = 3,
    seed: int = 0,
    results: list[str] | None = None,
    scale: str | None = None,
    metrics: list[str] | None = None,
    where: dict[str, Any] | None = None,
) -> None:
    """Draw a figure of the paper with your models, as PNG and PDF.

    fig2 shows results after each iteration; fig3 mean, uncertainty and mask of each iteration;
    fig5 several models side by side (ablation); fig6 (and E.1) several samples of one model;
    fig7 the mask schedules; fig8 results of several methods from folders; table2 the curve over
    testing iterations and table1 and table4 their rows with a dot for each run, from result lines.

    Args:
        name: fig2, fig3, fig5, fig6, fig7, fig8, table1, table2 or table4.
        weights: Packaged weights by name, a .safetensors file or a .ckpt; for fig5 label -> file,
            such as '{"F (- UGA)": "runs/f.ckpt", "A (full)": "runs/a.ckpt"}'.
        images: Folder of pictures, all of one size; default: windows of held-out photos.
        masks: Folder of masks with the pictures' names, white = known; needed with images. Larger
            pictures are cut to square masks, as by sdm evaluate --crop.
        methods: For fig8: label -> folder of results with the pictures' names.
        output: Folder for NAME.png and NAME.pdf.
        num_images: Rows.
        num_iterations: Iterations; default: the weights' own.
        num_samples: Samples of fig6.
        seed: Seed of the noise and latent codes; samples take seed, seed + 1, ...
        results: For tables: JSON-lines files or folders; as for sdm table.
        scale: For tables: only runs of this scale.
        metrics: For tables: the metrics to draw; default: FID and PSNR in the hole.
        where: For tables: only runs with these values, such as '{"images_seen": 16384}'.

    Raises:
        InputError: If what a figure needs is missing.
    """
    for key, value in (("num_images", num_images), ("num_samples", num_samples)):
        if value < 1:
            raise InputError(f"{key} is {value}; it must be at least 1")
    if name == "fig7":
        figure = _schedules()
    elif name in ("table1", "table2", "table4"):
        figure = _table(name, results, scale, metrics, where)
    elif name == "fig8":
        figure = _side_by_side(images, masks, methods, num_images)
    else:
        models = _models(name, weights)
        size = next(iter(models.values())).work_size or 256
        examples = read_examples(images, masks, num_images, size)
        draw = {"fig2": _iterations, "fig3": _process, "fig5": _ablation, "fig6": _samples}[name]
        figure = draw(models, examples, num_iterations, seed, num_samples)
    for path in save_figure(figure, Path(output) / name):
        print(path)


# ------------------------------------------------------------------ what is drawn


def _iterations(
    models: dict[str, Any], examples: Sequence[Example], total: int | None, seed: int, _: int
) -> Any:
    label, model = next(iter(models.items()))
    results = [_fill(model, e, total, seed, keep_steps=True) for e in examples]
    count = len(results[0].steps)
    rows = [
        [e.input, *(step.array for step in result.steps), e.image]
        for e, result in zip(examples, results, strict=True)
    ]
    titles = ["input", *(f"iteration {t}" for t in range(1, count + 1)), "original"]
    return panels(rows, titles, caption=f"As Fig. 2. Model: {label}. {_about(examples)}")


def _process(
    models: dict[str, Any], examples: Sequence[Example], total: int | None, seed: int, _: int
) -> Any:
    label, model = next(iter(models.items()))
    example = examples[0]
    steps = _fill(model, example, total, seed, keep_steps=True).steps
    rows: list[list[Any]] = [
        [example.input, *(step.array for step in steps)],
        [(~example.known).astype(np.float32), *(step.uncertainty for step in steps)],
        [example.known, *(step.mask for step in steps)],
    ]
    titles = ["t = 0", *(f"t = {t}" for t in range(1, len(steps) + 1))]
    caption = (
        f"As Fig. 3: the picture with the mean of each iteration, its uncertainty scaled to [0, 1] "
        f"(bright = uncertain), and the mask after picking (white = known). Model: {label}."
    )
    return panels(rows, titles, ["mean", "uncertainty", "mask"], caption)


def _ablation(
    models: dict[str, Any], examples: Sequence[Example], total: int | None, seed: int, _: int
) -> Any:
    columns = [
        [_fill(model, example, total, seed).array for example in examples]
        for model in models.values()
    ]
    rows = [
        [example.input, *(column[k] for column in columns), example.image]
        for k, example in enumerate(examples)
    ]
    return panels(rows, ["input", *models, "original"], caption=f"As Fig. 5. {_about(examples)}")


def _samples(
    models: dict[str, Any], examples: Sequence[Example], total: int | None, seed: int, count: int
) -> Any:
    label, model = next(iter(models.items()))
    rows = []
    for example in examples:
        found = [_fill(model, example, total, seed + k).array for k in range(count)]
        spread = np.stack(found).astype(np.float32).std(axis=0).mean(axis=2)
        # 16 of 255 levels is full brightness: the differences are small, in the paper too.
        rows.append([example.input, *found, np.clip(spread / 16, 0, 1), example.image])
    titles = ["input", *(f"sample {k + 1}" for k in range(count)), "deviation", "original"]
    caption = (
        f"As Fig. 6 and E.1. Model: {label}. Deviation over the samples: bright = 16 of 255 levels "
        f"or more. {_about(examples)}"
    )
    return panels(rows, titles, caption=caption)


def _schedules() -> Any:
    from sdm_lightning.diffusion import (
        CosineSchedule,
        CubicSchedule,
        SquareRootSchedule,
        UniformSchedule,
    )

    progress = np.linspace(0, 1, 201)
    schedules = {
        "square root": SquareRootSchedule(),
        "linear": UniformSchedule(),
        "cosine": CosineSchedule(),
        "cubic": CubicSchedule(),
    }
    curves = {
        name: np.array([schedule(float(p)) for p in progress])
        for name, schedule in schedules.items()
    }
    return schedule_curves(curves, progress)


def _table(
    name: str,
    results: list[str] | None,
    scale: str | None,
    metrics: list[str] | None,
    where: dict[str, Any] | None,
) -> Any:
    table, lines, notes = read_table(name, scale, results, metrics, where)
    chosen = metrics or [m for m in metrics_of(lines) if m.startswith("fid") or m == "psnr_hole"]
    shown = "mean and sample standard deviation" if name == "table2" else "each run, and means"
    about = ""
    if lines:
        about = (
            f"{described(lines)} ({shown}). Square brackets name a stand-in for the paper's FID."
        )
        values = [metric_values(line).get(metric, 0.0) for line in lines for metric in chosen]
        if left_out := sum(not np.isfinite(value) for value in values):
            about += f" Not finite and left out: {left_out} value(s)."
    draw = iteration_curves if name == "table2" else row_dots
    return draw(table, lines, chosen, " ".join(filter(None, [about, *notes])))


def _side_by_side(
    images: str | None, masks: str | None, methods: dict[str, str] | None, count: int
) -> Any:
    if not methods or images is None or masks is None:
        raise InputError('fig8 needs images, masks and methods, such as \'{"MAT": "out/mat"}\'')
    examples = read_examples(images, masks, count, 0)
    rows = [[example.input, example.image] for example in examples]
    for folder in methods.values():
        results = NamedImages(folder)
        results.require([example.name for example in examples], "result")
        for row, example in zip(rows, examples, strict=True):
            result = results.image(example.name)
            if result.shape != example.image.shape:
                raise InputError(
                    f"{results.label(example.name)}: {result.shape[1]}x{result.shape[0]} pixels, "
                    f"but the original has {example.image.shape[1]}x{example.image.shape[0]}"
                )
            row.append(result)
    caption = f"As Fig. 8: the same masks for all. {_about(examples)}"
    return panels(rows, ["input", "original", *methods], caption=caption)


# ------------------------------------------------------------------ models and pictures


def _models(name: str, weights: dict[str, str] | str | None) -> dict[str, Any]:
    from sdm_lightning.inference import Inpainter
    from sdm_lightning.inference.locating import DEFAULT_WEIGHTS

    if weights is None:
        weights = DEFAULT_WEIGHTS
    if isinstance(weights, str):
        weights = {Path(weights).stem: weights}
    if name == "fig5" and len(weights) < 2:
        raise InputError('fig5 compares models: give weights as \'{"D": "d.ckpt", "A": "a.ckpt"}\'')
    if name != "fig5" and len(weights) > 1:
        raise InputError(
            f"{name} shows one model, weights name {len(weights)}; fig5 compares several"
        )
    return {label: Inpainter.from_pretrained(place, "auto") for label, place in weights.items()}


def _fill(
    model: Any, example: Example, total: int | None, seed: int, keep_steps: bool = False
) -> Any:
    mask = np.where(example.known, 255, 0).astype(np.uint8)
    return model(
        example.image, mask, num_iterations=total, seed=seed, work_size=0, keep_steps=keep_steps
    )


def read_examples(images: str | None, masks: str | None, count: int, size: int) -> list[Example]:
    """Read pictures with masks from two folders, or cut windows out of held-out photos.

    Args:
        images: Folder of pictures; None takes the photos inside scikit-image and scikit-learn that
            the demo holds out.
        masks: Folder of masks with the same names, white = known; larger pictures are cut to square
            ones, as by ``sdm evaluate --crop``.
        count: Most examples.
        size: Side of the photos' windows, pixels.

    Raises:
        InputError: If a folder is missing or holds no picture, or a picture has no mask.
    """
    if images is None:
        return _photo_examples(count, size)
    if masks is None:
        raise InputError("masks is missing: a folder of masks named as the images, white = known")
    pictures, holes = NamedImages(images), NamedImages(masks)
    keys = list(pictures.entries)[:count]
    holes.require(keys, "mask")
    examples = []
    for key in keys:
        image, known = pictures.image(key), holes.mask(key).astype(bool)
        side = known.shape[0]
        if known.shape == (side, side) and max(image.shape[:2]) > side:
            image = padded_center_crop(image, side)  # as for its scores
        if known.shape != image.shape[:2]:
            raise InputError(f"{holes.label(key)}: its size is not that of {pictures.label(key)}")
        examples.append(Example(key, image, known))
    return examples


def _photo_examples(count: int, size: int) -> list[Example]:
    from sdm_lightning.data.masks.presets import free_form_mask
    from sdm_lightning.demo.photos import test_photos

    examples = []
    for index, (name, photo) in enumerate(list(test_photos().items())[:count]):
        side = min(photo.shape[:2])
        top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
        square = photo[top : top + side, left : left + side]
        image = np.asarray(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA))
        known = free_form_mask("mat256_large", size, 11 + index).astype(bool)
        examples.append(Example(name, image.astype(np.uint8), known))
    return examples


def _about(examples: Sequence[Example]) -> str:
    height, width = examples[0].image.shape[:2]
    return f"Pictures: {', '.join(e.name for e in examples)}, {width}x{height}."
