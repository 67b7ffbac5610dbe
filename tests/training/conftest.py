"""A model small enough to train ten steps in a second, and batches that repeat."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from sdm_lightning.data import free_form_mask
from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.losses import PixelPyramidLoss
from sdm_lightning.models import Discriminator, Generator
from sdm_lightning.training import LossSettings, SDMModule

SIZE = 32


class TinyImages(Dataset):
    """Smooth random images with free-form masks; the same for the same index."""

    def __init__(self, length=64):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        rng = torch.Generator().manual_seed(index)
        coarse = torch.rand(1, 3, 4, 4, generator=rng) * 2 - 1
        image = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")[0]
        mask = torch.from_numpy(free_form_mask("mat256_large", SIZE, index)).float()[None]
        return {"image": image, "mask": mask, "key": f"{index:04d}"}


def tiny_loader(batch_size=4, length=64):
    return DataLoader(TinyImages(length), batch_size=batch_size)


def tiny_module(**changes):
    torch.manual_seed(0)
    network = {
        "base_channels": 8,
        "max_channels": 16,
        "num_downsamples": 3,
        "attention_strides": (8,),
        "attention_heads": 2,
        "bias_channels": 4,
        "latent_dim": 8,
        "mapping_layers": 2,
    } | changes.pop("network", {})
    settings = {
        "generator": Generator(**network),
        "discriminator": Discriminator(
            resolution=SIZE, base_channels=8, max_channels=16, mbstd_group=2
        ),
        "perceptual": PixelPyramidLoss(),
        "diffusion": SpatialDiffusion(num_iterations=2),
        "losses": LossSettings(r1_interval=2),
    }
    return SDMModule(**(settings | changes))


@pytest.fixture
def make_module():
    return tiny_module


@pytest.fixture
def make_loader():
    return tiny_loader
