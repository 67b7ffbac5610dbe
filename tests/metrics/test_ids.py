import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from sdm_lightning.errors import InputError
from sdm_lightning.metrics import (
    PairedFeatures,
    inception_discriminative_scores,
)
from sdm_lightning.metrics.hashes import row_hashes


def features(count, dim, seed):
    rng = np.random.default_rng(seed)
    return rng.gamma(0.5, 1.0, (count, dim)).astype(np.float32)


def test_identical_sets_give_half_and_none():
    same = features(80, 12, 0)
    assert inception_discriminative_scores(same, same, few_pairs=True) == (0.0, 50.0)


def test_separable_sets_give_zero():
    real = features(60, 12, 0)
    assert inception_discriminative_scores(real, real + 5, few_pairs=True) == (0.0, 0.0)


def test_the_published_definition():
    real, fake = features(150, 10, 1), features(150, 10, 2)
    labels = np.concatenate([np.ones(150), np.zeros(150)])
    both = np.concatenate([real, fake])
    svm = LinearSVC(dual=False).fit(both, labels)
    on_real, on_fake = svm.decision_function(real), svm.decision_function(fake)
    p_ids, u_ids = inception_discriminative_scores(
        torch.from_numpy(real), torch.from_numpy(fake), few_pairs=True
    )
    assert p_ids == pytest.approx(100 * np.mean(on_fake > on_real))
    assert u_ids == pytest.approx(100 * (1 - svm.score(both, labels)))
    assert 20 < u_ids < 50
    assert 20 < p_ids < 50


def test_order_of_pairs_matters_not_but_pairing_does():
    real = features(200, 6, 3)
    fake = real + 0.05 * features(200, 6, 4) - 0.02
    order = np.random.default_rng(0).permutation(200)
    paired = inception_discriminative_scores(real, fake, few_pairs=True)
    moved = inception_discriminative_scores(real[order], fake[order], few_pairs=True)
    broken = inception_discriminative_scores(real, fake[order], few_pairs=True)
    assert moved == pytest.approx(paired)
    assert broken[1] == pytest.approx(paired[1], abs=0.51)  # U-IDS knows no pairs
    assert abs(broken[0] - paired[0]) > 5


def test_no_pair_is_refused_and_half_types_are_read():
    with pytest.raises(InputError, match="needs at least 1 pair"):
        inception_discriminative_scores(features(0, 4, 0), features(0, 4, 0), few_pairs=True)
    real, fake = (torch.from_numpy(features(60, 4, seed)).bfloat16() for seed in (0, 1))
    found = inception_discriminative_scores(real, fake, few_pairs=True)
    assert found == inception_discriminative_scores(real.float(), fake.float(), few_pairs=True)


def test_few_pairs_are_refused():
    rows = features(2499, 2, 0)
    with pytest.raises(InputError, match="2499 pairs are too few"):
        inception_discriminative_scores(rows, rows)
    more = features(2500, 2, 0)
    assert inception_discriminative_scores(more, more) == (0.0, 50.0)


def test_unpaired_shapes_and_nan_are_refused():
    with pytest.raises(InputError, match="expected the same"):
        inception_discriminative_scores(features(4, 2, 0), features(5, 2, 0), few_pairs=True)
    bad = features(4, 2, 0)
    bad[1, 1] = np.nan
    with pytest.raises(InputError, match="finite"):
        inception_discriminative_scores(bad, bad, few_pairs=True)


def test_the_metric_pairs_by_id_whatever_the_order():
    real, fake = (torch.from_numpy(features(120, 8, seed)) for seed in (5, 6))
    ids = row_hashes([str(i) for i in range(120)])
    metric = PairedFeatures(8)
    for part in torch.randperm(120, generator=torch.Generator().manual_seed(0)).split(17):
        metric.update(ids[part], real[part], fake[part])
    order = ids.argsort()
    for found, expected in zip(metric.compute(), (ids, real, fake), strict=True):
        assert torch.equal(found, expected[order])
    metric.update(ids[:1], real[:1], fake[:1])
    with pytest.raises(InputError, match="more than once"):
        metric.compute()
