"""Mapping network: normalised input, running average."""

import pytest
import torch

from sdm_lightning.models import MappingNetwork


def test_code_does_not_depend_on_the_length_of_the_noise():
    torch.manual_seed(0)
    mapping = MappingNetwork(16, 3)
    z = torch.randn(5, 16)
    torch.testing.assert_close(mapping(z), mapping(7.0 * z), atol=1e-5, rtol=1e-4)


def test_float64_stays():
    assert MappingNetwork(4, 1).double()(torch.ones(2, 4).double()).dtype == torch.float64


def test_layers_and_initial_scale():
    torch.manual_seed(0)
    mapping = MappingNetwork(128, 8)
    assert len(mapping.layers) == 8
    # Each layer keeps the second moment: E[2 lrelu(x)^2] = 1 + 0.2^2 = 1.04 for x ~ N(0, 1).
    moment = mapping(torch.randn(256, 128)).square().mean().item()
    assert moment == pytest.approx(1.04**8, rel=0.35)


def test_average_follows_the_batch_means():
    mapping = MappingNetwork(4, 1)
    assert torch.equal(mapping.average, torch.zeros(4))
    mapping.update_average(torch.full((4,), 2.0))
    torch.testing.assert_close(mapping.average, torch.full((4,), 0.01))
    mapping.update_average(torch.full((4,), 4.0))
    torch.testing.assert_close(mapping.average, torch.full((4,), 0.995 * 0.01 + 0.005 * 4.0))
    assert "average" in mapping.state_dict()
