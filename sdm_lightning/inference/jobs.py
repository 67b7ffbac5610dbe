"""What ``sdm inpaint`` reads and writes: photos, their masks, and the names of the results."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from sdm_lightning.data.decode import IMAGE_EXTENSIONS
from sdm_lightning.data.sources import is_image_name, other_formats
from sdm_lightning.errors import InputError

MAX_NAME = 255
"""Bytes that the name of a file may have on the usual file systems."""

SUFFIXES = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)

Extra: TypeAlias = Literal["uncertainty", "step", "compare"]
"""What may be saved beside a result, as NAME-KIND.png; steps are numbered."""


@dataclass(frozen=True)
class Job:
    """One picture to fill: where it is, its mask, and where the result goes."""

    image: Path
    mask: Path | None
    output: Path

    def sample_path(self, index: int, count: int) -> Path:
        """Return where one of several fillings goes: NAME-1, NAME-2, ..., or NAME for one."""
        if count == 1:
            return self.output
        return self.output.with_stem(f"{self.output.stem}-{index + 1}")

    def targets(self, num_samples: int, extras: Sequence[Extra], step: int = 1) -> list[Path]:
        """List the files that will be written, of the steps one only."""
        paths = [self.sample_path(index, num_samples) for index in range(num_samples)]
        return [*paths, *(extra_path(path, kind, step) for path in paths for kind in extras)]

    def check_names(self, num_samples: int, extras: Sequence[Extra]) -> None:
        """Refuse a photo whose results' names no file system takes.

        Raises:
            InputError: If one is too long.
        """
        for path in self.targets(num_samples, extras, step=999):
            if (size := len(os.fsencode(path.name))) > MAX_NAME:
                raise InputError(
                    f"{self.image}: the name of its result, {path.name}, has {size} bytes, more "
                    f"than {MAX_NAME}; rename the photo"
                )


def extra_path(sample: Path, kind: Extra, number: int = 1) -> Path:
    """Return where something beside a result goes."""
    return sample.with_name(f"{sample.stem}-{kind}{number if kind == 'step' else ''}.png")


def refuse_clashes(jobs: Sequence[Job], targets: Sequence[Path]) -> None:
    """Refuse, with and without ``--overwrite``, to write over a photo, a mask or another result.

    Raises:
        InputError: If a file that would be written is one that is read, or is written twice.
    """
    twice = [path for path, count in Counter(targets).items() if count > 1]
    if twice:
        raise InputError(
            f"{twice[0]}: would be the result of one photo and a picture beside another's; "
            "rename a photo"
        )
    inputs = {_identity(p) for job in jobs for p in (job.image, job.mask) if p is not None}
    for target in targets:
        if target.exists() and _identity(target) in inputs:
            raise InputError(f"{target}: is an input; the result would replace it")


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def single_job(image: str, mask: str | None, output: str | None) -> Job:
    """Make the job of one photo.

    Raises:
        InputError: If a file is missing or the output has a format that cannot be written.
    """
    source, mask_path = Path(image), None if mask is None else Path(mask)
    inputs = [source] if mask_path is None else [source, mask_path]
    for path in inputs:
        if not path.is_file():
            other = "photo" if path == mask_path else "mask"
            mixed = f"is a folder, but the {other} is a file; give two files or two folders"
            raise InputError(f"{path}: {mixed if path.is_dir() else 'no such file'}")
    name = f"{source.stem}-inpainted.png"
    if output is None:
        target = source.with_name(name)
    elif output.endswith("/") or Path(output).is_dir():
        target = Path(output) / name
    else:
        target = Path(output)
        if target.suffix.lower() not in SUFFIXES:
            raise InputError(f"{output}: cannot write that format; choose .png, .tif or .jpg")
    return Job(source, mask_path, target)


def folder_jobs(image: str, mask: str | None, output: str | None) -> tuple[list[Job], list[str]]:
    """Pair files by name without suffix.

    Returns:
        The jobs, and a line for each photo without a partner.

    Raises:
        InputError: If nothing can be paired, or results would go into a folder of inputs.
    """
    source, masks = Path(image), None if mask is None else Path(mask)
    if output:
        target = Path(output)
    else:  # the name of "." or "a/.." is not its last part
        named = source if source.name not in ("", "..") else Path(os.path.abspath(source))
        target = named.with_name(named.name + "-inpainted")
    for folder in (source, masks):
        if folder is not None and folder.is_dir() and target.exists() and target.samefile(folder):
            raise InputError(f"{target}: is an input folder; name another")
    if target.is_file():
        raise InputError(f"{target}: is a file; the results of a folder go into a folder")
    photos = _pictures(source)
    if not photos:
        others = left_out(source)
        raise InputError(
            f"{source}: holds no pictures ({', '.join(SUFFIXES)})"
            + (f" but {others}" if others else "")
        )
    if masks is not None and not masks.exists():
        raise InputError(f"{masks}: no such file or folder")
    for_all = masks is None or masks.is_file()
    by_stem: dict[str, list[Path | None]] = {}
    for path in [] if masks is None or for_all else _pictures(masks):
        by_stem.setdefault(path.stem, []).append(path)
    jobs, problems, stems = [], [], set()
    for photo in photos:
        partners = [masks] if for_all else by_stem.get(photo.stem, [])
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
    return sorted(path for path in folder.iterdir() if is_image_name(path.name) and path.is_file())


def left_out(folder: Path) -> str:
    """Say what a folder holds beside pictures, as in ``"2 files of other formats (.gif, .heic)"``.

    Hidden files are not counted: those of an operating system lie in every folder.
    """
    seen = [path for path in folder.iterdir() if not path.name.startswith(".")]
    folders = sum(path.is_dir() for path in seen)
    files = other_formats(path.name for path in seen if path.is_file())
    inner = f"{folders} subfolder{'s' * (folders > 1)}" if folders else ""
    return ", ".join(filter(None, (files, inner)))
