"""Drawing the generator's latent codes, with style mixing (StyleGAN, Karras et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdm_lightning.diffusion import Network, network_output


@dataclass(frozen=True)
class Styles:
    """Latent codes of a batch, mapped on demand so that each backward has its own graph.

    Attributes:
        latent: ``(B, latent_dim)``, standard normal.
        second: A second code for the layers from ``crossover`` on, or None.
        crossover: First style layer that takes the second code.
    """

    latent: Tensor
    second: Tensor | None = None
    crossover: int = 0

    def mapped(self, generator: nn.Module) -> Tensor:
        """Map to styles w: ``(B, latent_dim)``, or ``(B, num_styles, latent_dim)`` where mixed."""
        first: Tensor = generator.mapping(self.latent)  # type: ignore[operator]
        if self.second is None:
            return first
        second: Tensor = generator.mapping(self.second)  # type: ignore[operator]
        count = int(generator.num_styles)  # type: ignore[arg-type]
        layers = torch.arange(count, device=first.device)[None, :, None]
        return torch.where(layers < self.crossover, first[:, None], second[:, None])

    @torch.no_grad()
    def mean(self, generator: nn.Module) -> Tensor:
        """Average the first code's w over the batch; ``(latent_dim,)``, without gradient."""
        first: Tensor = generator.mapping(self.latent)  # type: ignore[operator]
        return first.float().mean(dim=0)


def draw_styles(
    generator_network: nn.Module,
    batch_size: int,
    mixing_probability: float = 0.0,
    generator: Sequence[torch.Generator] | None = None,
) -> Styles:
    """Draw one latent code per image, the same for all its iterations.

    Args:
        generator_network: Gives ``latent_dim``, ``num_styles`` and the device.
        batch_size: B.
        mixing_probability: Chance that the batch gets a second code from a random layer on.
        generator: One random generator per image; the global one if None.
    """
    size = int(generator_network.latent_dim)  # type: ignore[arg-type]
    device = next(generator_network.parameters()).device
    if generator is not None:
        rows = [torch.randn(size, generator=g, device=g.device) for g in generator]
        return Styles(torch.stack(rows).to(device))
    latent = torch.randn(batch_size, size, device=device)
    if not mixing_probability or torch.rand(()).item() >= mixing_probability:
        return Styles(latent)
    count = int(generator_network.num_styles)  # type: ignore[arg-type]
    crossover = int(torch.randint(1, count, ()).item()) if count > 1 else 1
    return Styles(latent, torch.randn_like(latent), crossover)


def styled_network(generator: nn.Module, styles: Styles) -> Network:
    """Bind the styles to the generator, as the diffusion loop takes it."""

    def network(inputs: Tensor) -> tuple[Tensor, Tensor]:
        # Mapped anew in each iteration: the mapping network's graph is freed with it.
        return network_output(generator, inputs, styles.mapped(generator))

    return network
