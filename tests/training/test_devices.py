"""A whole step on a device that is not the CPU: nothing lies elsewhere, nothing waits for it.

The device has shapes only; what has to be computed on a GPU is in ``tests/gpu``.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.losses import (
    FeaturePerceptualLoss,
    PixelPyramidLoss,
    ResNetPerceptualLoss,
    WeightedPerceptualLoss,
)
from sdm_lightning.models import FeatureDiscriminator
from sdm_lightning.training import LossSettings, SDMModule
from sdm_lightning.training.augment import AdaptiveAugment
from tests.network_files import random_resnet
from tests.shapes_only import DEVICE, fit_shapes, shapes_only, to_device
from tests.training.conftest import SIZE, tiny_module

LITE0 = "efficientnet-lite0"
VARIANTS: dict[str, Callable[[Path], dict[str, object]]] = {
    "paper": lambda folder: {
        "perceptual": ResNetPerceptualLoss(str(random_resnet(folder))),
        "losses": LossSettings(r1_interval=1),
    },
    "augmented": lambda _: {"augment": AdaptiveAugment(interval=1), "gradient_clip": 1.0},
    "in parts": lambda _: {"style_mixing_probability": 1.0},
    "coupled": lambda _: {"decoupled": False, "random_iterations": (1, 3)},
    "attached": lambda _: {
        "diffusion": SpatialDiffusion(num_iterations=2, detach=False),
        "losses": LossSettings(
            likelihood_region="image", likelihood_reduction="mean", mean_region="image"
        ),
    },
    "kept": lambda _: {
        "diffusion": SpatialDiffusion(3, repredict=False, uncertainty_scale="clamp", alpha=0.0),
        "losses": LossSettings(adversarial=0.0, r1_gamma=0.0),
    },
    "demo": lambda _: {
        "discriminator": FeatureDiscriminator(LITE0, stages=[1, 2], width=16, min_size=64),
        "perceptual": WeightedPerceptualLoss(
            [FeaturePerceptualLoss(LITE0, min_size=64), PixelPyramidLoss()], weights=[1.0, 0.5]
        ),
        "losses": LossSettings(r1_gamma=0.0),
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_stays_on_its_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variant: str
) -> None:
    # The one value that is read from the device, each time that it has changed.
    monkeypatch.setattr(AdaptiveAugment, "_probability_on_host", lambda _: 0.5)
    module = tiny_module(**VARIANTS[variant](tmp_path))
    module.num_micro_batches = 2 if variant == "in parts" else 1
    logged = fit_shapes(module, monkeypatch, SIZE)
    assert module.images_seen == 4
    assert ("train/discriminator" in logged) == bool(module.losses.adversarial)
    assert ("train/r1" in logged) == (variant == "paper")


def test_inpainting_stays_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    module = tiny_module()
    with shapes_only(monkeypatch):
        to_device(module)
        image = torch.empty(2, 3, SIZE, SIZE, device=DEVICE)
        batch = {"image": image, "mask": image[:, :1], "key": ["a", "b"]}
        output = module.validation_step(batch, 0)
    for name in ("completed", "mean", "uncertainty"):
        assert output[name].device == DEVICE
    assert output["completed"].shape == (2, 3, SIZE, SIZE)


def spoilt(monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    whole = SDMModule._logits
    monkeypatch.setattr(
        SDMModule, "_logits", lambda self, image, mask: change(whole(self, image, mask))
    )


def test_a_value_that_is_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch, lambda logits: logits * logits.mean().item())
    with pytest.raises(DataDependentOutputException):
        fit_shapes(tiny_module(), monkeypatch, SIZE)


def test_a_tensor_on_the_cpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch, lambda logits: logits + torch.zeros(1))
    with pytest.raises(RuntimeError, match="meta"):
        fit_shapes(tiny_module(), monkeypatch, SIZE)
