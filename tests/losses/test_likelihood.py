"""The likelihood against arbitrary-precision values, and at its extremes."""

import itertools

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch

from sdm_lightning.losses import discretized_gaussian_nll

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def exact_nll(mean, log_variance, target):
    """-log of the bin's probability with 400 digits, straight from Eq. 1-3."""
    with mpmath.workdps(400):
        mean, log_variance, target = (mpmath.mpf(v) for v in (mean, log_variance, target))
        half_bin, deviation = mpmath.mpf(1) / 255, mpmath.exp(log_variance / 2)
        # By symmetry the bin lies at or above the mean: both tails are upper tails.
        sign = 1 if target >= mean else -1
        low = sign * (target - mean) - half_bin
        high = low + 2 * half_bin
        if abs(target) > 1 - half_bin:
            if (target > 0) == (sign > 0):
                high = mpmath.inf
            else:
                low = -mpmath.inf

        def tail(x):
            return mpmath.erfc(x / deviation / mpmath.sqrt(2)) / 2

        return -mpmath.log(tail(low) - tail(high))


def nll_and_slope(mean, log_variance, target, dtype):
    """The value, and its derivative by the log variance."""
    log_variance = torch.tensor(log_variance, dtype=dtype, requires_grad=True)
    nll = discretized_gaussian_nll(
        torch.tensor(mean, dtype=dtype), log_variance, torch.tensor(target, dtype=dtype)
    )
    nll.backward()
    return nll.item(), log_variance.grad.item()


# Mean, log variance, level: narrow and wide bins and each edge, both sides of the mean.
CASES = [
    (0.1, -2.0, 128), (0.1, 3.0, 128), (0.1, 15.0, 7), (0.1, 19.0, 200), (0.0, -9.0, 127),
    (0.004, -12.0, 128), (0.0005, -12.0, 127), (0.3, -11.0, 166), (0.3, -9.5, 166),
    (0.3, -8.0, 166), (-0.5, -6.0, 190), (-0.5, -8.0, 60), (0.9, -12.0, 3), (0.02, -14.0, 130),
    (0.5, -4.0, 255), (0.99, -12.0, 255), (1.3, -3.0, 255), (1.0, 5.0, 255), (-0.2, -9.0, 255),
    (-0.5, -4.0, 0), (-0.99, -12.0, 0), (-1.3, -3.0, 0), (-1.0, 20.0, 0), (0.2, -9.0, 0),
    (3.0, -5.0, 100), (-30.0, 2.0, 200), (0.5, -22.0, 20), (50.0, -8.0, 20), (50.0, -9.0, 0),
]  # fmt: skip


@pytest.mark.parametrize(("mean", "log_variance", "level"), CASES)
def test_value_and_slope_in_float64_match_arbitrary_precision(mean, log_variance, level):
    target = LEVELS[level].item()
    nll, slope = nll_and_slope(mean, log_variance, target, torch.float64)
    assert nll == pytest.approx(float(exact_nll(mean, log_variance, target)), rel=1e-11)

    with mpmath.workdps(400):
        step, middle = mpmath.mpf(10) ** -40, mpmath.mpf(log_variance)
        above, below = (exact_nll(mean, middle + side * step, target) for side in (1, -1))
        exact_slope = float((above - below) / (2 * step))
    assert slope == pytest.approx(exact_slope, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("mean", "log_variance", "level"), CASES)
def test_float32_keeps_the_digits_of_float64(mean, log_variance, level):
    # The same float32 numbers for both, so that only the computation differs.
    mean, log_variance, target = (
        float(np.float32(v)) for v in (mean, log_variance, LEVELS[level].item())
    )
    single = nll_and_slope(mean, log_variance, target, torch.float32)
    double = nll_and_slope(mean, log_variance, target, torch.float64)
    assert single == pytest.approx(double, rel=2e-5, abs=2e-6)


def test_agrees_with_scipy_where_scipy_is_accurate():
    rng = np.random.default_rng(0)
    mean, log_variance = rng.uniform(-1.2, 1.2, 2000), rng.uniform(-6, 3, 2000)
    level = rng.integers(0, 256, 2000)
    target = level / 127.5 - 1
    deviation = np.exp(log_variance / 2)
    high = np.where(level == 255, np.inf, (target + 1 / 255 - mean) / deviation)
    low = np.where(level == 0, -np.inf, (target - 1 / 255 - mean) / deviation)
    mirrored = low > 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    probability = scipy.stats.norm.cdf(high) - scipy.stats.norm.cdf(low)
    known = probability > 1e-250
    found = discretized_gaussian_nll(*(torch.from_numpy(v) for v in (mean, log_variance, target)))
    assert known.mean() > 0.9
    np.testing.assert_allclose(found[torch.from_numpy(known)], -np.log(probability[known]), 1e-9)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-5), (torch.float64, 1e-9)])
