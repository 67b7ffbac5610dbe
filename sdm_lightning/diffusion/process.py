"""Spatial diffusion: predict, pick, sample, T times (Sec. 3.1.2, Eq. 4-5).

One loop serves training, validation, prediction and export, so that what is trained is what runs.
It takes the network as a callable and does not depend on its architecture, on losses, or on
Lightning.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from sdm_lightning.diffusion.schedules import MaskSchedule, UniformSchedule, require_rising
from sdm_lightning.diffusion.uncertainty import (
    UncertaintyChannels,
    UncertaintyScale,
    scale_uncertainty,
    standard_deviation,
    standard_deviation_map,
)

Network: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps the seven input channels ``(B, 7, H, W)`` to mean and log variance ``(B, 3, H, W)``."""

NoiseSource: TypeAlias = (
    torch.Generator | Sequence[torch.Generator] | Callable[[Tensor], Tensor] | None
)
"""One generator for the batch, or one per sample (a sample's noise then does not depend on the
batch it is in), or what gives noise in the shape of a tensor, or None for the global generator."""


@dataclass(frozen=True)
class DiffusionState:
    """What one iteration hands to the next: x_t, m_t and u_t of Eq. 4.

    Attributes:
        image: ``(B, 3, H, W)``, about [-1, 1], 0 where the mask is 0; predictions are not clamped.
        mask: ``(B, 1, H, W)``, 1 = known (given or picked so far), 0 = still missing.
        uncertainty: ``(B, 1, H, W)`` in [0, 1]: 0 where initially known, 1 where still missing.
        step: Iterations done, t.
    """

    image: Tensor
    mask: Tensor
    uncertainty: Tensor
    step: int

    def detach(self) -> "DiffusionState":
        """Return the same state, cut off from the graph that made it."""
        return DiffusionState(
            self.image.detach(), self.mask.detach(), self.uncertainty.detach(), self.step
        )


@dataclass(frozen=True)
class Prediction:
    """The network's output for every pixel in one iteration.

    Attributes:
        mean: ``(B, 3, H, W)``, mu_t.
        log_variance: ``(B, 3, H, W)``, log sigma_t^2.
        uncertainty: ``(B, 1, H, W)`` in [0, 1], the preliminary uncertainty u~_t.
    """

    mean: Tensor
    log_variance: Tensor
    uncertainty: Tensor


@dataclass(frozen=True)
class DiffusionStep(Prediction):
    """One whole iteration: the network's output and what was made of it.

    Attributes:
        completed: ``(B, 3, H, W)``: the mean in the hole, the input where it was known. Without
            ``repredict``, what earlier iterations filled is as they filled it.
        state: x_t, m_t, u_t after pick and sample; in the last iteration ``state.image`` equals
            ``completed``.
    """

    completed: Tensor
    state: DiffusionState


