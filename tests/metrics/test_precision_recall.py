import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from sdm_lightning.errors import InputError
from sdm_lightning.metrics.precision_recall import precision_recall


def reference(real, fake, k=3):
    """Share of ``fake`` inside the balls of ``real``, with scikit-learn's neighbours."""
    radii = NearestNeighbors(n_neighbors=k + 1).fit(real).kneighbors(real)[0][:, -1]
    return (torch.cdist(fake.double(), real.double()) <= torch.from_numpy(radii)).any(1).double()


def test_values_against_scikit_learns_neighbours():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(60, 4, generator=generator)
    fake = torch.randn(50, 4, generator=generator) * 1.5 + 0.5
    precision, recall = precision_recall(real, fake, chunk=13)
    assert precision == pytest.approx(reference(real, fake).mean().item(), abs=1e-6)
    assert recall == pytest.approx(reference(fake, real).mean().item(), abs=1e-6)
    assert 0 < precision < 1


def test_a_collapsed_set_is_precise_and_recalls_nothing():
    grid = torch.cartesian_prod(torch.arange(6.0), torch.arange(6.0))
    collapsed = torch.full((20, 2), 2.5) + torch.rand(20, 2) * 1e-3
    assert precision_recall(grid, collapsed) == (1.0, 0.0)
    with pytest.raises(InputError, match="more than 3 images"):
        precision_recall(grid[:3], collapsed)
