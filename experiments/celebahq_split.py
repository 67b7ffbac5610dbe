"""Split CelebA-HQ as MAT and the paper do, and reduce it to 512 or 256 pixels.

CelebA-HQ's images are those of CelebA in another order, and the split is CelebA's own: its training
part trains (24,183 images), its validation part tests (2,993), its test part is not used.

    python experiments/celebahq_split.py CelebA-HQ-img CelebA-HQ-to-CelebA-mapping.txt \\
        list_eval_partition.txt celebahq512 --size 512
    sdm shards celebahq512/train shards/celebahq512-train
    sdm shards celebahq512/test shards/celebahq512-test --shuffle false

The mapping comes with CelebAMask-HQ; CelebA-HQ's own ``image_list.txt`` serves as well.
"""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image
from tqdm import tqdm

from sdm_lightning.errors import InputError
from sdm_lightning.files import atomic_file

SPLITS = {"0": "train", "1": "test"}
COUNTS = {"train": 24183, "test": 2993}


def split(
    images: str,
    mapping: str,
    partition: str,
    output: str,
    size: int = 512,
    resample: Literal["box", "bilinear", "hamming", "bicubic", "lanczos"] = "lanczos",
) -> None:
    """Write the training and the test images as PNG files, ``OUTPUT/train`` and ``OUTPUT/test``.

    Files that exist are kept, so an interrupted call can be repeated.

    Args:
        images: Folder of the 30,000 images, 0.jpg or 00000.png and so on.
        mapping: CelebA-HQ-to-CelebA-mapping.txt or image_list.txt.
        partition: list_eval_partition.txt of CelebA.
        output: Folder to write to.
        size: Side of the written images in pixels.
        resample: Pillow's filter. Neither paper states its own, and scores depend on it.

    Raises:
        InputError: If a file has another form, or an image is missing.
    """
    names = read_split(Path(mapping), Path(partition))
    files = {int(path.stem): path for path in Path(images).iterdir() if path.stem.isdigit()}
    if missing := sorted(names.keys() - files.keys()):
        raise InputError(
            f"{images}: {len(missing)} of {len(names)} images are missing, the first is "
            f"{missing[0]}.jpg"
        )
    for name in COUNTS:
        (Path(output) / name).mkdir(parents=True, exist_ok=True)
    jobs = [(files[i], Path(output) / part / f"{i:05d}.png") for i, part in sorted(names.items())]
    reduce = partial(reduce_image, size=size, resample=resample)
    with ProcessPoolExecutor() as pool:
        for _ in tqdm(pool.map(reduce, jobs, chunksize=16), total=len(jobs)):
            pass


def read_split(mapping: Path, partition: Path) -> dict[int, str]:
    """Read which image of CelebA-HQ belongs to which part.

    Returns:
        Number of the image -> train or test.

    Raises:
        InputError: If a file has another form, or the parts are not as large as they should be.
    """
    codes = dict(_columns(partition, 1, "000001.jpg 0"))
    found = {}
    for number, name in _columns(mapping, 2, "0 119613 119614.jpg"):
        if not number.isdigit():
            continue  # the head of the table
        if name not in codes:
            raise InputError(f"{partition}: {name}, which {mapping} names, is not in it")
        if codes[name] in SPLITS:
            found[int(number)] = SPLITS[codes[name]]
    for part, count in COUNTS.items():
        here = sum(value == part for value in found.values())
        if here != count:
            raise InputError(f"{mapping}: {here} images to {part}, but CelebA-HQ has {count}")
    return found


def _columns(path: Path, second: int, form: str) -> list[tuple[str, str]]:
    """Read the first and one more column."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        return [(line[0], line[second]) for line in lines if line]
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise InputError(f"{path}: cannot be read as lines of '{form}' ({error})") from error


def reduce_image(job: tuple[Path, Path], size: int, resample: str) -> None:
    """Write one image in its new size, unless it is there.

    Raises:
        InputError: If it cannot be decoded, or is smaller.
    """
    source, target = job
    if target.exists():
        return
    try:
        with Image.open(source) as file:
            image = file.convert("RGB")
    except OSError as error:
        raise InputError(f"{source}: cannot be decoded ({error})") from error
    if min(image.size) < size:
        raise InputError(f"{source}: is {image.width}x{image.height}, smaller than {size}")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling[resample.upper()])
    with atomic_file(target) as out:
        image.save(out, "png")


if __name__ == "__main__":
    from jsonargparse import auto_cli

    from sdm_lightning.cli.errors import user_errors

    with user_errors():
        auto_cli(split)
