"""Adaptive discriminator augmentation (ADA): the discriminator's view, disturbed just enough.

Every image that the discriminator sees, real or completed, is transformed at random, and the mask
with it; how often adapts to how well the discriminator recognises real images (Karras et al. 2020,
"Training generative adversarial networks with limited data"; used by the paper, Sec. 4.2).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdm_lightning.constants import constant
from sdm_lightning.errors import InputError
from sdm_lightning.linear_map import linear_map

GEOMETRIC = ("flip", "rotate90", "translate", "scale", "rotate", "stretch", "shift")
"""Moves of image and mask alike: ADA's pixel-exact and general geometric sets."""

_SCALE_SPREAD = 0.2 * math.log(2)  # of the log scale: sizes mostly within 2^(+-0.4)
_TRANSLATE_MAX = 0.125  # of the side length
_SHIFT_SPREAD = 0.125  # of the side length


class AdaptiveAugment(nn.Module):
    """Transforms image and mask together at random, each transformation with probability p.

    ``forward`` is differentiable in the image, also twice (the gradient penalty needs it).
    ``update`` moves p, at most ``num_images / images_to_unit`` at a time, towards the point where
    the mean sign of the real logits is ``target``. p is a buffer and so is resumed.

    Randomness comes from torch's global generator. At p = 0 nothing is drawn or computed.

    Args:
        target: Target mean of sign(D(real)): 0 = the discriminator guesses, 1 = it is always right.
        interval: Batches between two calls of ``update``; kept here for the training step.
        images_to_unit: Images in which p can rise from 0 to 1.
        probability: First p.
        transforms: Any of ``GEOMETRIC``. There are none of colour, since the discriminator's mask
            input has none and inpainting must keep colours.

    Raises:
        InputError: For an unknown transformation or a number out of range.

    Source:
        Sec. 4.2; Karras et al. 2020, StyleGAN2-ADA, Sec. 3 and Appendix B for the transformations.
    """

    probability: Tensor

    def __init__(
        self,
        target: float = 0.6,
        interval: int = 4,
        images_to_unit: int = 500_000,
        probability: float = 0.0,
        transforms: Sequence[str] = GEOMETRIC,
    ) -> None:
        super().__init__()
        unknown = [name for name in transforms if name not in GEOMETRIC]
        if unknown:
            raise InputError(
                f"augment.transforms: {unknown[0]!r} is unknown; choose from {', '.join(GEOMETRIC)}"
            )
        if not 0 <= probability <= 1:
            raise InputError(f"augment.probability is {probability}; it must lie in [0, 1]")
        if interval < 1 or images_to_unit < 1:
            raise InputError("augment.interval and augment.images_to_unit must be at least 1")
        self.target = target
        self.interval = interval
        self.images_to_unit = images_to_unit
        self.transforms = tuple(transforms)
        self.register_buffer("probability", torch.tensor(probability, dtype=torch.float32))
        self._last_read: tuple[Tensor, int, float] | None = None

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Transform each sample on its own.

        Args:
            image: ``(B, 3, H, W)`` in [-1, 1].
            mask: ``(B, 1, H, W)``, 1 = known, 0 = hole.

        Returns:
            Image and mask of the same shapes; the mask still holds only 0 and 1. What lies beyond
            the border is the reflection. Samples that drew no transformation are bit-equal.
        """
        if self._probability_on_host() == 0.0:
            return image, mask
        with torch.autocast(image.device.type, enabled=False):
            moved, moved_mask = self._move(image.float(), mask.float())
        return moved.to(image.dtype), moved_mask.to(mask.dtype)

    @torch.no_grad()
    def update(self, real_sign_mean: float | Tensor, num_images: int) -> None:
        """Raise p if the discriminator is surer of real images than wanted, else lower it.

        Call it every ``interval`` batches.

        Args:
            real_sign_mean: Mean of sign(D(real)) since the last call, over all processes.
            num_images: Images since the last call, over all processes.
        """
        mean = torch.as_tensor(
            real_sign_mean, dtype=torch.float32, device=self.probability.device
        ).detach()
        # A mean that is not a number must not poison p, which goes into the checkpoint.
        direction = torch.nan_to_num(torch.sign(mean - self.target))
        self.probability.add_(direction * (num_images / self.images_to_unit)).clamp_(0, 1)

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"target={self.target}, interval={self.interval}, transforms={self.transforms}"

    def _probability_on_host(self) -> float:
        """Return p as a Python number, read from the device only when it has changed.

        Reading it makes the host wait for the device; p changes rarely, forward runs often.
        """
        buffer, last = self.probability, self._last_read
        if last is None or last[0] is not buffer or last[1] != buffer._version:
            last = self._last_read = (buffer, buffer._version, float(buffer))
        return last[2]

    def _move(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        matrix, moved = self._draw_matrix(image.shape[0], height, width, image.device)
        # affine_grid measures each axis from -1 to 1; the matrix is in pixels, so that a rotation
        # of an oblong image is one.
        half = constant([width / 2, height / 2, 1.0], image.device)
        theta = (matrix * half / half[:, None])[:, :2]
        grid = F.affine_grid(theta, [image.shape[0], 1, height, width], align_corners=False)
        new_image = resampled(image, grid)
        new_mask = _resample(mask, grid, "nearest")
        moved = moved[:, None, None, None]
        return torch.where(moved, new_image, image), torch.where(moved, new_mask, mask)

    def _draw_matrix(
        self, batch: int, height: int, width: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Draw where each output pixel looks, and which samples are changed at all.

        Returns:
            Homogeneous matrices ``(B, 3, 3)`` from output to input coordinates, in pixels around
            the centre; booleans ``(B,)``.
        """
        eye = torch.eye(3, device=device)
        matrix = eye.expand(batch, 3, 3)
        touched = torch.zeros(batch, dtype=torch.bool, device=device)
        p = self.probability.to(device)
        # Rotating before and after the stretch: together they happen with probability p.
        p_half = 1 - torch.sqrt(1 - p)
        side = constant([width, height], device)
        one = torch.ones(batch, device=device)

        def uniform(low: float, high: float, *size: int) -> Tensor:
            return torch.empty(batch, *size, device=device).uniform_(low, high)

        def normal(spread: float, *size: int) -> Tensor:
            return torch.randn(batch, *size, device=device) * spread

        def step(probability: Tensor, candidate: Tensor) -> None:
            nonlocal matrix, touched
            chosen = torch.rand(batch, device=device) < probability
            # A flip or a quarter turn may draw "none": such a sample stays untouched.
            chosen = chosen & (candidate != eye).any(2).any(1)
            matrix = torch.where(chosen[:, None, None], matrix @ candidate, matrix)
            touched = touched | chosen

        if "flip" in self.transforms:
            sign = 1 - 2 * torch.randint(2, (batch,), device=device)
            step(p, _scaling(sign.float(), one))
        if "rotate90" in self.transforms:
            turns = torch.randint(4, (batch,), device=device)
            cosine = constant([1.0, 0.0, -1.0, 0.0], device)[turns]
            sine = constant([0.0, 1.0, 0.0, -1.0], device)[turns]
            step(p, _rotation(cosine, sine))
        if "translate" in self.transforms:
            step(p, _translation(torch.round(uniform(-_TRANSLATE_MAX, _TRANSLATE_MAX, 2) * side)))
        if "scale" in self.transforms:
            scale = torch.exp(normal(_SCALE_SPREAD))
            step(p, _scaling(scale, scale))
        if "rotate" in self.transforms:
            angle = uniform(-math.pi, math.pi)
            step(p_half, _rotation(torch.cos(angle), torch.sin(angle)))
        if "stretch" in self.transforms:
            stretch = torch.exp(normal(_SCALE_SPREAD))
            step(p, _scaling(stretch, 1 / stretch))
        if "rotate" in self.transforms:
            angle = uniform(-math.pi, math.pi)
            step(p_half, _rotation(torch.cos(angle), torch.sin(angle)))
        if "shift" in self.transforms:
            step(p, _translation(normal(_SHIFT_SPREAD, 2) * side))
        return matrix, touched


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix(x, zero, zero, zero, y, zero, one)


