"""Adaptive discriminator augmentation: identity, statistics, equivariance, derivatives."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from sdm_lightning.errors import InputError
from sdm_lightning.losses import r1_penalty
from sdm_lightning.training.augment import GEOMETRIC, AdaptiveAugment, resampled


def pair(batch=8, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, size, size, generator=generator) * 2 - 1
    mask = (torch.rand(batch, 1, size, size, generator=generator) > 0.5).float()
    return image, mask


def smooth(batch=8, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 5, 5, generator=generator) * 2 - 1
    return F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)


def test_probability_zero_is_the_identity_and_draws_nothing():
    image, mask = pair()
    state = torch.get_rng_state()
    found_image, found_mask = AdaptiveAugment()(image, mask)
    assert found_image is image
    assert found_mask is mask
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("transforms", "share"),
    [
        (("scale",), 1.0),
        (("stretch",), 1.0),
        (("shift",), 1.0),
        (("rotate",), 1.0),  # two rotations, together with probability p
        (("flip",), 1 / 2),  # "none" is one of the draws
        (("rotate90",), 3 / 4),
        (("translate",), 1 - 1 / 16),  # about: offset zero is one of them, +-2 of 16 pixels
    ],
)
@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_share_of_samples_that_are_transformed(transforms, share, probability):
    torch.manual_seed(1)
    image, mask = pair(batch=4000, size=8)
    if transforms == ("translate",):
        # Sides of 8: offsets uniform in [-1, 1], rounded: 0 with probability 1/2 on each axis.
        share = 3 / 4
    augment = AdaptiveAugment(probability=probability, transforms=transforms)
    found, _ = augment(image, mask)
    moved = (found != image).flatten(1).any(1).float().mean().item()
    expected = share * probability
    assert moved == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 4000))


def test_geometric_transforms_are_independent():
    torch.manual_seed(0)
    image, mask = pair(batch=4000, size=8)
    p = 0.3
    found, _ = AdaptiveAugment(probability=p)(image, mask)
    untouched = (found == image).flatten(1).all(1).float().mean().item()
    shares = {"flip": 1 / 2, "rotate90": 3 / 4, "translate": 3 / 4}
    expected = math.prod(1 - p * shares.get(name, 1) for name in GEOMETRIC)
    assert untouched == pytest.approx(expected, abs=0.025)


def test_flips_and_quarter_turns_are_pixel_exact():
    torch.manual_seed(0)
    image, mask = pair(batch=64)
    found, found_mask = AdaptiveAugment(probability=1.0, transforms=("flip", "rotate90"))(
        image, mask
    )
    seen = set()
    for index in range(64):
        both = torch.cat([image[index], mask[index]])
        candidates = {
            (flip, turns): torch.rot90(both.flip(2) if flip else both, turns, (1, 2))
            for flip in (0, 1)
            for turns in range(4)
        }
        result = torch.cat([found[index], found_mask[index]])
        matching = [k for k, c in candidates.items() if torch.allclose(c, result, atol=1e-4)]
        assert len(matching) == 1
        seen.add(matching[0])
    assert len(seen) == 8


def test_translation_is_by_whole_pixels_up_to_an_eighth_and_reflects():
    torch.manual_seed(0)
    image, mask = pair(batch=64)
    found, _ = AdaptiveAugment(probability=1.0, transforms=("translate",))(image, mask)
    # numpy's and OpenCV's "symmetric" border: the edge pixel is repeated.
    padded = torch.cat([image[..., :2].flip(3), image, image[..., -2:].flip(3)], 3)
    padded = torch.cat([padded[:, :, :2].flip(2), padded, padded[:, :, -2:].flip(2)], 2)
    seen = set()
    for index in range(64):
        offsets = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.allclose(padded[index, :, y : y + 16, x : x + 16], found[index], atol=1e-4)
        ]
        assert len(offsets) == 1
        seen.add(offsets[0])
    assert len(seen) > 15


def drawn_matrices(*transforms):
    augment = AdaptiveAugment(probability=1.0, transforms=transforms)
    return augment._draw_matrix(4000, 16, 32, torch.device("cpu"))[0]


def test_spreads_are_the_published_ones():
    torch.manual_seed(0)
    scale, stretch = drawn_matrices("scale"), drawn_matrices("stretch")
    for matrices in (scale, stretch):
        spread = matrices[:, 0, 0].log().std().item()
        assert spread == pytest.approx(0.2 * math.log(2), rel=0.05)
    torch.testing.assert_close(scale[:, 1, 1], scale[:, 0, 0])
    torch.testing.assert_close(stretch[:, 1, 1], 1 / stretch[:, 0, 0])
    shift = drawn_matrices("shift")[:, :2, 2] / torch.tensor([32, 16])  # x before y
    torch.testing.assert_close(shift.std(0), torch.full((2,), 0.125), rtol=0.05, atol=0)


def test_transforms_follow_each_other():
    """Output pixels are scaled, then moved by whole pixels of the input."""
    torch.manual_seed(0)
    both = drawn_matrices("translate", "scale")
    assert (both[:, 0, 0] != 1).all()
    torch.testing.assert_close(both[:, :2, 2], both[:, :2, 2].round(), rtol=0, atol=0)


def test_image_and_mask_move_together_and_the_mask_stays_binary():
    torch.manual_seed(0)
    # An image that is its mask, of blobs large enough to survive the image's interpolation.
    mask = (smooth(batch=32)[:, :1] > 0).float()
    image = (mask * 2 - 1).expand(-1, 3, -1, -1)
    found, found_mask = AdaptiveAugment(probability=1.0)(image, mask)
    assert found_mask.shape == mask.shape
    assert set(found_mask.unique().tolist()) == {0.0, 1.0}
    # Bilinear, beyond +-1/2: the nearest pixel, whose share is at least 1/4, must be of that sign.
    clear = found[:, :1].abs() > 0.51
    assert clear.float().mean() > 0.9
    assert torch.equal((found[:, :1] > 0).float()[clear], found_mask[clear])
    assert (found_mask != mask).float().mean() > 0.1


def test_samples_are_transformed_independently():
    torch.manual_seed(0)
    image, mask = smooth(batch=1), torch.ones(1, 1, 32, 32)
    found, _ = AdaptiveAugment(probability=1.0)(
        image.expand(6, -1, -1, -1), mask.expand(6, 1, 32, 32)
    )
    for i in range(6):
        for j in range(i):
            assert (found[i] - found[j]).abs().max() > 0.1


def test_a_rotation_of_an_oblong_image_keeps_distances():
    torch.manual_seed(0)
    # A disc around the centre looks the same from every side.
    y, x = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(48) - 23.5, indexing="ij")
    disc = ((x**2 + y**2) < 8**2).float()[None, None]
    found, mask = AdaptiveAugment(probability=1.0, transforms=("rotate",))(
        disc.expand(16, 3, -1, -1) * 2 - 1, disc.expand(16, -1, -1, -1)
    )
    middle = (..., slice(14, 34))  # further out the reflection repeats the disc
    assert (mask != disc)[middle].float().mean() < 0.05
    assert (found - (disc * 2 - 1))[middle].abs().mean() < 0.15


def test_nothing_new_enters_from_beyond_the_border():
    torch.manual_seed(0)
    image, mask = torch.full((64, 3, 16, 16), 0.7), torch.ones(64, 1, 16, 16)
    found, found_mask = AdaptiveAugment(probability=1.0)(image, mask)
    torch.testing.assert_close(found, image, rtol=0, atol=1e-5)
    assert torch.equal(found_mask, mask)


def test_gradient_of_the_image_matches_finite_differences():
    image, mask = pair(batch=3, size=8)
    augment = AdaptiveAugment(probability=0.8)
    weight = torch.randn(3, 3, 8, 8)

    def loss(x):
        torch.manual_seed(4)
        return (augment(x, mask)[0] * weight).sum()

    image.requires_grad_()
    loss(image).backward()
    # Linear in the image: a large step is as good as a small one.
    with torch.no_grad():
        for position in ((0, 0, 3, 3), (1, 2, 0, 7), (2, 1, 5, 2)):
            shifted = image.clone()
            shifted[position] += 1.0
            difference = (loss(shifted) - loss(image)).item()
            assert image.grad[position].item() == pytest.approx(difference, abs=2e-4)


def test_second_derivative_of_resampling():
    torch.manual_seed(0)
    image = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    grid = torch.rand(1, 3, 3, 2, dtype=torch.float64) * 3 - 1.5

    def function(x):
        return resampled(x, grid).tanh()

    assert torch.autograd.gradcheck(function, image)
    assert torch.autograd.gradgradcheck(function, image)


def test_gradient_penalty_through_the_augmentation():
    image, mask = pair(batch=2)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 8), torch.nn.Tanh())
    image.requires_grad_()
    torch.manual_seed(0)
    augmented, _ = AdaptiveAugment(probability=1.0, transforms=("rotate90",))(image, mask)
    penalty = r1_penalty(network(augmented).sum(1, keepdim=True), image)
    # A permutation of pixels leaves the length of the gradient alone.
    direct = augmented.detach().requires_grad_()
    expected = r1_penalty(network(direct).sum(1, keepdim=True), direct)
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-4)
    penalty.backward()
    assert network[1].weight.grad.abs().sum() > 0


def test_update_moves_by_images_and_stays_in_range():
    augment = AdaptiveAugment(target=0.6, images_to_unit=1000)
    steps = [(0.9, 128, 0.128), (torch.tensor(0.7), 128, 0.256), (0.1, 56, 0.2), (0.6, 64, 0.2)]
    for mean, images, expected in steps:
        augment.update(mean, images)
        assert augment.probability.item() == pytest.approx(expected)
    augment.update(float("nan"), 500)
    assert augment.probability.item() == pytest.approx(0.2)
    augment.update(-1.0, 900)
    assert augment.probability.item() == 0
    augment.update(1.0, 5000)
    assert augment.probability.item() == 1


def test_speed_of_the_published_setting():
    augment = AdaptiveAugment()
    assert (augment.target, augment.interval) == (0.6, 4)
    augment.update(1.0, 4 * 32)
    assert augment.probability.item() == pytest.approx(2.56e-4)


def test_probability_is_resumed_and_noticed():
    image, mask = pair()
    first = AdaptiveAugment(probability=0.9)
    second = AdaptiveAugment()
    assert second(image, mask)[0] is image
    second.load_state_dict(first.state_dict())
    assert second.probability.dtype == torch.float32
    for augment in (second, copy.deepcopy(second)):
        torch.manual_seed(0)
        found = augment(image, mask)
        torch.manual_seed(0)
        expected = first(image, mask)
        assert not torch.equal(found[0], image)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    second.probability.zero_()
    assert second(image, mask)[0] is image
    second.probability = torch.tensor(1.0)
    assert not torch.equal(second(image, mask)[0], image)


def test_bfloat16_in_bfloat16_out():
    torch.manual_seed(0)
    image, mask = pair()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, found_mask = AdaptiveAugment(probability=1.0)(image.bfloat16(), mask)
    assert found.dtype == torch.bfloat16
    assert found_mask.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transforms": ("flip", "zoom")}, "'zoom' is unknown"),
        ({"probability": 1.5}, r"must lie in \[0, 1\]"),
        ({"interval": 0}, "at least 1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InputError, match=message):
        AdaptiveAugment(**options)
