"""What only a GPU can show: precision, kernels, graphs, resume, NCCL, memory."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import ConcatDataset, DataLoader

from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.models import Generator
from sdm_lightning.models.attention import biased_attention
from tests.trainers import quiet_trainer
from tests.training.conftest import TinyImages, tiny_loader, tiny_module

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions use TF32 by default, in which two kernels differ in the third digit."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    network = Generator(base_channels=32, max_channels=128, latent_dim=64, mapping_layers=2)
    return network.to(DEVICE).eval().requires_grad_(False)


def network_input(batch: int = 2, size: int = 128) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.rand(batch, 7, size, size, generator=rng).to(DEVICE)


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).float().norm() / wanted.float().norm())


@torch.no_grad()
def test_bfloat16_is_near_float32(generator: Generator) -> None:
    wanted = generator(network_input())
    with torch.autocast(DEVICE, torch.bfloat16):
        found = generator(network_input())
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert relative_error(one, other) < 0.05


@torch.no_grad()
def test_channels_last_equals_contiguous(generator: Generator) -> None:
    wanted = generator(network_input())
    found = generator(network_input().contiguous(memory_format=torch.channels_last))
    for one, other in zip(found, wanted, strict=True):
        assert relative_error(one, other) < 2e-3


def test_the_biased_attention_runs_on_the_flash_kernel() -> None:
    rng = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 4, 256, 32, generator=rng).to(DEVICE, torch.bfloat16) for _ in range(3)
    )
    bias = torch.randn(2, 256, generator=rng).to(DEVICE)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where that kernel cannot be used
        found = biased_attention(query, key, value, bias)
    logits = query.float() @ key.float().transpose(-1, -2) / 32**0.5 + bias[:, None, None, :]
    assert relative_error(found, logits.softmax(-1) @ value.float()) < 0.02


@torch.no_grad()
def test_a_cuda_graph_equals_eager(generator: Generator) -> None:
    static = network_input(batch=1)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            generator(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mean, log_variance = generator(static)
    other = network_input(batch=3)[2:]
    static.copy_(other)
    graph.replay()
    wanted = generator(other)
    assert relative_error(mean, wanted[0]) < 2e-3
    assert relative_error(log_variance, wanted[1]) < 2e-3


@torch.no_grad()
def test_the_loop_gives_what_it_gives_on_the_cpu(generator: Generator) -> None:
    """With noise from CPU generators; pixels at the edge of a pick may fall on either side."""
    image = network_input(batch=1)[:, :3] * 2 - 1
    mask = torch.ones_like(image[:, :1])
    mask[..., 32:96, 32:96] = 0
    loop = SpatialDiffusion(num_iterations=2)
    noise = [torch.Generator().manual_seed(0)]
    found = loop(generator, image, mask, generator=noise).completed.cpu()
    generator.cpu()
    noise = [torch.Generator().manual_seed(0)]
    wanted = loop(generator, image.cpu(), mask.cpu(), generator=noise).completed
    generator.to(DEVICE)
    assert (found - wanted).abs().mean() < 0.01
    assert torch.equal(found * mask.cpu(), image.cpu() * mask.cpu())


def trainer(folder: Path, steps: int, **options: object) -> pl.Trainer:
    return quiet_trainer(
        max_steps=steps, accelerator="gpu" if DEVICE == "cuda" else "cpu", devices=1,
        default_root_dir=folder, **options,
    )  # fmt: skip


def parameters(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().cpu().flatten() for p in module.parameters()])


def test_resume_continues(tmp_path: Path) -> None:
    whole, first, second, other = (tiny_module() for _ in range(4))
    start = parameters(whole.generator)
    # Four times the same batch: this loader, unlike the package's own, starts again on a resume.
    loader = DataLoader(ConcatDataset([TinyImages(4)] * 4), batch_size=4)
    trainer(tmp_path, 4).fit(whole, loader)
    half = trainer(tmp_path, 2)
    half.fit(first, loader)
    half.save_checkpoint(tmp_path / "half.ckpt")
    trainer(tmp_path, 4).fit(second, loader, ckpt_path=tmp_path / "half.ckpt")
    assert whole.images_seen == second.images_seen == 16
    # The GPU's sums by atomic additions are in no fixed order, and Adam's first steps turn the sign
    # of a gradient into a whole step: single weights may differ by that, the way taken may not.
    end = parameters(whole.generator)
    off = (parameters(second.generator) - end).norm()
    trainer(tmp_path, 2).fit(other, loader, ckpt_path=None)
    stayed = (parameters(other.generator) - end).norm()
    assert off < 0.2 * min((start - end).norm(), stayed)
    states = [module.optimizers(use_pl_optimizer=False)[0].state for module in (whole, second)]
    steps = [{float(state["step"]) for state in found.values()} for found in states]
    assert steps[0] == steps[1] == {4.0}


def test_bfloat16_training_stays_finite(tmp_path: Path) -> None:
    module = tiny_module()
    trainer(tmp_path, 4, precision="bf16-mixed").fit(module, tiny_loader())
    assert bool(parameters(module).isfinite().all())


def test_one_process_with_nccl(tmp_path: Path) -> None:
    module = tiny_module()
    strategy = DDPStrategy(process_group_backend="nccl" if DEVICE == "cuda" else "gloo")
    trainer(tmp_path, 2, strategy=strategy).fit(module, tiny_loader())
    assert module.images_seen == 8
    assert bool(parameters(module).isfinite().all())


@pytest.mark.skipif(DEVICE != "cuda", reason="the allocator's peak")
def test_memory_is_flat_in_the_number_of_iterations(tmp_path: Path) -> None:
    peaks = {}
    for iterations in (1, 1, 4):  # the first only warms up
        module = tiny_module(diffusion=SpatialDiffusion(num_iterations=iterations))
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        trainer(tmp_path, 2).fit(module, tiny_loader(batch_size=32))
        peaks[iterations] = torch.cuda.max_memory_allocated()
    assert peaks[4] <= 1.10 * peaks[1]


@torch.no_grad()
def test_compiled_equals_eager(generator: Generator) -> None:
    wanted = generator(network_input())
    found = torch.compile(generator)(network_input())
    for one, other in zip(found, wanted, strict=True):
        assert relative_error(one, other) < 2e-3  # sums in another order
