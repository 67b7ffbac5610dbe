"""Fill the holes of a photo with onnxruntime, NumPy and Pillow: no PyTorch, no sdm_lightning.

sdm export photos-128 photos-128.onnx --half   # once, where sdm_lightning is installed
python onnxruntime_inpaint.py photos-128.onnx photo.jpg mask.png filled.png

The mask has the photo's size: white is kept, black is filled. The photo is cut to the hole and its
surroundings and shrunk to the size that the network was trained at; the filling is enlarged again.
Kept pixels stay exactly as they are. Holes that lie far apart are best filled one by one.
"""

import argparse
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def cut_out(known: np.ndarray, least: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the hole with half its size, or more, around it."""
    rows, columns = np.flatnonzero((~known).any(1)), np.flatnonzero((~known).any(0))
    height, width = known.shape
    extent = int(max(np.ptp(rows), np.ptp(columns))) + 1
    margin = max(extent // 2, (least - extent + 1) // 2)
    return (
        max(columns[0] - margin, 0), max(rows[0] - margin, 0),
        min(columns[-1] + 1 + margin, width), min(rows[-1] + 1 + margin, height),
    )  # fmt: skip


def fill(session: onnxruntime.InferenceSession, image, known, seed: int = 0) -> np.ndarray:
    """Fill (H, W, 3) uint8 where known, (H, W) bool, is False; (H, W, 3) uint8."""
    facts = json.loads(session.get_modelmeta().custom_metadata_map["sdm_lightning"])
    if known.all():
        return image.copy()
    stride, largest = facts["stride"], facts["resolution"] or max(image.shape)
    box = left, top, right, bottom = cut_out(known, largest)
    scale = min(1.0, largest / max(right - left, bottom - top))
    size = [max(round((b - a) * scale / stride), 1) * stride for a, b in (box[::2], box[1::2])]
    # Colours are averaged over known pixels only: nothing in the hole is looked at.
    planes = [*np.moveaxis(image * known[:, :, None], 2, 0), known]
    pictures = (Image.fromarray(plane.astype(np.float32)).crop(box) for plane in planes)
    *colours, share = (np.asarray(p.resize(size, Image.Resampling.BOX)) for p in pictures)
    small = np.stack(colours) / np.maximum(share, 1e-6)
    draw = np.random.default_rng(seed).standard_normal
    feed = {
        "image": (small / 127.5 - 1)[None],
        "mask": (share >= 0.5).astype(np.float32)[None, None],
        "latent": draw((1, facts["latent_dim"]), np.float32),
        "noise": draw((1, max(facts["num_iterations"] - 1, 1), 3, size[1], size[0]), np.float32),
    }
    names = {item.name for item in session.get_inputs()}
    completed = session.run(["completed"], {k: v for k, v in feed.items() if k in names})[0][0]
    levels = np.clip(completed.transpose(1, 2, 0) * 127.5 + 127.5, 0, 255).round().astype(np.uint8)
    patch = Image.fromarray(levels).resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    result = image.copy()
    result[top:bottom, left:right] = patch
    return np.where(known[:, :, None], image, result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("model", "photo", "mask", "output"):
        parser.add_argument(name)
    args = parser.parse_args()
    # As viewers show them: cameras store a photo as it came from the sensor and note its rotation.
    photo = np.asarray(ImageOps.exif_transpose(Image.open(args.photo)).convert("RGB"))
    mask = np.asarray(ImageOps.exif_transpose(Image.open(args.mask)).convert("L")) >= 128
    if mask.shape != photo.shape[:2]:
        raise SystemExit(f"{args.mask}: another size than {args.photo}")
    model = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
    Image.fromarray(fill(model, photo, mask)).save(args.output)
