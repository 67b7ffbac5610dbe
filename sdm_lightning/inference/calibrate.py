"""The command ``sdm calibrate``: how certain a filling is, measured on held-out photos."""

import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from sdm_lightning.data.decode import BadImageError, decode_image
from sdm_lightning.data.masks.presets import free_form_mask
from sdm_lightning.data.sources import is_image_name
from sdm_lightning.data.windows import fixed_window, resized
from sdm_lightning.errors import InputError
from sdm_lightning.files import atomic_file, check_writable
from sdm_lightning.inference.certainty import (
    Calibration,
    HoleDeviations,
    calibration_file,
    write_calibration,
)
from sdm_lightning.inference.inpainter import Inpainter
from sdm_lightning.inference.locating import DEFAULT_WEIGHTS
from sdm_lightning.seeding import stable_seed
from sdm_lightning.shipped import ASSETS

FOLDS = 5
BAD_QUANTILE = 0.75
SMALLEST_HOLE = 16
MIN_PHOTOS = 10
DEFAULT_MASKS = ("mat256_small", "mat256_large")

Values = npt.NDArray[np.float64]


def calibrate(
    photos: str,
    weights: str = DEFAULT_WEIGHTS,
    masks: list[str] | None = None,
    windows: int = 8,
    output: str | None = None,
    figure: str | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Fit and score the certainty of fillings on held-out photos.

    Holes are drawn over the photos and filled; their errors are compared with the deviations that
    the network predicts. The result is written beside the weights, where sdm inpaint --json finds
    it. Scores are cross-validated: a photo is scored by what was fitted on other photos.

    Args:
        photos: Folder of photos that the weights were not trained on; each is cropped to its middle
            square and shrunk to the training crops. Smaller ones are left out. Files NAME-0.png,
            NAME-1.png, ... count as windows of one photo NAME.
        weights: Name of packaged weights, .safetensors file, .ckpt of sdm fit, or its run's folder.
        masks: Mask presets, taken in turn; may be given several times. Default: mat256_small and
            mat256_large.
        windows: Windows of each photo that are used, at most.
        output: File to write; default: WEIGHTS.certainty.json beside the weights. Required for
            packaged weights.
        figure: Also draw error against deviation, and the reliability of the certainty, as .png.
        seed: Seed of the masks and fillings.
        device: cpu, cuda, mps, or auto.
        overwrite: Replace an existing calibration.

    Raises:
        InputError: If the photos are too few or too alike, or an option cannot be used.
    """
    if not Path(photos).is_dir():
        raise InputError(f"{photos}: no such folder")
    files = sorted(path for path in Path(photos).iterdir() if is_image_name(path.name))
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(re.sub(r"-\d+$", "", path.stem), []).append(path)
    if len(groups) < MIN_PHOTOS:
        more = (
            f" ({len(files)} files: NAME-0, NAME-1, ... are windows of one photo; rename photos "
            "that are not)"
        )
        raise InputError(
            f"{photos}: holds {len(groups)} photos{more if len(files) > len(groups) else ''}; at "
            f"least {MIN_PHOTOS} are needed"
        )
    if windows < 1:
        raise InputError(f"windows is {windows}; it must be at least 1")
    inpainter = Inpainter.from_pretrained(weights, device)
    info = inpainter.info
    assert info is not None  # from_pretrained gives it
    if not output and info.path.resolve().parent == ASSETS:
        raise InputError(
            f"{weights}: belongs to the installed package; say with --output where to write, or "
            "calibrate a copy of the weights (sdm export)"
        )
    target = Path(output) if output else calibration_file(info.path)
    if target.exists() and not overwrite:
        raise InputError(f"{target}: exists already; --overwrite true replaces it")
    for place in (target, *([Path(figure)] if figure else [])):
        check_writable(place)  # now, and not after all the filling
    side = info.resolution or 256
    presets = masks or list(DEFAULT_MASKS)
    rows: list[tuple[int, float, float]] = []
    problems: list[str] = []
    for number, members in enumerate(tqdm(groups.values(), unit="photo", disable=None)):
        # Spread over the photo: neighbouring windows show much the same.
        count = min(windows, len(members))
        chosen = [members[turn * len(members) // count] for turn in range(count)]
        for turn, path in enumerate(chosen):
            key = stable_seed(seed, path.name)
            preset = presets[(number + turn) % len(presets)]
            known = free_form_mask(preset, side, key).astype(bool)
            try:
                rows += [(number, *row) for row in score_window(inpainter, path, known, seed)]
            except InputError as error:
                problems.append(str(error))
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    found = len({number for number, *_ in rows})
    if found < MIN_PHOTOS:
        raise InputError(
            f"{photos}: {found} photos could be used; at least {MIN_PHOTOS} are needed"
        )
    table = np.array(rows)
    calibration, probability = fit(table[:, 0], table[:, 1], table[:, 2], info.sha256)
    print(f"{calibration.num_holes} holes in {calibration.num_photos} photos")
    print(f"rank correlation of deviation and error (Spearman): {calibration.spearman:.3f}")
    print(f"bad: mean absolute error above {calibration.bad_error:.3f} (the worst quarter)")
    print(f"finding the bad ones (AUROC): {calibration.auroc:.3f}")
    print(f"calibration error: {calibration.calibration_error:.3f}")
    write_calibration(target, calibration)
    print(target)
    if figure:
        draw(Path(figure), table[:, 1], table[:, 2], probability, calibration)
        print(figure)


def score_window(
    inpainter: Inpainter, path: Path, known: npt.NDArray[np.bool_], seed: int
) -> list[tuple[float, float]]:
    """Return mean deviation and mean absolute error, of values in [0, 1], of each hole.

    Raises:
        InputError: If the photo cannot be read, or is smaller than the mask.
    """
    side = len(known)
    try:
        photo = decode_image(path.read_bytes())
    except (BadImageError, OSError) as error:
        raise InputError(f"{path}: {error}") from error
    height, width = photo.shape[:2]
    if min(height, width) < side:  # enlarged, it would lack the detail that is hard to fill
        raise InputError(f"{path}: has {width}x{height} pixels (WxH); each side needs {side}")
    truth = resized(fixed_window(photo, side, 0), side)
    deviations = HoleDeviations(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # large holes are meant
        result = inpainter(truth, known, seed=seed, keep_steps=False, on_step=deviations)
    errors = np.abs(result.array.astype(np.float64) - truth).mean(axis=2) / 255
    sums = np.bincount(deviations.labels.ravel(), errors.ravel())[1:]
    return [
        (float(deviation), float(total / pixels))
        for deviation, total, pixels in zip(
            deviations.means(0) if deviations.boxes else [], sums, deviations.pixels, strict=True
        )
        if pixels >= SMALLEST_HOLE
    ]


def fit(
    groups: Values, deviations: Values, errors: Values, weights_sha256: str
) -> tuple[Calibration, Values]:
    """Fit the probability of a bad filling, and score it on groups that were left out.

    Args:
        groups: Number of the photo of each hole.
        deviations: Mean predicted deviation of each hole.
        errors: Mean absolute error of each hole.
        weights_sha256: Hash of the weights file.

    Returns:
        The calibration, and the cross-validated probability of being bad for each hole.

    Raises:
        InputError: If the holes are too few or too alike to fit anything.
    """
    from scipy.stats import spearmanr
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import PredefinedSplit, cross_val_predict

    bad_error = float(np.quantile(errors, BAD_QUANTILE))
    bad = errors > bad_error
    logs = np.log(np.maximum(deviations, 1e-6))[:, None]
    folds = PredefinedSplit(groups.astype(int) % FOLDS)
    alike = len(np.unique(deviations)) < 2
    if alike or any(len(np.unique(bad[others])) < 2 for others, _ in folds.split()):
        raise InputError(f"{len(errors)} holes are too few or too alike to calibrate on")
    model = LogisticRegression(C=100).fit(logs, bad)
    probability = cross_val_predict(model, logs, bad, cv=folds, method="predict_proba")[:, 1]
    differences = [
        abs(predicted.mean() - found.mean()) for predicted, found in bins(probability, bad)
    ]
    calibration = Calibration(
        intercept=float(model.intercept_[0]),
        slope=float(model.coef_[0, 0]),
        bad_error=bad_error,
        weights_sha256=weights_sha256,
        num_photos=len(np.unique(groups)),
        num_holes=len(errors),
        spearman=float(spearmanr(deviations, errors)[0]),
        auroc=float(roc_auc_score(bad, probability)),
        calibration_error=float(np.mean(differences)),
    )
    return calibration, probability


def bins(probability: Values, bad: npt.NDArray[np.bool_]) -> Sequence[tuple[Values, Values]]:
    """Return probabilities and outcomes in ten bins of equal count, from the lowest."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, 10) if len(part)]
    return [(probability[part], bad[part].astype(np.float64)) for part in parts]


def draw(
    path: Path, deviations: Values, errors: Values, probability: Values, calibration: Calibration
) -> None:
    """Draw error against deviation, and how often fillings of a certainty were good."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    chart = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = chart.subplots(1, 2)
    left.loglog(deviations, np.maximum(errors, 1e-4), ".", ms=4, alpha=0.5)
    for axis in (left.xaxis, left.yaxis):
        axis.set_minor_locator(LogLocator(subs=(2, 5)))  # labels of all nine steps overlap
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
    left.axhline(calibration.bad_error, color="C3", lw=1, label="bad above this")
    left.set(
        xlabel="mean predicted deviation of a hole",
        ylabel="mean absolute error",
        title=f"Spearman {calibration.spearman:.2f}",
    )
    left.legend()
    pairs = bins(probability, errors > calibration.bad_error)
    right.plot([0, 1], [0, 1], color="0.7", lw=1)
    right.plot([1 - p.mean() for p, _ in pairs], [1 - b.mean() for _, b in pairs], "o-")
    right.set(
        xlabel="certainty", ylabel="share of good fillings",
        title=f"AUROC {calibration.auroc:.2f}, {calibration.num_holes} holes",
    )  # fmt: skip
    with atomic_file(path) as file:
        chart.savefig(file, format="png", dpi=110)
