import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.evaluation.convention_guard import ConventionGuard


def guard_of(mask, known_error, hole_error):
    real = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    difference = torch.where(mask == 1, known_error, hole_error).to(torch.uint8)
    guard = ConventionGuard("masks")
    guard.update(real, real + difference, mask)
    return guard


@pytest.fixture
def mask():
    mask = torch.ones(2, 1, 8, 8)
    mask[..., 2:6, 2:6] = 0
    return mask


def test_composites_and_raw_outputs_pass(mask):
    for known, hole in ((0, 40), (3, 40), (0, 0)):
        guard = guard_of(mask, known, hole)
        guard.check()
        assert guard.known_error == pytest.approx(known)
        assert guard.hole_error == pytest.approx(hole)
        assert guard.hole_ratio == 0.25


def test_inverted_masks_are_refused_with_the_argument(mask):
    with pytest.raises(InputError, match=r"looks inverted.*--mask_convention hole-white"):
        guard_of(1 - mask, 40, 0).check()


def test_sets_that_are_nearly_all_hole(mask):
    mask[..., :6] = 0
    guard_of(mask, 0, 0).check()  # three quarters, about CoModGAN's at 256
    mask[..., :7] = 0
    with pytest.raises(InputError, match="88 % of the pixels are hole"):
        guard_of(mask, 0, 0).check()
    with pytest.raises(InputError, match="no mask has a hole"):
        guard_of(torch.ones_like(mask), 0, 0).check()