def initial_state(image: Tensor, mask: Tensor) -> DiffusionState:
    """Build the state before the first iteration: u_0 = 1 - m_0 (Sec. 4.2).

    Args:
        image: ``(B, 3, H, W)`` in [-1, 1]; what it holds inside the hole is dropped.
        mask: ``(B, 1, H, W)``, 1 = known, 0 = hole.

    Raises:
        ValueError: If the shapes do not match, or the mask holds anything but 0 and 1; its values
            are read on the CPU and outside ``torch.compile`` only.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"image has shape {tuple(image.shape)}, not (B, 3, H, W)")
    if mask.shape != (image.shape[0], 1, *image.shape[2:]):
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, "
            f"not {(image.shape[0], 1, *image.shape[2:])} as the image requires"
        )
    # Reading values forces a device to finish its queue and breaks graph capture: on the CPU only.
    readable = mask.device.type == "cpu" and not torch.compiler.is_compiling()
    if readable and not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("mask holds values other than 1 (known) and 0 (hole)")
    mask = mask.to(image.dtype)
    # where() and not a product: a NaN or infinity inside the hole must not leak out of it.
    known = torch.where(mask.bool(), image, torch.zeros_like(image))
    return DiffusionState(image=known, mask=mask, uncertainty=1 - mask, step=0)


def predict(
    network: Network,
    state: DiffusionState,
    initial_mask: Tensor,
    num_iterations: int,
    scale: UncertaintyScale = "minmax",
    channels: UncertaintyChannels = "mean",
) -> Prediction:
    """Predict mean, variance and preliminary uncertainty of all pixels (step 1 of Sec. 3.1.2).

    Args:
        network: The generator, styles bound.
        state: x_{t-1}, m_{t-1}, u_{t-1}.
        initial_mask: m_0, ``(B, 1, H, W)``.
        num_iterations: T; the time channel holds (t - 1) / T.
        scale: See ``scale_uncertainty``.
        channels: See ``standard_deviation_map``.
    """
    time = torch.full_like(state.mask, state.step / num_iterations)
    inputs = torch.cat([state.image, initial_mask, state.mask, state.uncertainty, time], dim=1)
    mean, log_variance = network(inputs)
    mean, log_variance = mean.float(), log_variance.float()
    # u~ orders and weighs pixels; it is not a path for gradients to the variance.
    deviation = standard_deviation_map(log_variance.detach(), channels)
    return Prediction(
        mean, log_variance, scale_uncertainty(deviation, 1 - initial_mask.float(), scale)
    )


def pick(
    state: DiffusionState,
    prediction: Prediction,
    initial_mask: Tensor,
    known_fraction: float,
    ranking: Tensor,
) -> tuple[Tensor, Tensor]:
    """Add the least uncertain unknown pixels to the known ones (step 2 of Sec. 3.1.2).

    After it, exactly ``round(known_fraction * hole)`` pixels of each sample's initial hole are
    known (never fewer than before). Equal uncertainties are taken in row-major order.

    Args:
        state: x_{t-1}, m_{t-1}, u_{t-1}.
        prediction: The network's output for it.
        initial_mask: m_0, ``(B, 1, H, W)``.
        known_fraction: Known share of the initial hole after this iteration, in [0, 1].
        ranking: ``(B, 1, H, W)``; where it is least, pixels are picked first.

    Returns:
        m_t and u_t, each ``(B, 1, H, W)``: u_t is 1 where still missing, 0 where initially known,
        and the preliminary uncertainty elsewhere.
    """
    # Half types cannot count the pixels of a large hole.
    missing = (1 - state.mask).flatten(1).float()
    hole = (1 - initial_mask).flatten(1).sum(dim=1, dtype=torch.float32)
    still_missing = hole - torch.round(hole * known_fraction)
    count = (missing.sum(dim=1) - still_missing).clamp_min(0)

    ranking = ranking.flatten(1)
    ranking = torch.where(missing.bool(), ranking, torch.full_like(ranking, torch.inf))
    order = torch.sort(ranking, dim=1, stable=True).indices
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    picked = ((rank < count[:, None]) * missing).to(state.mask.dtype)

    mask = (state.mask.flatten(1) + picked).view_as(state.mask)
    uncertainty = torch.where(
        mask.bool(), prediction.uncertainty.to(mask.dtype), torch.ones_like(mask)
    )
    return mask, uncertainty * (1 - initial_mask)


def gaussian_noise(like: Tensor, generator: NoiseSource = None) -> Tensor:
    """Draw standard normal noise in the shape ``(B, ...)``, device and type of ``like``.

    Drawn on the generator's own device, so that a CPU generator gives every device the same noise.

    Raises:
        ValueError: If there is one generator per sample, but not one for each.
    """
    if generator is None:
        return torch.randn_like(like)
    if callable(generator):
        return generator(like)
    if isinstance(generator, torch.Generator):
        noise = torch.randn(like.shape, generator=generator, device=generator.device)
        return noise.to(like)
    if len(generator) != like.shape[0]:
        raise ValueError(f"{len(generator)} generators for a batch of {like.shape[0]}")
    rows = [torch.randn(like.shape[1:], generator=g, device=g.device) for g in generator]
    return torch.stack(rows).to(like)


def sample(
    image: Tensor,
    initial_mask: Tensor,
    mask: Tensor,
    prediction: Prediction,
    alpha: float,
    generator: NoiseSource = None,
) -> Tensor:
    """Compute x_t = x_0 + (m_t - m_0) * (mu_t + alpha * sigma_t * z) (step 3, Eq. 5).

    Args:
        image: x_0, ``(B, 3, H, W)``, 0 in the hole.
        initial_mask: m_0, ``(B, 1, H, W)``.
        mask: m_t, ``(B, 1, H, W)``.
        prediction: mu_t and log sigma_t^2.
        alpha: 0.01 in the paper; 0 returns the mean (the last iteration, and Table 1 E).
        generator: Source of z; the global one if None.

    Returns:
        ``(B, 3, H, W)``: exactly x_0 where initially known, 0 where still missing.
    """
    drawn = prediction.mean
    if alpha:
        deviation = standard_deviation(prediction.log_variance)
        drawn = drawn + alpha * deviation * gaussian_noise(drawn, generator)
    new = (mask - initial_mask).bool()
    return torch.where(initial_mask.bool(), image, torch.where(new, drawn, torch.zeros_like(drawn)))


def complete(image: Tensor, initial_mask: Tensor, filling: Tensor) -> Tensor:
    """Combine the image where known and the filling in the hole; ``(B, 3, H, W)``."""
    return torch.where(initial_mask.bool(), image, filling.to(image.dtype))


class SpatialDiffusion:
    """The T-iteration loop with its settings.

    Args:
        num_iterations: T. The paper trains 512x512 models with 2 and tests with 4; its ablations
            use 3 and 3 (Sec. 4.2, Table 1).
        schedule: Known fraction of the hole after progress t / T; any callable of one float.
        alpha: Ratio of the noise in Eq. 5; 0 turns continuous sampling off (Table 1 E).
        uncertainty_scale: How deviations become an uncertainty in [0, 1]; see
            ``scale_uncertainty``. The paper only says "scaled to [0, 1]".
        repredict: Pixels that earlier iterations filled get this iteration's mean, as Eq. 5 says
            (it takes mu_t for all of m_t - m_0). False keeps them as they were filled: for a
            network that never saw filled pixels in training, such as Table 2's model B.
        detach: Cut gradients between iterations, so that each can be back-propagated and freed
            before the next. The paper does not say; False lets them flow through x_t, and never
            through m_t and u_t.
        uncertainty_channels: How a pixel's three deviations become one: their mean, or the largest.
            The paper does not say.

    Raises:
        ValueError: If a setting is out of range, or the schedule does not rise from 0 to 1.
    """

    def __init__(
        self,
        num_iterations: int = 4,
        schedule: MaskSchedule | Callable[[float], float] | None = None,
        alpha: float = 0.01,
        uncertainty_scale: UncertaintyScale = "minmax",
        repredict: bool = True,
        detach: bool = True,
        uncertainty_channels: UncertaintyChannels = "mean",
    ) -> None:
        if num_iterations < 1:
            raise ValueError(f"num_iterations is {num_iterations}; it must be at least 1")
        if alpha < 0:
            raise ValueError(f"alpha is {alpha}; it must not be negative")
        if uncertainty_scale not in ("minmax", "clamp"):
            raise ValueError(f"uncertainty_scale is {uncertainty_scale!r}, not minmax or clamp")
        if uncertainty_channels not in ("mean", "max"):
            raise ValueError(f"uncertainty_channels is {uncertainty_channels!r}, not mean or max")
        self.num_iterations = num_iterations
        self.schedule = schedule if schedule is not None else UniformSchedule()
        self.alpha = alpha
        self.uncertainty_scale: UncertaintyScale = uncertainty_scale
        self.repredict = repredict
        self.detach = detach
        self.uncertainty_channels: UncertaintyChannels = uncertainty_channels
        require_rising(self.schedule)

    def ranking(
        self, prediction: Prediction, state: DiffusionState, initial_mask: Tensor
    ) -> Tensor:
        """Rank the pixels for picking, the least first; a subclass may rank otherwise.

        Args:
            prediction: The network's output.
            state: x_{t-1}, m_{t-1}, u_{t-1}, which it was predicted from.
            initial_mask: m_0, ``(B, 1, H, W)``.

        Returns:
            ``(B, 1, H, W)``: the deviation, not u~, whose clamping would tie the most uncertain.
        """
        return standard_deviation_map(prediction.log_variance.detach(), self.uncertainty_channels)

    def iterate(
        self,
        network: Network,
        image: Tensor,
        mask: Tensor,
        *,
        num_iterations: int | None = None,
        generator: NoiseSource = None,
    ) -> Iterator[DiffusionStep]:
        """Run the iterations one by one.

        The caller may back-propagate a step before it asks for the next: with ``detach`` no later
        step needs its graph.

        Args:
            network: The generator, styles bound.
            image: ``(B, 3, H, W)`` in [-1, 1]; what it holds inside the hole is never read.
            mask: ``(B, 1, H, W)``, 1 = known, 0 = hole.
            num_iterations: Instead of the loop's own; testing may take more than training.
            generator: Source of the noise in Eq. 5; the global one if None.

        Yields:
            Steps 1 to T.

        Raises:
            ValueError: If shapes or values of image, mask or num_iterations are wrong (see
                ``initial_state``), or there is one generator per sample, but not one for each.
        """
        total = self.num_iterations if num_iterations is None else num_iterations
        if total < 1:
            raise ValueError(f"num_iterations is {total}; it must be at least 1")
        state = initial_state(image, mask)
        known, initial_mask = state.image, state.mask
        for step in range(1, total + 1):
            last = step == total
            prediction = predict(
                network, state, initial_mask, total,
                self.uncertainty_scale, self.uncertainty_channels,
            )  # fmt: skip
            fraction = 1.0 if last else self.schedule(step / total)
            ranking = self.ranking(prediction, state, initial_mask)
            new_mask, uncertainty = pick(state, prediction, initial_mask, fraction, ranking)
            alpha = 0.0 if last else self.alpha
            new_image = sample(known, initial_mask, new_mask, prediction, alpha, generator)
            filling = prediction.mean
            if not self.repredict:
                filled = state.mask.bool()
                new_image = torch.where(filled, state.image, new_image)
                filling = torch.where(filled, state.image, filling)
            state = DiffusionState(new_image, new_mask, uncertainty, step)
            if self.detach:
                state = state.detach()
            completed = complete(known, initial_mask, filling)
            yield DiffusionStep(**vars(prediction), completed=completed, state=state)

    def __call__(
        self,
        network: Network,
        image: Tensor,
        mask: Tensor,
        *,
        num_iterations: int | None = None,
        generator: NoiseSource = None,
    ) -> DiffusionStep:
        """Run all iterations and return the last; its ``completed`` is the result.

        Takes the arguments of ``iterate``.
        """
        for step in self.iterate(
            network, image, mask, num_iterations=num_iterations, generator=generator
        ):
            last = step
        return last
