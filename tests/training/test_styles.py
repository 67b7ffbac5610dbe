"""Latent codes: one per image, mixed by layer."""

import torch
from torch import nn

from sdm_lightning.training.styles import Styles, draw_styles


class MappingOnly(nn.Module):
    latent_dim = 4
    num_styles = 5

    def __init__(self):
        super().__init__()
        self.mapping = nn.Linear(4, 4, bias=False)
        nn.init.eye_(self.mapping.weight)


def test_codes_change_at_the_crossover():
    latent, second = torch.ones(2, 4), torch.full((2, 4), 3.0)
    styles = Styles(latent, second, crossover=2).mapped(MappingOnly())
    assert styles.shape == (2, 5, 4)
    assert styles[0, :, 0].tolist() == [1, 1, 3, 3, 3]


def test_mean_is_of_the_first_code():
    styles = Styles(torch.tensor([[1.0, 0, 0, 0], [3.0, 0, 0, 0]]))
    assert styles.mapped(MappingOnly()).shape == (2, 4)
    assert styles.mean(MappingOnly()).tolist() == [2, 0, 0, 0]


def test_code_of_an_image_does_not_depend_on_its_batch():
    def generators(*seeds):
        return [torch.Generator().manual_seed(s) for s in seeds]

    together = draw_styles(MappingOnly(), 3, generator=generators(1, 2, 3)).latent
    alone = draw_styles(MappingOnly(), 1, generator=generators(2)).latent
    assert torch.equal(together[1:2], alone)


def test_mixing_probability():
    torch.manual_seed(0)
    drawn = [draw_styles(MappingOnly(), 1, 0.25) for _ in range(800)]
    mixed = [d for d in drawn if d.second is not None]
    assert abs(len(mixed) / 800 - 0.25) < 4 * (0.25 * 0.75 / 800) ** 0.5
    assert {d.crossover for d in mixed} == {1, 2, 3, 4}
