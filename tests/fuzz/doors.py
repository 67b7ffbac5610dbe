"""The doors of the package to data from outside, and valid input for each to start from.

A door takes bytes and a fresh folder. It may return, or raise ``InputError`` or ``BadImageError``:
anything else that it raises is a fault of this package.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from sdm_lightning.cli.configs import read_config_files
from sdm_lightning.data.decode import BadImageError, decode_image, decode_mask
from sdm_lightning.data.shards.index import ShardIndex
from sdm_lightning.data.shards.reading import Shard, ShardReader, scan_shard
from sdm_lightning.data.sources import open_source
from sdm_lightning.errors import InputError
from sdm_lightning.inference import load_generator
from sdm_lightning.inference.pictures import read_mask, read_picture
from sdm_lightning.models import Generator
from sdm_lightning.reports.results import metric_values, read_result_lines

Door = Callable[[bytes, Path], None]

TINY = {
    "base_channels": 4, "max_channels": 8, "num_downsamples": 1, "attention_strides": [2],
    "attention_heads": 1, "bias_channels": 4, "latent_dim": 8, "mapping_layers": 1,
}  # fmt: skip


def tar_door(data: bytes, folder: Path) -> None:
    """Index a shard, read it by that index or by a lying one, and list it as an archive."""
    path = folder / "a.tar"
    path.write_bytes(data)
    samples = -1
    with contextlib.suppress(InputError):
        samples = len(scan_shard(str(path))[0])
    try:
        found = ShardReader().read(Shard(str(path), 2, len(data), "0" * 64))
        assert len(found) == samples == 2
    except InputError:
        pass
    source = open_source(path)
    for entry in source.entries()[:4]:
        with contextlib.suppress(OSError):
            source.read(entry)


def index_door(data: bytes, folder: Path) -> None:
    """Load an index."""
    (folder / "index.json").write_bytes(data)
    index = ShardIndex.load(folder)
    for shard in index.shards:  # what it names lies beside it
        assert Path(shard.url).parent == folder


def image_door(data: bytes, folder: Path) -> None:
    """Decode a training image and a photo for inpainting."""
    try:
        array = decode_image(data)
        assert array.dtype == np.uint8
        assert array.ndim == 3
    except BadImageError:
        pass
    (folder / "x.png").write_bytes(data)
    picture = read_picture(folder / "x.png")
    assert picture.pixels.ndim == 3
    picture.to_pil(picture.pixels)


def mask_door(data: bytes, folder: Path) -> None:
    """Decode a packed mask and a mask file."""
    with contextlib.suppress(BadImageError):
        assert set(np.unique(decode_mask(data))) <= {0, 1}
    (folder / "m.png").write_bytes(data)
    assert read_mask(folder / "m.png", (12, 14)).shape == (12, 14)


def weights_door(data: bytes, folder: Path) -> None:
    """Load a weights file, and build what it describes."""
    path = folder / "w.safetensors"
    path.write_bytes(data)
    network, info = load_generator(path)
    assert isinstance(network, Generator)
    info.build_diffusion()


def config_door(data: bytes, folder: Path) -> None:
    """Read a config file."""
    path = folder / "c.yaml"
    path.write_bytes(data)
    read_config_files(["--config", str(path)])


def results_door(data: bytes, folder: Path) -> None:
    """Read result lines and their metrics."""
    path = folder / "r.jsonl"
    path.write_bytes(data)
    for line in read_result_lines(path):
        metric_values(line)


def inpaint_door(data: bytes, folder: Path) -> None:
    """Fill the holes of a damaged photo (odd sizes) or by a damaged mask (even ones)."""
    from sdm_lightning.inference import Inpainter

    global _inpainter
    if _inpainter is None:
        torch.manual_seed(0)
        _inpainter = Inpainter(Generator(**TINY), work_size=16)  # type: ignore[arg-type]
    good = encoded("PNG")
    photo, mask = (data, good) if len(data) % 2 else (good, data)
    (folder / "p.png").write_bytes(photo)
    (folder / "m.png").write_bytes(mask)
    result = _inpainter(folder / "p.png", folder / "m.png", num_iterations=1)
    assert result.array.shape[:2] == result.mask.shape


_inpainter = None

DOORS: dict[str, Door] = {
    "tar": tar_door,
    "index": index_door,
    "image": image_door,
    "mask": mask_door,
    "weights": weights_door,
    "config": config_door,
    "results": results_door,
    "inpaint": inpaint_door,
}


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """A small image of 14 x 12 pixels in one of the formats."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    out = io.BytesIO()
    wide = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    image = wide if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    image.save(out, kind, **options)
    return out.getvalue()


