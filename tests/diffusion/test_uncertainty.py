"""One uncertainty per pixel from three variances."""

import math

import pytest
import torch

from sdm_lightning.diffusion.uncertainty import scale_uncertainty, standard_deviation_map


@pytest.mark.parametrize(("channels", "expected"), [("mean", 0.3), ("max", 0.6)])
def test_a_pixels_deviation_is_the_mean_or_the_largest_of_its_channels(channels, expected):
    deviation = torch.tensor([0.1, 0.2, 0.6]).view(1, 3, 1, 1)
    found = standard_deviation_map(2 * deviation.log(), channels)
    torch.testing.assert_close(found, torch.full((1, 1, 1, 1), expected))
    limited = standard_deviation_map(torch.full((1, 3, 1, 1), 200.0))
    assert limited.item() == pytest.approx(math.exp(10))


def test_the_hole_alone_is_stretched():
    deviation = torch.tensor([0.5, 0.1, 0.3, 0.2]).view(1, 1, 1, 4)
    hole = torch.tensor([0.0, 1.0, 1.0, 1.0]).view(1, 1, 1, 4)
    found = scale_uncertainty(deviation, hole, "minmax").flatten()
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 1.0, 0.5]))
    found = scale_uncertainty(4 * deviation, hole, "clamp").flatten()
    torch.testing.assert_close(found, torch.tensor([0.0, 0.4, 1.0, 0.8]))
    none = scale_uncertainty(deviation, torch.zeros_like(hole), "minmax")
    assert torch.equal(none, torch.zeros_like(none))
