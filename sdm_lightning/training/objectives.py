"""The generator's loss of one iteration (Eq. 10), in plain torch."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from sdm_lightning.diffusion import (
    DiffusionStep,
    complete,
    standard_deviation,
    standard_deviation_map,
)
from sdm_lightning.errors import InputError, require_one_per_image
from sdm_lightning.losses import (
    Encoded,
    LossTerm,
    PerceptualLoss,
    discretized_gaussian_nll,
    generator_adversarial_loss,
)
from sdm_lightning.training.settings import LossSettings


def supervised_image(
    step: DiffusionStep,
    image: Tensor,
    mask: Tensor,
    decoupled: bool,
    region: Literal["hole", "image"] = "hole",
) -> Tensor:
    """Return the image that the adversarial and the perceptual loss look at.

    Args:
        step: The iteration.
        image: ``(B, 3, H, W)`` target in [-1, 1], whose known pixels are pasted.
        mask: ``(B, 1, H, W)``, 1 = known.
        decoupled: True: the mean (decoupled probabilistic modeling, Sec. 3.1.1). False: a whole
            sample mu + sigma * z, Table 1 D ("all supervision on the sampled result", Sec. 4.3).
        region: ``LossSettings.mean_region``: paste the known pixels, or not.

    Returns:
        ``(B, 3, H, W)``.
    """
    if decoupled:
        return step.completed if region == "hole" else step.mean
    deviation = standard_deviation(step.log_variance)
    drawn = step.mean + deviation * torch.randn_like(step.mean)
    return complete(image, mask, drawn) if region == "hole" else drawn


def likelihood_loss(
    step: DiffusionStep, image: Tensor, mask: Tensor, losses: LossSettings
) -> Tensor:
    """Compute Eq. 1, reduced as the settings say; scalar, the mean over the batch."""
    nats = discretized_gaussian_nll(step.mean, step.log_variance, image)
    counted = torch.ones_like(mask) if losses.likelihood_region == "image" else 1 - mask
    counted = counted.expand_as(nats)
    # where() and not a product: nats are large where they do not count.
    total = torch.where(counted.bool(), nats, torch.zeros_like(nats)).sum(dim=(1, 2, 3))
    if losses.likelihood_reduction == "mean":
        total = total / counted.sum(dim=(1, 2, 3)).clamp_min(1)
    return total.mean()


def generator_objective(
    step: DiffusionStep,
    supervised: Tensor,
    fake_logits: Tensor | None,
    image: Tensor,
    mask: Tensor,
    target_features: Encoded | None,
    perceptual: PerceptualLoss | None,
    losses: LossSettings,
    decoupled: bool,
    further: Iterable[LossTerm] = (),
) -> dict[str, Tensor]:
    """Compute the unweighted terms of Eq. 10 for one iteration.

    Args:
        step: The iteration.
        supervised: ``supervised_image`` of it.
        fake_logits: The discriminator's output for ``supervised``, ``(B, N)`` logits (N = 1 for
            ``Discriminator``), or None if the adversarial weight is 0.
        image: ``(B, 3, H, W)`` target.
        mask: ``(B, 1, H, W)``, 1 = known.
        target_features: ``perceptual.encode(image)``; None leaves the perceptual loss out.
        perceptual: Eq. 9.
        losses: Weights; a term of weight 0 is not computed.
        decoupled: Without it there is no likelihood: all supervision is on the sample.
        further: Terms that see the prediction itself, with or without decoupling.

    Returns:
        Scalars under ``adversarial``, ``perceptual``, ``likelihood``, as far as they count, and
        under the further terms' names.

    Raises:
        InputError: If a further term returns anything but one number per image.
    """
    terms: dict[str, Tensor] = {}
    if fake_logits is not None:
        terms["adversarial"] = generator_adversarial_loss(fake_logits)
    if perceptual is not None and target_features is not None:
        terms["perceptual"] = perceptual(supervised, target_features).mean()
    if decoupled and losses.likelihood:
        terms["likelihood"] = likelihood_loss(step, image, mask, losses)
    for term in further:
        if term.weight:
            value = term(step.mean, step.log_variance, step.uncertainty, image, mask)
            require_one_per_image(value, len(image), f"{type(term).__name__}.forward")
            terms[term.name] = value.mean()
    return terms


def weighted_sum(
    terms: dict[str, Tensor], losses: LossSettings, further: Iterable[LossTerm] = ()
) -> Tensor:
    """Compute Eq. 10 for one iteration; scalar."""
    weights = vars(losses) | {term.name: term.weight for term in further}
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def mean_deviation(step: DiffusionStep, mask: Tensor) -> Tensor:
    """Average the standard deviation over the hole, for the log; scalar without gradient."""
    deviation = standard_deviation_map(step.log_variance.detach())
    hole = (1 - mask).sum().clamp_min(1)
    return (deviation * (1 - mask)).sum() / hole


def micro_batches(image: Tensor, mask: Tensor, number: int) -> list[tuple[Tensor, Tensor]]:
    """Split a batch into equal parts whose gradients are accumulated.

    Raises:
        InputError: If the batch does not split equally; the parts would not weigh the same.
    """
    if image.shape[0] % number:
        raise InputError(f"a batch of {image.shape[0]} does not split into {number} equal parts")
    return list(zip(image.chunk(number), mask.chunk(number), strict=True))
