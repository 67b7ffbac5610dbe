"""Small valid input for each target, from which the damaged input is made."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from tests.inference.tiny_weights import checkpoint, random_weights

TINY = {
    "base_channels": 4, "max_channels": 4, "num_downsamples": 0, "attention_strides": [1],
    "attention_heads": 1, "bias_channels": 2, "latent_dim": 4, "mapping_layers": 1,
}  # fmt: skip


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """A small image of 14 x 12 pixels in one of the formats."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    out = io.BytesIO()
    wide = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    image = wide if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    image.save(out, kind, **options)
    return out.getvalue()


def saved(content: object) -> bytes:
    """What ``torch.save`` writes."""
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def _tar(members: dict[str, bytes], how: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=how) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mtime = 1 << 40  # more than octal digits hold: base 256 in GNU's format
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _zip(members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def seeds(name: str) -> list[bytes]:
    """Valid input for a target, small enough that most mutations meet structure."""
    png = encoded("PNG")
    if name == "tar":
        members = {"a.png": png, "a.mask.png": encoded("PNG", "L"), "b.jpg": encoded("JPEG")}
        long = {"d" * 120 + "/a.png": b"x", "\u00fc.png": b"y"}
        return [
            _tar(members),
            _tar(members, tarfile.GNU_FORMAT),
            _tar(long),
            _tar(long, tarfile.GNU_FORMAT),
            _zip(members),
            _zip(members, zipfile.ZIP_BZIP2),
        ]
    if name == "index":
        shard = {"name": "a.tar", "samples": 2, "bytes": 0, "sha256": "0" * 64}
        base = {"format": "sdm_lightning.shards", "version": 1, "masks": True}
        base["shards"] = [shard, {**shard, "name": "b.tar"}]
        return [json.dumps(base).encode(), json.dumps({**base, "base": "s3://bucket/x"}).encode()]
    if name in ("image", "mask", "inpaint"):
        exif = Image.Exif()
        exif[0x0112] = 6
        return [
            png,
            encoded("PNG", "P"),
            encoded("PNG", "RGBA"),
            encoded("PNG", "LA"),
            encoded("TIFF", "I;16"),
            encoded("PNG", "1"),
            encoded("JPEG", exif=exif.tobytes(), dpi=(72, 72)),
            encoded("JPEG", "CMYK"),
            encoded("JPEG", "L", progressive=True),
            encoded("WEBP"),
            encoded("BMP"),
            encoded("TIFF"),
            encoded("TIFF", compression="tiff_lzw"),
            encoded("GIF"),
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file\n",
        ]
    if name == "weights":
        schedule = {"class_path": "sdm_lightning.diffusion.CubicSchedule"}
        loop = {"num_iterations": 3, "schedule": schedule}
        with tempfile.TemporaryDirectory() as folder:
            path = random_weights(Path(folder, "w.safetensors"), TINY, loop, resolution=16)
            return [path.read_bytes()]
    if name == "checkpoint":
        older = checkpoint(TINY)
        older["hyper_parameters"]["discriminator"] = {
            "class_path": "sdm_lightning.models.Discriminator",
            "init_args": {"resolution": 16},
        }
        return [saved(older | {"InpaintingDataModule": {"resolution": 16}}), saved(older)]
    if name == "config":
        micro = Path(__file__).parents[1] / "conf" / "micro.yaml"
        tags = b"a: !!python/object/apply:os.system [false]\nb: &x [*x, 2020-01-01, !!int 7]\n"
        bomb = b"a: &a [1,1,1,1]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\nd: {<<: {x: 1e3}}\n"
        text = micro.read_bytes()
        return [text, tags, bomb, json.dumps(yaml.safe_load(text)).encode()]
    line = {"metrics": {"fid/x": 1.5, "psnr/x": "inf"}, "seed": 0}
    return [(json.dumps(line) + "\n" + json.dumps({**line, "row": "B"}) + "\n").encode()]
