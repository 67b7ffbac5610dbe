"""Fill holes in held-out photos at full size, score the results and draw them side by side.

Each photo gets random holes of a quarter to a half of its shorter side. Every method fills the
same holes; windows of 128x128 pixels around hole pixels, cut from the results at full size, are
compared with the same windows of the originals. A Markdown table goes to the terminal, one picture
for each hole to ``OUT``::

    python experiments/photos/prepare.py runs/photos --packages packages
    python experiments/photos/full_size.py runs/photos/photos runs/full-size
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

from sdm_lightning.arrays import BoolArray, UInt8Array
from sdm_lightning.errors import InputError
from sdm_lightning.features.extractors import ImageNetworkFeatures
from sdm_lightning.inference import Inpainter
from sdm_lightning.inference.locating import DEFAULT_WEIGHTS
from sdm_lightning.inference.methods import BASELINES
from sdm_lightning.metrics.feature_distance import FeatureDistance
from sdm_lightning.metrics.kid import kernel_distance
from sdm_lightning.seeding import stable_rng

Method = Callable[[UInt8Array, BoolArray], UInt8Array]

SIDE = 128
NETWORK = "efficientnet-lite2"
TILE = 360
"""Pixels of a picture in the side-by-side row."""


def hole_in(height: int, width: int, rng: np.random.Generator) -> BoolArray:
    """Draw a mask, ``(height, width)`` with True = known: a rectangle or a smooth blob."""
    side = int(min(height, width) * rng.uniform(0.25, 0.5))
    top = rng.integers(0, height - side + 1)
    left = rng.integers(0, width - side + 1)
    shape = np.ones((side, side), bool)
    if rng.random() < 0.7:
        field = cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), side / 7)
        rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
        field = field / field.std() - 4 * (rows**2 + columns**2)
        parts = cv2.connectedComponentsWithStats((field > np.quantile(field, 0.45)).astype("uint8"))
        shape = parts[1] == 1 + parts[2][1:, cv2.CC_STAT_AREA].argmax()
    known = np.ones((height, width), bool)
    known[top : top + side, left : left + side] = ~shape
    return known


def around(known: BoolArray) -> tuple[slice, slice]:
    """Return a square of twice the hole's size, or as large as the picture allows."""
    found = [np.flatnonzero(~known.all(axis=axis)) for axis in (1, 0)]
    side = min(2 * max(f[-1] - f[0] + 1 for f in found), *known.shape)
    starts = [
        min(max((f[0] + f[-1] + 1 - side) // 2, 0), limit - side)
        for f, limit in zip(found, known.shape, strict=True)
    ]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def seam(picture: UInt8Array, known: BoolArray) -> float:
    """Return the mean step between neighbours of which one is known and one filled, in levels."""
    steps = []
    for image, mask in ((picture, known), (picture.swapaxes(0, 1), known.T)):
        edge = mask[1:] != mask[:-1]
        steps.append(np.abs(np.diff(image.astype(np.float32), axis=0)).mean(axis=2)[edge])
    return float(np.concatenate(steps).mean())


def as_tensor(pictures: list[UInt8Array]) -> torch.Tensor:
    """``(N, 3, H, W)`` uint8."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def side_by_side(pictures: list[UInt8Array], path: Path) -> None:
    """Write pictures of one size next to each other."""
    size = (TILE, TILE)
    row = [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures]
    Image.fromarray(np.hstack(row)).save(path, quality=90)


def full_size(
    photos: Path,
    out: Path,
    weights: str = DEFAULT_WEIGHTS,
    least: int = 900,
    holes: int = 1,
    windows: int = 6,
    part: int | None = None,
    longest: int | None = None,
    classical: bool = True,
) -> None:
    """Score and draw.

    Args:
        photos: Folder of photos that no training saw.
        out: Folder for the pictures.
        weights: As for ``sdm inpaint``.
        least: Photos with a longer side below it are left out.
        holes: Holes for each photo, one at a time.
        windows: Windows for each hole.
        part: 0 or 1: only every second photo, to choose a method by and to report it on others.
        longest: Photos are shrunk to this longer side first.
        classical: OpenCV's methods and the mean colour too.
    """
    files = sorted(p for p in photos.glob("*.png") if max(Image.open(p).size) >= least)
    files = files if part is None else files[part::2]
    if not files:
        raise InputError(f"{photos}: no photo of {least} pixels; give the photos of prepare.py")
    model = Inpainter.from_pretrained(weights)

    def sdm(**options: bool) -> Method:
        return lambda image, known: model(image, known, keep_steps=False, **options).array

    methods: dict[str, Method] = {
        "SDM, shrunk and enlarged": sdm(detail=False, seams=False),
        "SDM, seams": sdm(detail=False),
        "SDM, detail": sdm(seams=False),
        "SDM, seams and detail (default)": sdm(),
        **(BASELINES if classical else {}),
    }
    out.mkdir(parents=True, exist_ok=True)
    features, distance = ImageNetworkFeatures(NETWORK), FeatureDistance(NETWORK)
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in ("", *methods)}
    scores: dict[str, list[list[float]]] = {name: [] for name in methods}
    order: list[tuple[float, str]] = []
    for path in tqdm(files, unit="photo"):
        photo = Image.open(path).convert("RGB")
        if longest is not None:
            scale = longest / max(photo.size)
            size = round(photo.width * scale), round(photo.height * scale)
            photo = photo.resize(size, Image.Resampling.LANCZOS)
        image = np.asarray(photo)
        for number in range(holes):
            rng = stable_rng("full size", path.stem, number)
            known = hole_in(*image.shape[:2], rng)
            places = np.argwhere(~known)[rng.integers(0, (~known).sum(), windows)] - SIDE // 2
            places = places.clip(0, np.array(image.shape[:2]) - SIDE)

            def cut(picture: UInt8Array, places: npt.NDArray[np.int64] = places) -> torch.Tensor:
                return as_tensor([picture[y : y + SIDE, x : x + SIDE] for y, x in places])

            box = around(known)
            shown = [np.where(known[:, :, None], image, np.uint8(128))[box]]
            true_step, originals = max(seam(image, known), 0.1), cut(image)
            rows[""].append(features.extract(originals))
            for name, fill in methods.items():
                filled = fill(image, known)
                rows[name].append(features.extract(cut(filled)))
                error = ((filled.astype(np.float64) - image)[~known] ** 2).mean()
                scores[name].append(
                    [
                        10 * np.log10(255**2 / max(error, 1e-9)),
                        distance(cut(filled), originals).mean().item(),
                        seam(filled, known) / true_step,
                    ]
                )
                shown.append(filled[box])
            file = f"{path.stem}-{number}.jpg"
            side_by_side([*shown, image[box]], out / file)
            order.append((scores["SDM, seams and detail (default)"][-1][1], file))
    print(
        f"{len(order)} holes, {len(order) * windows} windows; columns: input, {', '.join(methods)}"
    )
    print("best to worst:", ", ".join(file for _, file in sorted(order)))
    print(f"\n| | KID x 1000 [{NETWORK}] | feature distance | PSNR in the hole, dB | seam |")
    print("|---|---:|---:|---:|---:|")
    originals = torch.cat(rows[""])
    for name in methods:
        value, deviation = kernel_distance(originals, torch.cat(rows[name]))
        level, far, _ = np.mean(scores[name], axis=0)
        step = np.median(np.array(scores[name])[:, 2])
        print(f"| {name} | {value:.1f} ± {deviation:.1f} | {far:.2f} | {level:.2f} | {step:.2f} |")


if __name__ == "__main__":
    from jsonargparse import auto_cli

    from sdm_lightning.cli.errors import user_errors

    with user_errors():
        auto_cli(full_size)