def _tar(members: dict[str, bytes], how: int = tarfile.PAX_FORMAT, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=how) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def seeds(name: str) -> list[bytes]:
    """Valid input for a door, small enough that most mutations meet structure."""
    png = encoded("PNG")
    if name == "tar":
        members = {"a.png": png, "a.mask.png": encoded("PNG", "L"), "b.jpg": encoded("JPEG")}
        long = {"d" * 120 + "/a.png": b"x", "\u00fc.png": b"y"}
        return [
            _tar(members),
            _tar(members, tarfile.GNU_FORMAT),
            _tar(long),
            _tar(long, tarfile.GNU_FORMAT),
            _tar(members, mode="w:gz"),
            _tar(members, mode="w:bz2"),
            _zip(members),
        ]
    if name == "index":
        shard = {"name": "a.tar", "samples": 2, "bytes": 0, "sha256": "0" * 64}
        base = {"format": "sdm_lightning.shards", "version": 1, "masks": True}
        return [json.dumps({**base, "shards": [shard, {**shard, "name": "b.tar"}]}).encode()]
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
        config = {
            "format": "sdm-lightning/1",
            "generator": {"class_path": "sdm_lightning.models.Generator", "init_args": TINY},
            "diffusion": {
                "class_path": "sdm_lightning.diffusion.SpatialDiffusion",
                "init_args": {
                    "num_iterations": 3,
                    "schedule": {"class_path": "sdm_lightning.diffusion.CubicSchedule"},
                },
            },
            "resolution": 16,
        }
        state = Generator(**TINY).state_dict()  # type: ignore[arg-type]
        return [save(state, metadata={"sdm_lightning": json.dumps(config)})]
    if name == "config":
        micro = Path(__file__).parents[1] / "conf" / "micro.yaml"
        tags = b"a: !!python/object/apply:os.system [false]\nb: &x [*x, 2020-01-01, !!int 7]\n"
        bomb = b"a: &a [1,1,1,1]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\nd: {<<: {x: 1e3}}\n"
        return [micro.read_bytes(), tags, bomb]
    line = {"metrics": {"fid/x": 1.5, "psnr/x": "inf"}, "seed": 0, "cell": {"sweep": "t"}}
    return [(json.dumps(line) + "\n" + json.dumps({**line, "row": "B"}) + "\n").encode()]


_TOKENS = (
    b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"-1", b"1e999", b"99999999999999999999",
    b"null", b"[]", b"{}", b"NaN", b"../", b"/etc/passwd", b"\n", b"!!python/name:os.system ",
    b"*a", b"&a ", b"os.system", b"size=-512", b"77777777777", b"[" * 50, b"\xed\xa0\x80",
)  # fmt: skip


def mutate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Damage bytes in one to six places: flips, cuts, copies, numbers, tokens, splices."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(out) + 1)
        kind = rng.randrange(8)
        if kind == 0 and place < len(out):
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and place < len(out):
            out[place] = rng.randrange(256)
        elif kind == 2:
            del out[place : place + rng.randrange(1, 64)]
        elif kind == 3:
            out[place:place] = out[place : place + rng.randrange(1, 64)]
        elif kind == 4:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**62, 2**64 - 1)) % 256**size
            out[place : place + size] = number.to_bytes(size, rng.choice(("big", "little")))
        elif kind == 5:
            token = rng.choice(_TOKENS)
            out[place : place + rng.choice((0, len(token)))] = token
        elif kind == 6:
            start = rng.randrange(len(other) + 1)
            out[place:place] = other[start : start + rng.randrange(1, 256)]
        else:
            del out[place:]
    return bytes(out)


def repaired(name: str, data: bytes) -> bytes:
    """Put right the checksums and lengths that would else stop nearly every mutation at once."""
    if name == "tar" and len(data) >= 512:
        out = bytearray(data)
        for start in range(0, len(out) - 511, 512):
            block = out[start : start + 512]
            if block[257:262] == b"ustar":
                total = sum(block[:148]) + 8 * 32 + sum(block[156:])
                out[start + 148 : start + 156] = b"%06o\x00 " % (total & 0o777777)
        return bytes(out)
    if name == "weights" and (found := re.search(rb"}[ ]*(?=[^}]{0,4000}\Z)", data)):
        return struct.pack("<Q", max(found.end() - 8, 0)) + data[8:]
    return data


def knock(name: str, data: bytes, folder: Path) -> bool:
    """Try one input on a door.

    Returns:
        Whether it was let in; False if it was refused as bad input.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            DOORS[name](data, folder)
        except (InputError, BadImageError):
            return False
    return True
