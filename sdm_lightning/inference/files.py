"""The verb ``sdm inpaint``: picture files and folders of them."""

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from sdm_lightning.data.masks.convention import MaskConvention, opposite_convention
from sdm_lightning.errors import InputError
from sdm_lightning.files import write_atomically
from sdm_lightning.inference.inpainter import Inpainter
from sdm_lightning.inference.results import Inpainting, InpaintingSample

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
LOSSY = (".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Job:
    """One picture to fill: where it is, its mask, and where the result goes."""

    image: Path
    mask: Path
    output: Path


def inpaint_files(
    image: str,
    mask: str,
    output: str | None = None,
    weights: str = "demo",
    mask_convention: MaskConvention = "known-white",
    num_samples: int = 1,
    num_iterations: int | None = None,
    seed: int = 0,
    work_size: int | None = None,
    context: float = 0.5,
    detail: bool = True,
    seams: bool = True,
    feather: float = 0.0,
    steps: bool = False,
    uncertainty: bool = False,
    overwrite: bool = False,
    parameters: Literal["ema", "raw"] = "ema",
    device: str = "auto",
) -> None:
    """Fill the holes of a photo, or of a folder of photos.

    Known pixels stay exactly the same, colour profile and EXIF are kept, and photos may have any
    size. Masks are black and white: by default white is kept and black is filled; with
    --mask_convention hole-white it is the other way round. Folders are paired by file name without
    suffix; one mask file may serve a whole folder.

    Args:
        image: Photo, or folder of photos.
        mask: Mask of the same size, or folder of masks.
        output: File, or folder (ends in / or exists). Default: NAME-inpainted.png beside the photo,
            or the folder IMAGE-inpainted. Formats other than PNG and TIFF lose the exact bits.
        weights: Name of bundled weights, .safetensors file, .ckpt of sdm fit, or runs/NAME for its
            newest checkpoint.
        mask_convention: Known-white (white is kept) or hole-white (white is filled).
        num_samples: Different fillings per photo, saved as NAME-1, NAME-2, ...
        num_iterations: Iterations; default: as the weights were made for.
        seed: The same seed gives the same filling.
        work_size: Longest side the network sees; larger surroundings of a hole are shrunk for it.
            Default: the size it was trained at; 0: always full resolution.
        context: Surroundings taken along with each hole, in sides of the hole.
        detail: Large holes, which the network fills at a smaller size, take fine detail from their
            surroundings; without it they are blurred.
        seams: Let a filling meet the pixels around it without a step in colour.
        feather: Instead of that, pixels inside the hole over which the step fades out.
        steps: Also save the picture after each iteration, as NAME-step1.png, ...
        uncertainty: Also save the uncertainty map, as NAME-uncertainty.png.
        overwrite: Replace results that exist. Without it, a single one is refused and those of a
            folder are skipped.
        parameters: Of a .ckpt: the moving average (ema) or the raw weights.
        device: Cpu, cuda, mps, or auto.
    """
    single = not Path(image).is_dir()
    problems: list[str] = []
    if single:
        jobs = [_single_job(image, mask, output)]
    else:
        jobs, problems = _folder_jobs(image, mask, output)
    waiting = [job for job in jobs if overwrite or not _existing(job, num_samples)]
    if single and not waiting:
        raise InputError(f"{jobs[0].output}: exists already; --overwrite true replaces it")
    if len(jobs) > len(waiting):
        print(f"{len(jobs) - len(waiting)} done already, skipped (--overwrite true redoes them)")
    inpainter = Inpainter.from_pretrained(weights, device, parameters=parameters)
    _say_weights(inpainter)
    start, done = time.perf_counter(), 0
    bar = tqdm(waiting, unit="photo", disable=single or not sys.stderr.isatty())
    for job in bar:
        try:
            with _warnings_in_one_line():
                result = inpainter(
                    job.image,
                    job.mask,
                    mask_convention=mask_convention,
                    num_samples=num_samples,
                    num_iterations=num_iterations,
                    seed=seed,
                    work_size=work_size,
                    context=context,
                    detail=detail,
                    seams=seams,
                    feather=feather,
                    keep_steps=steps,
                )
            written = _write(job, result, steps, uncertainty)
        except InputError as error:
            if single:
                raise
            problems.append(str(error))
            continue
        done += 1
        hole = 1 - float(result.mask.mean())
        other = opposite_convention(mask_convention)
        bar.write(f"{written[0]}: filled {hole:.1%} of the picture", file=sys.stdout)
        if single:
            for path in written[1:]:
                print(path)
            print(f"(mask read as {mask_convention}; --mask_convention {other} turns it round)")
            if job.output.suffix.lower() in LOSSY:
                print(f"note: {job.output.suffix} changes known pixels a little; .png keeps them")
    if not single:
        seconds = time.perf_counter() - start
        print(f"{done} photos in {seconds:.1f} s, mask read as {mask_convention}")
    if problems:
        shown = "\n  ".join(problems)
        raise InputError(f"{len(problems)} photos were not filled:\n  {shown}")


def _single_job(image: str, mask: str, output: str | None) -> Job:
    source, mask_path = Path(image), Path(mask)
    for path in (source, mask_path):
        if not path.is_file():
            what = "is a folder, but the other is a file" if path.is_dir() else "no such file"
            raise InputError(f"{path}: {what}")
    name = f"{source.stem}-inpainted.png"
    if output is None:
        target = source.with_name(name)
    elif output.endswith("/") or Path(output).is_dir():
        target = Path(output) / name
    else:
        target = Path(output)
        if target.suffix.lower() not in SUFFIXES:
            raise InputError(f"{output}: cannot write that format; choose .png, .tif or .jpg")
    for path in (source, mask_path):
        if target.exists() and target.samefile(path):
            raise InputError(f"{output}: is an input; the result would replace it")
    return Job(source, mask_path, target)


def _folder_jobs(image: str, mask: str, output: str | None) -> tuple[list[Job], list[str]]:
    """Pair files by name without suffix; what has no partner is reported at the end."""
    source, masks = Path(image), Path(mask)
    target = Path(output) if output else source.with_name(source.name + "-inpainted")
    if target.exists() and target.samefile(source):
        raise InputError(f"{target}: is the input folder; name another")
    if target.is_file():
        raise InputError(f"{target}: is a file; the results of a folder go into a folder")
    photos = _pictures(source)
    if not photos:
        raise InputError(f"{source}: holds no pictures ({', '.join(SUFFIXES)})")
    if not masks.exists():
        raise InputError(f"{masks}: no such file or folder")
    one = masks if masks.is_file() else None
    by_stem: dict[str, list[Path]] = {}
    for path in _pictures(masks) if one is None else []:
        by_stem.setdefault(path.stem, []).append(path)
    jobs, problems, stems = [], [], set()
    for photo in photos:
        partners = [one] if one is not None else by_stem.get(photo.stem, [])
        if len(partners) != 1:
            found = f"{len(partners)} masks" if partners else "no mask"
            problems.append(f"{photo}: {found} named {photo.stem}.* in {masks}")
        elif photo.stem in stems:
            problems.append(f"{photo}: another photo has that name with another suffix")
        else:
            stems.add(photo.stem)
            jobs.append(Job(photo, partners[0], target / f"{photo.stem}.png"))
    if not jobs:
        raise InputError(
            f"{source} and {masks}: no photo and mask have the same name ({problems[0]})"
        )
    return jobs, problems


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _sample_path(output: Path, index: int, count: int) -> Path:
    return output if count == 1 else output.with_stem(f"{output.stem}-{index + 1}")


def _existing(job: Job, num_samples: int) -> bool:
    return all(
        _sample_path(job.output, index, num_samples).exists() for index in range(num_samples)
    )


def _write(job: Job, result: Inpainting, steps: bool, uncertainty: bool) -> list[Path]:
    written = []
    count = len(result.samples)
    for index, sample in enumerate(result.samples):
        path = _sample_path(job.output, index, count)
        save_picture(path, sample)
        written.append(path)
        if uncertainty:
            map_path = path.with_name(f"{path.stem}-uncertainty.png")
            write_atomically(map_path, _encoded(sample.uncertainty_image, ".png"))
            written.append(map_path)
        for number, step in enumerate(sample.steps if steps else [], start=1):
            step_path = path.with_name(f"{path.stem}-step{number}.png")
            write_atomically(step_path, _encoded(step.image, ".png"))
            written.append(step_path)
    return written


def save_picture(path: Path, sample: InpaintingSample) -> None:
    """Write a result whole or not at all, with the photo's colour profile and EXIF."""
    image = sample.image
    if path.suffix.lower() in (".jpg", ".jpeg"):
        image = _without_alpha(image)
    try:
        content = _encoded(image, path.suffix.lower())
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be written as {path.suffix}: {error}") from error
    write_atomically(path, content)


def _encoded(image: Image.Image, suffix: str) -> bytes:
    options = {
        key: image.info[key] for key in ("icc_profile", "exif", "dpi") if image.info.get(key)
    }
    if suffix in LOSSY:
        options["quality"] = 95
    buffer = BytesIO()
    image.save(buffer, format=Image.registered_extensions()[suffix], **options)
    return buffer.getvalue()


def _without_alpha(image: Image.Image) -> Image.Image:
    if image.mode not in ("RGBA", "LA"):
        return image
    info = image.info
    opaque = Image.fromarray(np.asarray(image)[:, :, :-1].squeeze())
    opaque.info.update(info)
    return opaque


def _say_weights(inpainter: Inpainter) -> None:
    info = inpainter.info
    if info is None:
        return
    seen = f", {info.images_seen:,} images seen" if info.images_seen else ""
    size = f", trained at {info.resolution} pixels" if info.resolution else ""
    print(f"weights {info.path.name} ({info.parameters}{seen}{size}) on {inpainter.device}")


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print our own warnings without Python's file and line number."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
