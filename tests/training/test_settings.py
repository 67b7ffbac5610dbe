"""The lazy-regularisation correction against the published numbers."""

import pytest

from sdm_lightning.training import AdamSettings


def test_correction_of_the_discriminator_with_interval_16():
    found = AdamSettings(lr=1e-3, betas=(0.0, 0.99)).corrected(16)
    assert found["lr"] == pytest.approx(9.41e-4, abs=1e-6)
    assert found["betas"] == (0.0, pytest.approx(0.9906, abs=1e-4))


def test_no_interval_no_correction():
    assert AdamSettings().corrected(None) == {"lr": 1e-3, "betas": (0.0, 0.99), "eps": 1e-8}
