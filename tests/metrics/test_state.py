import math

import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.metrics.state import PerImageScores, finite_mean

DIGESTS = torch.zeros(1, 3, dtype=torch.int64)


def test_means_do_not_depend_on_the_order():
    values = torch.randn(7, dtype=torch.float64) * 10
    keys = [f"image{i}" for i in range(7)]
    means = []
    for order in (range(7), (4, 2, 6, 0, 1, 5, 3)):
        scores = PerImageScores(["psnr"])
        for i in order:
            scores.update([keys[i]], {"psnr": values[i : i + 1]}, DIGESTS)
        means.append(scores.compute()["psnr"])
    assert means[0] == means[1] == pytest.approx(values.mean().item(), rel=1e-15)


def test_an_image_seen_twice_is_refused():
    scores = PerImageScores(["psnr"])
    scores.update(["a", "b"], {"psnr": torch.ones(2)}, DIGESTS.expand(2, 3))
    scores.update(["a"], {"psnr": torch.ones(1)}, DIGESTS)
    with pytest.raises(InputError, match="1 of 3 images were seen more than once"):
        scores.compute()


def test_missing_scores_leave_the_others_alone():
    scores = PerImageScores(["psnr", "psnr_hole"])
    scores.update(
        ["a"], {"psnr": torch.tensor([1.0]), "psnr_hole": torch.tensor([torch.nan])}, DIGESTS
    )
    scores.update(["b"], {"psnr": torch.tensor([2.0]), "psnr_hole": torch.tensor([5.0])}, DIGESTS)
    scores.update(["c"], {"psnr": torch.tensor([torch.inf])}, DIGESTS)
    assert scores.compute() == {"psnr": 1.5, "psnr_hole": 5.0}
    with pytest.raises(ValueError, match="unknown scores"):
        scores.update(["d"], {"ssim": torch.ones(1)}, DIGESTS)


def test_mean_of_nothing_finite():
    assert finite_mean(torch.tensor([torch.inf, torch.inf])) == math.inf
    assert math.isnan(finite_mean(torch.tensor([torch.nan])))
    assert math.isnan(finite_mean(torch.tensor([])))


def test_states_stay_float64_on_the_cpu():
    scores = PerImageScores(["psnr"]).to("meta").half()
    scores.update(["a"], {"psnr": torch.tensor([1 / 3], dtype=torch.float64)}, DIGESTS)
    assert scores.compute()["psnr"] == 1 / 3
