"""The kernel distance against its definition, and that it does not depend on the number of rows."""

import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.metrics.kid import kernel_distance


def rows(count, shift=0.0, seed=0, dim=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64) + shift


def unbiased(x, y):
    """The estimate written as sums over pairs."""

    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j)
    within_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    between = sum(kernel(a, b) for a in x for b in y)
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)


def test_one_subset_is_the_definition_times_1000():
    real, fake = rows(12), rows(12, shift=0.5, seed=1)
    generator = torch.Generator().manual_seed(7)
    a, b = (torch.randperm(12, generator=generator)[:6] for _ in range(2))
    expected = 1000 * unbiased(real[a], fake[b]).item()
    assert kernel_distance(real, fake, subsets=1, seed=7) == (pytest.approx(expected, rel=1e-4), 0)


def test_expectation_is_that_of_the_distributions_for_any_number_of_rows():
    # Few rows must scatter around the value of many.
    far = kernel_distance(rows(20000), rows(20000, 0.5, 1), subsets=50)[0]
    few = [
        kernel_distance(rows(60, 0, s), rows(60, 0.5, 1000 + s), subsets=20)[0] for s in range(40)
    ]
    error = torch.tensor(few).std().item() / 40**0.5
    assert sum(few) / 40 == pytest.approx(far, abs=4 * error)
    same = [
        kernel_distance(rows(60, 0, s), rows(60, 0, 1000 + s), subsets=20)[0] for s in range(40)
    ]
    assert abs(sum(same) / 40) < 4 * torch.tensor(same).std().item() / 40**0.5
    assert far > 100


def test_order_of_rows_and_repetition_do_not_matter():
    real, fake = rows(50), rows(50, 0.2, 1)
    assert kernel_distance(real, fake) == kernel_distance(real, fake)
    _, deviation = kernel_distance(real, fake)
    assert deviation > 0


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="at least 4 images per side, got 3"):
        kernel_distance(rows(3), rows(10))
