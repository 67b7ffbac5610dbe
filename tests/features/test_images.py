import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.features.images import full_float32, to_uint8


def test_all_256_levels_survive_the_way_through_floats():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(to_uint8(levels.float() / 127.5 - 1), levels)
    assert to_uint8(levels) is levels


def test_values_outside_are_clamped_not_wrapped():
    assert to_uint8(torch.tensor([-1.2, 0.0, 1.2]).view(1, 3, 1, 1)).flatten().tolist() == [
        0,
        128,  # 127.5 rounds to the even neighbour
        255,
    ]


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 4, 4), torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4).long()]
)
def test_other_shapes_and_types_are_refused(images):
    with pytest.raises(InputError, match="images must be"):
        to_uint8(images)


def test_full_float32_switches_autocast_off():
    a = torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with full_float32(a.device):
            assert (a @ a).dtype == torch.float32
