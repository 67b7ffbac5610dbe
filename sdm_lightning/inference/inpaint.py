"""The command ``sdm inpaint``: picture files and folders of them."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from sdm_lightning.data.masks.convention import MaskConvention, opposite_convention
from sdm_lightning.errors import InputError
from sdm_lightning.files import check_writable, write_atomically
from sdm_lightning.inference.certainty import Calibration, HoleDeviations, read_calibration
from sdm_lightning.inference.holes import HoleSource, transparent
from sdm_lightning.inference.inpainter import Inpainter, check_options
from sdm_lightning.inference.jobs import (
    Extra,
    Job,
    extra_path,
    folder_jobs,
    left_out,
    refuse_clashes,
    single_job,
)
from sdm_lightning.inference.locating import DEFAULT_WEIGHTS
from sdm_lightning.inference.pictures import open_image
from sdm_lightning.inference.precision import Precision
from sdm_lightning.inference.results import Inpainting, InpaintingSample
from sdm_lightning.inference.weights import Parameters
from sdm_lightning.inference.writing import FLAT, LOSSY, encoded, side_by_side


def inpaint_files(
    image: str,
    mask: str = "",
    output: str | None = None,
    weights: str = DEFAULT_WEIGHTS,
    mask_convention: MaskConvention = "known-white",
    num_samples: int = 1,
    num_iterations: int | None = None,
    seed: int = 0,
    work_size: int | None = None,
    context: float = 0.5,
    detail: bool = True,
    seams: bool = True,
    steps: bool = False,
    uncertainty: bool = False,
    compare: bool = False,
    box: list[str] | None = None,
    mask_color: str = "",
    grow: int | None = None,
    json: bool = False,
    overwrite: bool = False,
    parameters: Parameters = "ema",
    device: str = "auto",
    precision: Precision = "32-true",
) -> None:
    """Fill the holes of a photo, or of a folder of photos.

    Known pixels stay exactly the same, colour profile and EXIF are kept, and photos may have any
    size. Masks are black and white: by default white is kept and black is filled; with
    --mask_convention hole-white it is the other way round. Folders are paired by file name without
    suffix; one mask file may serve a whole folder; subfolders are not searched. Instead of a mask
    file the photo's transparency can say what is filled; boxes, or a colour painted over the photo,
    alone or beside either.

    Args:
        image: Photo, or folder of photos.
        mask: Mask of the same size, or folder of masks; alpha: what is transparent in the photo is
            filled, and the result is opaque. May also be given without --mask, after the photo.
        output: File, or folder (ends in / or exists). Default: NAME-inpainted.png beside the photo,
            or the folder IMAGE-inpainted. Formats other than PNG and TIFF lose the exact bits.
        weights: Name of packaged weights, .safetensors file, .ckpt of sdm fit, or runs/NAME for its
            newest checkpoint.
        mask_convention: Meaning of white in mask files: known-white (kept) or hole-white (filled).
        num_samples: Different fillings per photo, saved as NAME-1, NAME-2, ...
        num_iterations: Number of iterations; default: the number stored with the weights.
        seed: The same seed gives the same filling.
        work_size: Longest side the network sees; larger surroundings of a hole are shrunk for it.
            Default: the size it was trained at; 0: always full resolution.
        context: Width of the context around each hole, as a multiple of the hole's side.
        detail: In photos larger than the network's input, transfer fine detail from the
            surroundings to the filling, which is blurred otherwise.
        seams: Blend fillings into their surroundings so that no colour step shows at the edge.
        steps: Also save the picture after each iteration, as NAME-step1.png, ...
        uncertainty: Also save the uncertainty map, as NAME-uncertainty.png.
        compare: Also save a picture with the photo beside the result, as NAME-compare.png.
        box: X,Y,W,H in pixels: fill this rectangle, of which X and Y may be negative; may be given
            several times.
        mask_color: Fill where this colour is painted over the photo, such as '#ff00ff'.
        grow: Also fill this many pixels around the hole. Default: 4 with --mask_color, since a
            soft brush and JPEG spread the colour, else 0; a mask cut along an object, as
            segmentation does, wants 2 or more.
        json: Print what was done as JSON, and nothing else, on the standard output.
        overwrite: Replace results that exist. Otherwise an existing result of a single photo is an
            error; in a folder, existing results are kept and missing ones are made.
        parameters: Weights of a .ckpt: the moving average (ema) or the raw ones.
        device: cpu, cuda, mps, or auto.
        precision: 32-true, bf16-mixed (about twice as fast for large networks on processors with
            bfloat16 arithmetic), or auto (bf16-mixed there, else 32-true).

    Raises:
        InputError: If an option, the weights or a photo cannot be used; of a folder, when all other
            photos are filled.
    """
    if not image:
        raise InputError("missing: image; give a photo, or a folder of photos (. for this one)")
    check_options(num_samples, num_iterations, seed, work_size, context)
    alpha = mask == "alpha"
    source = HoleSource(tuple(box or ()), mask_color, alpha, grow, mask_convention)
    if not mask and source.empty:
        raise InputError(
            "missing: mask; give a file, --mask alpha, --box X,Y,W,H or --mask_color '#rrggbb'"
        )
    mask_file = None if alpha or not mask else mask
    say = (lambda text: None) if json else print
    single = not Path(image).is_dir()
    problems: list[str] = []
    if not single and (others := left_out(Path(image))):
        print(f"left out: {others}", file=sys.stderr)
    wanted: dict[Extra, bool] = {"uncertainty": uncertainty, "step": steps, "compare": compare}
    extras = [kind for kind, asked in wanted.items() if asked]
    if single:
        job = single_job(image, mask_file, output)
        job.check_names(num_samples, extras)
        jobs = [job]
    else:
        jobs, problems = folder_jobs(image, mask_file, output)
        jobs, too_long = _with_short_names(jobs, num_samples, extras)
        problems += too_long
    total = len(jobs) + len(problems)
    waiting = _waiting(jobs, num_samples, extras, overwrite, single)
    skipped = len(jobs) - len(waiting)
    if skipped:
        say(f"{skipped} done already, skipped (--overwrite true redoes them)")
    for target in {job.output.parent: job.output for job in waiting}.values():
        check_writable(target)  # one in each folder, now and not after the work
    inpainter = Inpainter.from_pretrained(weights, device, parameters=parameters)
    calibration = read_calibration(inpainter.info)
    say(_describe_weights(inpainter))
    fill = partial(
        inpainter,
        num_samples=num_samples,
        num_iterations=num_iterations,
        seed=seed,
        work_size=work_size,
        context=context,
        detail=detail,
        seams=seams,
        precision=precision,
        keep_steps=steps,
    )
    start, records = time.perf_counter(), []
    # The bar shows photos done and the time left, on the standard error.
    bar = tqdm(waiting, unit="photo", disable=single or not sys.stderr.isatty())
    for job in bar:
        try:
            record = _fill_job(job, source, fill, calibration, extras, overwrite)
        except InputError as error:
            line = str(error)
            problems.append(line if str(job.image) in line else f"{job.image}: {line}")
            continue
        records.append(record)
        files = _files(record["samples"])
        if not json:
            filled = f"filled {record['hole_ratio']:.1%} of the picture"
            bar.write(f"{files[0]}: {filled}", file=sys.stdout)
        if single:
            for line in [*files[1:], *_notes(job, mask_convention)]:
                say(line)
    seconds = time.perf_counter() - start
    if not single:
        read = "" if mask_file is None else f", mask read as {mask_convention}"
        say(f"{len(records)} photos in {seconds:.1f} s{read}")
    if json:
        told = {
            "weights": _weights_record(inpainter),
            "photos": records,
            "skipped": skipped,
            "problems": problems,
            "seconds": round(seconds, 3),
        }
        print(dumps(told, indent=1, allow_nan=False))
    if problems and single:
        raise InputError(problems[0])
    if problems:
        for problem in problems:
            print(f"not filled: {problem}", file=sys.stderr)
        raise InputError(f"not filled: {len(problems)} of {total} photos")


def _with_short_names(
    jobs: Sequence[Job], num_samples: int, extras: Sequence[Extra]
) -> tuple[list[Job], list[str]]:
    """Return the jobs whose results can be named, and a line for each of the others."""
    kept, problems = [], []
    for job in jobs:
        try:
            job.check_names(num_samples, extras)
            kept.append(job)
        except InputError as error:
            problems.append(str(error))
    return kept, problems


def _waiting(
    jobs: Sequence[Job], num_samples: int, extras: Sequence[Extra], overwrite: bool, single: bool
) -> list[Job]:
    """Return the jobs of which a result is missing, or all to overwrite them.

    Raises:
        InputError: If an input would be replaced, or a result of a single photo exists.
    """
    targets = {job: job.targets(num_samples, extras) for job in jobs}
    refuse_clashes(jobs, [path for paths in targets.values() for path in paths])
    if overwrite:
        return list(jobs)
    existing = [path for path in targets[jobs[0]] if path.exists()] if single else []
    if existing:
        raise InputError(f"{existing[0]}: exists already; --overwrite true replaces it")
    return [job for job in jobs if not all(path.exists() for path in targets[job])]


def _fill_job(
    job: Job,
    source: HoleSource,
    fill: Callable[..., Inpainting],
    calibration: Calibration | None,
    extras: Sequence[Extra],
    overwrite: bool,
) -> dict[str, Any]:
    """Fill the holes of one photo and write the results; return what ``--json`` says of it."""
    began = time.perf_counter()
    with _warnings_in_one_line():
        picture, known = source.find(job.image, job.mask)
        deviations = HoleDeviations(known)
        result = fill(picture, known, on_step=deviations)
        suffix = job.output.suffix.lower()
        if suffix in FLAT and transparent(result.picture).any():
            warnings.warn(
                f"{job.output}: {suffix} has no transparency; laid over white", stacklevel=2
            )
    written = _write(job, result, extras, overwrite)
    for index, record in enumerate(written):
        record["holes"] = deviations.records(index, calibration)
    height, width = picture.shape
    return {
        "image": str(job.image),
        "mask": None if job.mask is None else str(job.mask),
        "width": width,
        "height": height,
        "hole_ratio": 1 - float(known.mean()),
        "samples": written,
        "seconds": round(time.perf_counter() - began, 3),
    }


def _notes(job: Job, mask_convention: MaskConvention) -> list[str]:
    """Return what is to be known about the result of a single photo."""
    notes = []
    if job.mask is not None:
        other = opposite_convention(mask_convention)
        notes.append(
            f"(mask read as {mask_convention}; use --mask_convention {other} for the opposite)"
        )
    if job.output.suffix.lower() in LOSSY:
        notes.append(f"note: {job.output.suffix} changes known pixels a little; .png keeps them")
    return notes


def _write(
    job: Job, result: Inpainting, extras: Sequence[Extra], overwrite: bool
) -> list[dict[str, Any]]:
    """Write everything requested; return what was written, sample by sample."""
    written = []
    for index, sample in enumerate(result.samples):
        path = job.sample_path(index, len(result.samples))
        record: dict[str, Any] = {"file": str(path), "seed": sample.seed}
        if overwrite or not path.exists():
            sample.save(path)
        elif not np.array_equal(np.asarray(open_image(path)), np.asarray(sample.image)):
            raise InputError(
                f"{path}: exists, made with other settings; --overwrite true replaces it"
            )
        for kind in extras:
            for number, image in enumerate(_extra_images(sample, kind), start=1):
                target = extra_path(path, kind, number)
                if overwrite or not target.exists():
                    write_atomically(target, encoded(image, ".png"))
                record.setdefault(kind, []).append(str(target))
        written.append(record)
    return written


def _extra_images(sample: InpaintingSample, kind: Extra) -> list[Image.Image]:
    if kind == "uncertainty":
        return [sample.uncertainty_image]
    return [step.image for step in sample.steps] if kind == "step" else [side_by_side(sample)]


def _files(written: list[dict[str, Any]]) -> list[str]:
    """List every file of ``_write``'s records in the order in which they were written."""
    found: list[str] = []
    for record in written:
        for kind in ("file", "uncertainty", "step", "compare"):
            value = record.get(kind, [])
            found += [value] if isinstance(value, str) else value
    return found


def _describe_weights(inpainter: Inpainter) -> str:
    info = inpainter.info
    assert info is not None  # from_pretrained gives it
    seen = f", {info.images_seen:,} images seen" if info.images_seen else ""
    size = f", trained at {info.resolution} pixels" if info.resolution else ""
    return f"weights {info.path.name} ({info.parameters}{seen}{size}) on {inpainter.device}"


def _weights_record(inpainter: Inpainter) -> dict[str, Any]:
    info = inpainter.info
    assert info is not None  # from_pretrained gives it
    return {
        "file": str(info.path),
        "sha256": info.sha256,
        "parameters": info.parameters,
        "images_seen": info.images_seen,
        "resolution": info.resolution,
        "device": str(inpainter.device),
    }


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print our own warnings without Python's file and line number."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        # The hole was found before; a warning about a mask file has been given by then.
        warnings.filterwarnings("ignore", "the mask array")
        yield
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
