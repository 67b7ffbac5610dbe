import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from sdm_lightning.errors import InputError
from sdm_lightning.metrics.fid import FrechetInceptionDistance, frechet_distance


def rows(count, dim, seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99))
    return (torch.randn(count, dim, generator=generator) @ mix).relu() + shift


def fid_of(real, fake, batch=7):
    metric = FrechetInceptionDistance(real.shape[1])
    for part in real.split(batch):
        metric.update(part, real=True)
    for part in fake.split(batch):
        metric.update(part, real=False)
    return metric.compute()


@pytest.mark.parametrize("count", [200, 30])  # 30 rows in 64 dimensions: rank-deficient
def test_fid_is_torch_fidelitys(count):
    real, fake = rows(count, 64, 0), rows(count + 11, 64, 1, shift=0.3)
    statistics = [fid_features_to_statistics(x.double()) for x in (real, fake)]
    expected = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert fid_of(real, fake) == pytest.approx(expected, rel=1e-6)


def test_distance_of_gaussians_in_closed_form():
    # Commuting covariances: |m|^2 + sum (sqrt(a) - sqrt(b))^2.
    a, b = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 4.0, 1.0])
    mean = torch.tensor([1.0, 2.0, 2.0])
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    covariances = [turn @ torch.diag(x.double()) @ turn.T for x in (a, b)]
    found = frechet_distance(torch.zeros(3), covariances[0], mean, covariances[1])
    assert found == pytest.approx(9 + 1 + 0 + 4, rel=1e-12)


def test_equal_sets_have_distance_zero():
    same = rows(50, 64, 4)
    assert fid_of(same, same.flip(0)) == pytest.approx(0, abs=1e-5)


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match="at least 2 fake images, got 1"):
        fid_of(rows(3, 8, 0), rows(1, 8, 1))
