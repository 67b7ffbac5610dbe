import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.metrics.images import full_float32, pixel_hashes, row_hashes, to_uint8


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


def test_hashes_depend_on_content_and_shape_alone():
    assert row_hashes(["a", b"a"]).unique().numel() == 1
    assert row_hashes(["a", "b"]).unique().numel() == 2
    wide, tall = torch.zeros(1, 3, 2, 8), torch.zeros(1, 3, 8, 2)
    assert pixel_hashes(wide) == pixel_hashes(wide.clone())
    assert pixel_hashes(wide) != pixel_hashes(tall)
    changed = wide.clone()
    changed[0, 2, 1, 7] = 1
    assert pixel_hashes(wide) != pixel_hashes(changed)


def test_full_float32_switches_autocast_off():
    a = torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with full_float32(a.device):
            assert (a @ a).dtype == torch.float32
