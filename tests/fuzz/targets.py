"""The parsers and commands that read files, as targets of fuzzing.

A target takes bytes and a folder of its own. It may return, or raise ``InputError`` or
``BadImageError``: anything else that it raises is a fault of this package.
"""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from sdm_lightning.cli.configs import read_config_files
from sdm_lightning.data.decode import BadImageError, decode_image, decode_mask
from sdm_lightning.data.shards.index import Shard, ShardIndex
from sdm_lightning.data.shards.reading import ShardReader, scan_shard
from sdm_lightning.data.shards.remote import local_path
from sdm_lightning.data.sources import open_source
from sdm_lightning.errors import InputError
from sdm_lightning.inference import Inpainter, load_generator
from sdm_lightning.inference.discriminators import load_discriminator
from sdm_lightning.inference.inpaint import inpaint_files
from sdm_lightning.inference.pictures import read_mask, read_picture
from sdm_lightning.models import Generator
from sdm_lightning.reports.results import metric_values, read_result_lines
from tests.fuzz.valid_input import encoded, seeds

Target = Callable[[bytes, Path], None]


def tar_target(data: bytes, folder: Path) -> None:
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


def index_target(data: bytes, folder: Path) -> None:
    """Load an index, beside the two empty shards that the valid one lists."""
    for name in ("a.tar", "b.tar"):
        (folder / name).touch()
    (folder / "index.json").write_bytes(data)
    index = ShardIndex.load(folder)
    for shard in index.shards:  # what it names lies beside it, or on another machine
        path = local_path(shard.url)
        assert path is None or Path(path).parent == folder


def image_target(data: bytes, folder: Path) -> None:
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


def mask_target(data: bytes, folder: Path) -> None:
    """Decode a packed mask and a mask file."""
    with contextlib.suppress(BadImageError):
        assert set(np.unique(decode_mask(data))) <= {0, 1}
    (folder / "m.png").write_bytes(data)
    assert read_mask(folder / "m.png", (12, 14)).shape == (12, 14)


def weights_target(data: bytes, folder: Path) -> None:
    """Load a weights file, and build what it describes."""
    path = folder / "w.safetensors"
    path.write_bytes(data)
    load_and_build(path)


def checkpoint_target(data: bytes, folder: Path) -> None:
    """Load a checkpoint's generator and discriminator, and build the loop that it describes."""
    path = folder / "w.ckpt"
    path.write_bytes(data)
    load_discriminator(path)
    load_and_build(path)


def load_and_build(path: Path) -> None:
    """Load a generator, and build the loop that its file describes."""
    network, info = load_generator(path)
    assert isinstance(network, Generator)
    info.build_diffusion()


def config_target(data: bytes, folder: Path) -> None:
    """Read a config file."""
    path = folder / "c.yaml"
    path.write_bytes(data)
    read_config_files(["--config", str(path)])


def results_target(data: bytes, folder: Path) -> None:
    """Read result lines and their metrics."""
    path = folder / "r.jsonl"
    path.write_bytes(data)
    for line in read_result_lines(path):
        metric_values(line)


class OneConvolution(nn.Module):
    """A network of one layer: what a file can harm lies before and behind it."""

    stride = 2

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(7, 6, 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance."""
        mean, log_variance = self.layer(inputs).chunk(2, dim=1)
        return mean, log_variance


@functools.cache
def _inpainter() -> Inpainter:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "w.safetensors")
        path.write_bytes(seeds("weights")[0])
        inpainter = Inpainter.from_pretrained(path)
    inpainter.generator = OneConvolution().eval()
    return inpainter


def inpaint_target(data: bytes, folder: Path) -> None:
    """``sdm inpaint`` of a damaged photo (odd sizes) or by a damaged mask (even ones)."""
    photo, mask = (data, _good_image()) if len(data) % 2 else (_good_image(), data)
    (folder / "p.png").write_bytes(photo)
    (folder / "m.png").write_bytes(mask)
    output = folder / f"o{('.png', '.jpg', '.tif', '.webp')[len(data) // 2 % 4]}"
    with (
        mock.patch.object(Inpainter, "from_pretrained", return_value=_inpainter()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        inpaint_files(
            str(folder / "p.png"), str(folder / "m.png"), str(output),
            num_iterations=1, overwrite=True,
        )  # fmt: skip
    assert output.is_file()


@functools.cache
def _good_image() -> bytes:
    return encoded("PNG")


TARGETS: dict[str, Target] = {
    "tar": tar_target,
    "index": index_target,
    "image": image_target,
    "mask": mask_target,
    "weights": weights_target,
    "checkpoint": checkpoint_target,
    "config": config_target,
    "results": results_target,
    "inpaint": inpaint_target,
}


def feed(name: str, data: bytes, folder: Path) -> bool:
    """Feed one input to a target.

    Returns:
        Whether it was accepted; False if it was refused as bad input.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            TARGETS[name](data, folder)
        except (InputError, BadImageError):
            return False
    return True