def test_probabilities_of_all_levels_sum_to_one(dtype, error):
    means = torch.tensor([-1.7, -1.0, -0.5, 0.001, 0.0039, 0.3, 0.996, 1.0, 2.0], dtype=dtype)
    log_variances = [-100.0, -30.0, -12.0, -10.0, -9.0, -4.0, 0.0, 6.0, 100.0]
    log_variances = torch.tensor(log_variances, dtype=dtype)
    nll = discretized_gaussian_nll(means[:, None, None], log_variances[:, None], LEVELS.to(dtype))
    sums = torch.exp(-nll).sum(dim=2)
    torch.testing.assert_close(sums, torch.ones(9, 9, dtype=dtype), rtol=0, atol=error)


@pytest.mark.parametrize("target", [-1.0, -0.3, 1 / 255, 1.0])
def test_finite_for_any_log_variance_and_error(target):
    log_variances = [-1e30, -1e4, -150.0, *range(-100, 101, 5), 150.0, 1e4, 1e30]
    means = [-1e30, -1e4, -1.0, -1 / 255, 0.0, 2 / 255, target, 1.0, 1e4, 1e30]
    grid = torch.tensor(list(itertools.product(means, map(float, log_variances))))
    log_variance = grid[:, 1].clone().requires_grad_()
    nll = discretized_gaussian_nll(grid[:, 0], log_variance, torch.tensor(target))
    nll.sum().backward()
    assert torch.isfinite(nll).all()
    assert torch.isfinite(log_variance.grad).all()
    assert (nll >= 0).all()


def test_gradient_leads_back_from_an_overconfident_variance():
    for log_variance in (-1000.0, -100.0, -50.0, -20.0):
        _, slope = nll_and_slope(0.5, log_variance, LEVELS[20].item(), torch.float32)
        assert slope < -1  # descending it widens the Gaussian


@pytest.mark.parametrize(
    ("beyond", "bound"), [(-23.0, -22.0), (-1e30, -22.0), (21.0, 20.0), (1e30, 20.0)]
)
@pytest.mark.parametrize("level", [20, 127])
def test_a_log_variance_beyond_a_bound_counts_as_the_bound(beyond, bound, level):
    target = LEVELS[level].item()
    found = nll_and_slope(0.5, beyond, target, torch.float32)
    assert found == nll_and_slope(0.5, bound, target, torch.float32)
    assert found[1] * bound > 0  # the gradient leads back


def test_best_deviation_is_the_error():
    # Far from edges and wide against a bin, -log p has its minimum over sigma at |error|.
    errors = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    log_variance = (2 * errors.log()).requires_grad_()
    discretized_gaussian_nll(errors, log_variance, LEVELS[127].expand(3) * 0).sum().backward()
    torch.testing.assert_close(log_variance.grad, torch.zeros(3).double(), atol=1e-3, rtol=0)


def test_targets_rounded_off_the_edge_still_count_as_the_edge():
    mean, log_variance = torch.tensor(0.2), torch.tensor(-3.0)
    at_edge = discretized_gaussian_nll(mean, log_variance, torch.tensor([1.0, -1.0]))
    for error in (1e-7, 1e-3):
        near = torch.tensor([1.0, -1.0]) * (1 - error)
        found = discretized_gaussian_nll(mean, log_variance, near)
        torch.testing.assert_close(found, at_edge, rtol=0, atol=0.03)
    # The neighbours of the edges have bins with two ends, and much less probability.
    inner = discretized_gaussian_nll(mean, log_variance, LEVELS[[254, 1]].float())
    assert (inner > at_edge + 0.5).all()


def test_no_gradient_reaches_the_mean():
    mean = torch.zeros(2, 3, 4, 4, requires_grad=True)
    log_variance = torch.zeros(2, 3, 4, 4, requires_grad=True)
    nll = discretized_gaussian_nll(mean, log_variance, torch.ones(2, 3, 4, 4))
    assert nll.shape == (2, 3, 4, 4)
    nll.sum().backward()
    assert mean.grad is None
    assert log_variance.grad.abs().sum() > 0


def test_computes_in_float32_inside_autocast():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(50), torch.randn(50)
    target = LEVELS[torch.randint(256, (50,))].float()
    expected = discretized_gaussian_nll(mean, log_variance, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = discretized_gaussian_nll(mean, log_variance, target)
        half = discretized_gaussian_nll(mean.bfloat16(), log_variance.bfloat16(), target)
    assert found.dtype == half.dtype == torch.float32
    assert torch.equal(found, expected)
