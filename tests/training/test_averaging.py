"""The moving average against its closed form."""

import pytest
import torch
from torch import nn

from sdm_lightning.training.averaging import AverageSettings, averaged_copy, update_average


def test_half_life_is_in_images_whatever_the_batch():
    settings = AverageSettings(half_life_images=1000)
    assert settings.decay(5000, 1000) == pytest.approx(0.5)
    assert settings.decay(5000, 10) ** 100 == pytest.approx(0.5)


def test_ramp_up_shortens_the_half_life_at_the_start():
    settings = AverageSettings(half_life_images=1000, ramp_up=0.05)
    assert settings.decay(2000, 100) == pytest.approx(0.5)  # half-life 100
    assert settings.decay(100_000, 1000) == pytest.approx(0.5)


def test_average_moves_by_lerp_and_copies_buffers():
    live = nn.BatchNorm1d(2)
    average = averaged_copy(live)
    assert not average.training
    assert not any(p.requires_grad for p in average.parameters())
    with torch.no_grad():
        live.weight.fill_(3.0)
        live.running_mean.fill_(7.0)
    update_average(average, live, decay=0.75)
    torch.testing.assert_close(average.weight, torch.full((2,), 0.75 * 1 + 0.25 * 3))
    torch.testing.assert_close(average.running_mean, torch.full((2,), 7.0))
    assert live.weight.requires_grad