def _rotation(cosine: Tensor, sine: Tensor) -> Tensor:
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    return _matrix(cosine, -sine, zero, sine, cosine, zero, one)


def _translation(offset: Tensor) -> Tensor:
    """Build translations from pixels ``(B, 2)``, x before y."""
    x, y = offset.unbind(1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix(one, zero, x, zero, one, y, one)


def _matrix(*entries: Tensor) -> Tensor:
    """Build homogeneous ``(B, 3, 3)`` from the upper six entries by rows and the corner."""
    *upper, corner = entries
    zero = torch.zeros_like(corner)
    return torch.stack([*upper, zero, zero, corner], dim=1).view(-1, 3, 3)


def _resample(image: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    return F.grid_sample(image, grid, mode=mode, padding_mode="reflection", align_corners=False)


def resampled(image: Tensor, grid: Tensor) -> Tensor:
    """Resample bilinearly; torch's own second derivative is missing in the oldest versions."""
    shape = image.shape

    def spread(gradient: Tensor) -> Tensor:
        with torch.enable_grad():
            image = torch.zeros(shape, dtype=gradient.dtype, device=gradient.device)
            output = _resample(image.requires_grad_(True), grid)
        return torch.autograd.grad(output, image, gradient)[0]

    return linear_map(image, lambda x: _resample(x, grid), spread)
