"""Real shards of tiny images, built once, and the shell's entry point to them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.cli.main import main
from sdm_lightning.data.shards.packing import pack_shards

CONF = Path(__file__).parents[1] / "conf"


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Two folders of shards: ``train`` (24 images in 4 uneven shards) and ``test`` (5 images)."""
    root = tmp_path_factory.mktemp("shards")
    for split, count, per_shard in (("train", 24, 7), ("test", 5, 2)):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        for index in range(count):
            rng = np.random.default_rng([index, split == "test"])
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            coarse.resize((20, 18), Image.Resampling.BICUBIC).save(
                folder / f"{split}{index:02d}.png"
            )
        pack_shards(folder, root / split, max_samples=per_shard, num_workers=0)
    return root


@pytest.fixture
def sdm(shards, tmp_path, monkeypatch):
    """Runs ``sdm COMMAND`` with the micro model on the shards, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(command, *args, name="run"):
        data = [f"--data.{part}={shards / folder}" for part, folder in
                (("train", "train"), ("val", "test"), ("test", "test"))]  # fmt: skip
        main([command, "--config", str(CONF / "micro.yaml"), *data, "--name", name, *args])
        return tmp_path / "runs" / name

    return run
