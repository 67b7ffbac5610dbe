import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sdm_lightning.metrics.paired import (
    hole_ratio,
    l1,
    psnr,
    ssim,
    uncertainty_error_correlation,
)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (2, 3, 24, 20), generator=generator).to(torch.uint8)
    noise = torch.randn(image.shape, generator=generator) * torch.tensor([10.0, 40.0]).view(
        2, 1, 1, 1
    )
    return (image + noise).round().clamp(0, 255).to(torch.uint8), image


def test_psnr_is_skimages_of_each_image(pair):
    completed, image = pair
    expected = [
        peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=255)
        for a, b in zip(image, completed, strict=True)
    ]
    assert psnr(completed, image).tolist() == pytest.approx(expected, rel=1e-12)


def test_ssim_is_skimages_gaussian_over_whole_windows(pair):
    completed, image = pair
    for value, a, b in zip(ssim(completed, image), completed, image, strict=True):
        maps = [
            structural_similarity(
                x.numpy().astype(float), y.numpy().astype(float), data_range=255,
                gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
            )[1]
            for x, y in zip(a, b, strict=True)
        ]  # fmt: skip
        assert value.item() == pytest.approx(np.mean([m[5:-5, 5:-5] for m in maps]), rel=1e-10)


def test_ssim_of_images_smaller_than_its_window_does_not_exist():
    small = torch.zeros(2, 3, 10, 32, dtype=torch.uint8)
    assert ssim(small, small).isnan().all()


def test_scores_over_the_hole_count_hole_pixels_alone():
    image = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    completed = image.clone()
    mask = torch.ones(1, 1, 4, 4)
    mask[0, 0, 1, 2] = 0
    mask[0, 0, 3, 3] = 0
    completed[0, :, 1, 2] = 110
    completed[0, 0, 3, 3] = 70
    # Squared errors in the hole: 3 x 100 and 900, 0, 0; absolute: 3 x 10 and 30.
    assert psnr(completed, image, mask).item() == pytest.approx(10 * np.log10(255**2 / 200))
    assert l1(completed, image, mask).item() == pytest.approx(10 / 255)
    assert l1(completed, image).item() == pytest.approx(60 / 48 / 255)
    assert hole_ratio(mask).item() == 2 / 16


def test_identical_images_and_images_without_hole():
    image = torch.full((1, 3, 16, 16), 7, dtype=torch.uint8)
    assert psnr(image, image).item() == float("inf")
    assert ssim(image, image).item() == pytest.approx(1)
    assert psnr(image, image, torch.ones(1, 1, 16, 16)).isnan().all()
    assert l1(image, image, torch.ones(1, 1, 16, 16)).isnan().all()


def test_uncertainty_correlation_looks_at_the_hole_of_each_image():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 6, 6, generator=generator) * 2 - 1
    mean = torch.rand(2, 3, 6, 6, generator=generator) * 2 - 1
    mask = torch.ones(2, 1, 6, 6)
    mask[0, :, :3] = 0  # the second image has no hole
    error = (mean - image).abs().mean(1, keepdim=True)
    uncertainty = torch.where(mask == 0, error**2, -error)  # the opposite where known
    first, second = uncertainty_error_correlation(uncertainty, mean, image, mask)
    assert first.item() == pytest.approx(1)
    assert second.isnan()


@pytest.mark.filterwarnings("error")
def test_uncertainty_correlation_shares_ranks_and_is_nan_where_there_is_no_order():
    image = torch.zeros(5, 3, 2, 4)
    mean = torch.tensor([1.0, 2, 3, 3, 5, 6, 7, 8]).view(1, 1, 2, 4).expand(5, 3, 2, 4) / 8
    uncertainty = torch.tensor([1.0, 1, 2, 3, 5, 4, 7, 7]).view(1, 1, 2, 4).repeat(5, 1, 1, 1)
    uncertainty[1] = 0.5  # constant
    mask = torch.zeros(5, 1, 2, 4)
    mask[2], mask[3].view(-1)[1:], mask[4].view(-1)[2:] = 1, 1, 1  # none, one and two hole pixels
    uncertainty[4].view(-1)[1] = 0.5
    found = uncertainty_error_correlation(uncertainty, mean, image, mask)
    # Ranks 1.5 1.5 3 4 6 5 7.5 7.5 and 1 2 3.5 3.5 5 6 7 8.
    expected = 39.5 / (41 * 41.5) ** 0.5
    assert found[0].item() == pytest.approx(expected, rel=1e-12)
    assert found[1:4].isnan().all()
    assert found[4].item() == pytest.approx(-1)
    nothing = (maps[:0] for maps in (uncertainty, mean, image, mask))
    assert uncertainty_error_correlation(*nothing).shape == (0,)
