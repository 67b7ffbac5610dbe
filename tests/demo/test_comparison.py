import numpy as np
import pytest
import torch

from sdm_lightning.demo.comparison import compare
from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.features.extractors import RandomConvFeatures
from sdm_lightning.inference import BASELINES, Inpainter, InpaintingStep
from tests.inference.conftest import Recorder

FEATURES = RandomConvFeatures(dim=16)


def ignore(*_: object) -> None:
    """Look at no picture."""


def test_scores_by_hand() -> None:
    # The network returns 0.5, -0.5, 0: levels 191, 64 and 128.
    images = [np.full((16, 16, 3), [191, 64, 128], np.uint8), np.full((16, 16, 3), 100, np.uint8)]
    known = np.ones((16, 16), bool)
    known[4:12, 4:12] = False
    shown: list[tuple[int, int, list[str]]] = []

    def show(index: int, steps: list[InpaintingStep], filled: dict[str, np.ndarray]) -> None:
        shown.append((index, len(steps), list(filled)))

    inpainter = Inpainter(Recorder(), SpatialDiffusion(alpha=0))
    found = compare(inpainter, images, [known, known], [0, 1], [1, 3], show, FEATURES)
    assert found.num_images == 2
    assert found.hole_ratio == 0.25
    assert shown == [(0, 3, list(BASELINES)), (1, 3, list(BASELINES))]
    assert list(found.scores) == ["SDM, 1 iteration", "SDM, 3 iterations", *BASELINES]
    for name in ("SDM, 1 iteration", "SDM, 3 iterations"):
        scores = found.scores[name]
        # The first image is met exactly: an infinite PSNR is left out of the mean.
        squared = (91**2 + 36**2 + 28**2) / 3
        assert scores["psnr_hole"] == pytest.approx(10 * np.log10(255**2 / squared))
        assert scores["l1_hole"] == pytest.approx((0 + (91 + 36 + 28) / 3 / 255) / 2)
    assert found.scores["mean"]["l1_hole"] == 0.0


def test_error_is_sorted_by_uncertainty() -> None:
    class Ramp(Recorder):
        """Wrong by as much as it is unsure."""

        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            wrong = torch.linspace(0, 1, inputs.shape[3]).expand(1, 3, *inputs.shape[2:])
            return wrong.clone(), (2 * torch.log(wrong + 0.1)).clone()

    image = np.full((16, 80, 3), 128, np.uint8)  # 0.004 in [-1, 1]
    known = np.ones((16, 80), bool)
    known[:, 10:70] = False
    found = compare(Inpainter(Ramp()), [image], [known], [0], [1], ignore, FEATURES)
    errors = np.abs(np.linspace(0, 1, 80)[10:70] / 2).reshape(10, 6).mean(axis=1)
    np.testing.assert_allclose(found.error_by_uncertainty, errors, atol=0.005)


def test_kid_is_a_score_of_every_method() -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8))
    known = np.ones((32, 32), bool)
    known[8:24, 8:24] = False
    found = compare(Inpainter(Recorder()), images, [known] * 4, range(4), [1], ignore, FEATURES)
    assert all("kid[random-conv]" in scores for scores in found.scores.values())
