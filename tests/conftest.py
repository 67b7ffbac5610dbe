"""What every test shares: a quiet offline environment, tiny photos, tiny shards."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sdm_lightning.cli.trainer import SDMCommandLine

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Fixtures of several folders: networks with random values, in files, and a hub.
pytest_plugins = [
    "tests.network_files",
    "tests.inference.fake_hub",
    "tests.inference.onnx_model",
    "tests.inference.tiny_weights",
]

CONF = Path(__file__).parent / "conf"


@pytest.fixture(autouse=True, scope="session")
def first_backward_pass() -> None:
    """After an ONNX export, torch's first backward pass starts threads that bar a later fork."""
    import torch

    torch.zeros(1, requires_grad=True).sum().backward()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning reads PL_* as trainer defaults; a launcher's variables would make us a rank."""
    for name in list(os.environ):
        if name.startswith(("PL_", "SLURM_", "SDM_")) or name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def rank_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning keeps the rank of the last distributed strategy; others than 0 write no files."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)


@pytest.fixture(autouse=True)
def kept_help(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept help texts, so that tests neither read nor write the user's own."""
    folder = tmp_path_factory.getbasetemp() / "help"
    monkeypatch.setattr("sdm_lightning.cli.help_cache._folder", lambda: folder)
    return folder


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that runs/ lands there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve PNGs, 24 x 20 pixels: smooth gradients, each of its own colour."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(0, 1, 24), np.linspace(0, 1, 20))
    for number in range(12):
        colors = rng.uniform(0, 255, (3, 3))
        pixels = across[..., None] * colors[0] + down[..., None] * colors[1] + colors[2]
        Image.fromarray((pixels / 3).astype(np.uint8)).save(folder / f"photo{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory, tiny_images: Path) -> Path:
    """The same twelve, packed into three shards."""
    from sdm_lightning.data import pack_shards

    folder = tmp_path_factory.mktemp("shards") / "tiny"
    pack_shards(str(tiny_images), str(folder), max_samples=4, num_workers=0)
    return folder


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> "Callable[..., SDMCommandLine]":
    """Builds what a command line asks for, without running it; tensors take no memory."""
    import torch

    from sdm_lightning.cli.main import main
    from sdm_lightning.cli.trainer import SDMCommandLine

    built: list[SDMCommandLine] = []
    monkeypatch.setattr(SDMCommandLine, "_run_subcommand", lambda cli, _: built.append(cli))

    def run(*words: object, device: str = "meta") -> SDMCommandLine:
        with torch.device(device):
            main([*map(str, words)])
        return built[-1]

    return run


@pytest.fixture
def micro() -> Path:
    """A config that trains on ``tiny_shards`` within seconds."""
    return CONF / "micro.yaml"


@pytest.fixture
def room_for() -> Callable[[int], AbstractContextManager[None]]:
    """``with room_for(n):`` the system lets no file grow beyond n bytes, as on a full disk."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limited
