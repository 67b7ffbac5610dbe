"""The numbers of the training recipe, grouped as in a config file."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class AdamSettings:
    """Adam as in Sec. 4.2, with StyleGAN2's correction for lazy regularisation.

    A phase that runs an extra optimizer step every k batches takes
    ``(k + 1) / k`` steps per batch; learning rate and betas are corrected so that the average
    speed stays as if it took one (Karras et al. 2020, StyleGAN2, appendix B).

    Attributes:
        lr: Learning rate.
        betas: Decay of the first and second moments.
        eps: Added to the denominator.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.0, 0.99)
    eps: float = 1e-8

    def corrected(self, interval: int | None) -> dict[str, Any]:
        """Return Adam's arguments for a phase with an extra step every ``interval`` batches."""
        ratio = 1.0 if interval is None else interval / (interval + 1)
        betas = (self.betas[0] ** ratio, self.betas[1] ** ratio)
        return {"lr": self.lr * ratio, "betas": betas, "eps": self.eps}


@dataclass(frozen=True)
class LossSettings:
    """Weights of Eq. 10, and what the paper leaves open about its terms.

    Attributes:
        adversarial: lambda_1.
        perceptual: lambda_2.
        likelihood: lambda_3.
        likelihood_reduction: ``"sum"`` over the dimensions of an image as Eq. 1 prints it, or
            ``"mean"`` over those that count: up to 786,432 at 512x512.
        mean_region: What the adversarial and the perceptual loss see. ``"hole"``: the mean with the
            known pixels pasted, which is what is shown at the end. ``"image"``: the mean alone, so
            that the network also learns to reproduce known pixels, which Eq. 5 asks of it for
            pixels that earlier iterations filled.
        likelihood_region: ``"hole"`` counts the pixels that the model has to fill; ``"image"``
            counts all, as Eq. 1 prints it.
        r1_gamma: Weight of the gradient penalty on real images, gamma / 2 * |grad D|^2.
        r1_interval: Batches between two penalties (lazy regularisation).
    """

    adversarial: float = 1.0
    perceptual: float = 2.0
    likelihood: float = 1e-4
    likelihood_reduction: Literal["sum", "mean"] = "sum"
    mean_region: Literal["hole", "image"] = "hole"
    likelihood_region: Literal["hole", "image"] = "hole"
    r1_gamma: float = 10.0
    r1_interval: int = 16
