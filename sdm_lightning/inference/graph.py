"""The whole loop as one module without randomness of its own, for tracing and exporting."""

import torch
from torch import Tensor, nn

from sdm_lightning.diffusion import SpatialDiffusion

INPUTS = ("image", "mask", "latent", "noise")
OUTPUTS = ("completed", "uncertainty")


class InpaintingGraph(nn.Module):
    """All T iterations as one module without randomness of its own.

    Args:
        generator: The network.
        diffusion: The loop, the same that trains.
        num_iterations: T; fixed in the exported graph.
    """

    def __init__(
        self, generator: nn.Module, diffusion: SpatialDiffusion, num_iterations: int | None = None
    ) -> None:
        super().__init__()
        self.generator = generator
        self.diffusion = diffusion
        self.num_iterations = diffusion.num_iterations if num_iterations is None else num_iterations

    def forward(
        self, image: Tensor, mask: Tensor, latent: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fill the hole.

        Args:
            image: ``(B, 3, H, W)`` in [-1, 1]; what it holds in the hole is never read.
            mask: ``(B, 1, H, W)``, 1 = known, 0 = hole.
            latent: ``(B, latent_dim)``, standard normal: which of many fillings.
            noise: ``(B, T - 1, 3, H, W)``, standard normal: z of Eq. 5; zeros leave it out.

        Returns:
            Completed image ``(B, 3, H, W)`` and the first iteration's uncertainty
            ``(B, 1, H, W)`` in [0, 1].
        """
        styles = self.generator.mapping(latent)  # type: ignore[operator]

        # An exported graph has no random generator that would agree between runtimes.
        slices = iter(noise.unbind(1))
        steps = list(
            self.diffusion.iterate(
                lambda inputs: self.generator(inputs, styles), image, mask,
                num_iterations=self.num_iterations, generator=lambda like: next(slices),
            )
        )  # fmt: skip
        return steps[-1].completed, steps[0].uncertainty

    def example(
        self, height: int, width: int, seed: int = 0, batch: int = 1
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Build inputs of the right shapes with a hole in the middle, for tracing and checking."""
        rng = torch.Generator().manual_seed(seed)
        image = torch.rand(batch, 3, height, width, generator=rng) * 2 - 1
        mask = torch.ones(batch, 1, height, width)
        mask[:, :, height // 4 : height * 3 // 4, width // 4 : width * 5 // 8] = 0
        latent = torch.randn(batch, int(self.generator.latent_dim), generator=rng)  # type: ignore[arg-type]
        count = max(self.num_iterations - 1, 1)
        noise = torch.randn(batch, count, 3, height, width, generator=rng)
        return image, mask, latent, noise
