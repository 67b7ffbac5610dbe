"""Further terms of the generator's loss."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class LossTerm(nn.Module, ABC):
    """A further term of Eq. 10, of all that the network predicts in one iteration.

    It may load frozen networks, but train no parameters of its own: no optimizer steps them.

    Args:
        weight: Factor of the term in the sum; 0 leaves it out.

    Attributes:
        name: Logged as ``train/<name>``, without the weight.
    """

    name: str

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(
        self, mean: Tensor, log_variance: Tensor, uncertainty: Tensor, image: Tensor, mask: Tensor
    ) -> Tensor:
        """Return the term of each image, ``(B,)``; what is trained is the mean over the batch.

        All arguments are float32.

        Args:
            mean: ``(B, 3, H, W)``, mu_t of every pixel, about [-1, 1]; the known are not pasted.
            log_variance: ``(B, 3, H, W)``, log sigma_t^2.
            uncertainty: ``(B, 1, H, W)`` in [0, 1], u~_t; it carries no gradient.
            image: ``(B, 3, H, W)``, the target in [-1, 1].
            mask: ``(B, 1, H, W)``, m_0: 1 = known, 0 = hole.
        """
