"""The adversarial losses (Eq. 7-8) and the gradient penalty on real images."""

import torch
import torch.nn.functional as F
from torch import Tensor


def generator_adversarial_loss(fake_logits: Tensor) -> Tensor:
    """Compute the non-saturating generator loss: the mean of -log D(fake), D = sigmoid(logits).

    Args:
        fake_logits: Discriminator output for completed images, ``(B, N)`` logits; N = 1 for
            ``Discriminator``.

    Returns:
        Scalar, in nats.

    Source:
        Eq. 7.
    """
    return F.softplus(-fake_logits.float()).mean()


def discriminator_real_loss(real_logits: Tensor) -> Tensor:
    """Compute the first term of Eq. 8: the mean of -log D(real).

    The two terms are apart because each is back-propagated on its own.

    Args:
        real_logits: Discriminator output for real images, ``(B, N)`` logits; N = 1 for
            ``Discriminator``.

    Returns:
        Scalar, in nats.
    """
    return F.softplus(-real_logits.float()).mean()


def discriminator_fake_loss(fake_logits: Tensor) -> Tensor:
    """Compute the second term of Eq. 8: the mean of -log(1 - D(fake)).

    Args:
        fake_logits: Discriminator output for completed images, ``(B, N)`` logits; N = 1 for
            ``Discriminator``.

    Returns:
        Scalar, in nats.
    """
    return F.softplus(fake_logits.float()).mean()


def r1_penalty(real_logits: Tensor, images: Tensor) -> Tensor:
    """Compute the discriminator's squared gradient at real images, without the factor gamma / 2.

    Args:
        real_logits: Discriminator output for ``images``, ``(B, N)``, its graph still alive; of
            several logits, the mean is penalised.
        images: The images it was computed from, ``(B, 3, H, W)``, requiring grad.

    Returns:
        Scalar: the squared gradient summed over channels and pixels, averaged over the batch. It
        can be differentiated again.

    Source:
        Mescheder et al. 2018, "Which training methods for GANs do actually converge?", Eq. 9.
    """
    (gradient,) = torch.autograd.grad(real_logits.mean(1).sum(), images, create_graph=True)
    return gradient.float().square().flatten(1).sum(1).mean()
