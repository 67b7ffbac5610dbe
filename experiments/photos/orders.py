"""Does it matter which pixels are picked first?

The spatial diffusion with another order of picking; the uncertainty that the network reads stays
its own. Scored on held-out windows with::

    python experiments/photos/score.py runs/photos/test '[demo]' --iterations '[4]' \
      --num_images 560 --baselines false \
      --diffusion orders.OrderedDiffusion --diffusion.order random
"""

from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from sdm_lightning.diffusion import DiffusionState, Prediction, SpatialDiffusion


class OrderedDiffusion(SpatialDiffusion):
    """The loop with another order of picking.

    Args:
        order: ``deviation``, the least first, as in the paper; ``uncertain``, the largest first;
            ``distance``, the nearest to the known pixels first; or ``random``.
        neighbourhood: Odd size of the square over which the deviation is averaged first, so that
            connected regions are picked instead of single pixels.
        **settings: Those of SpatialDiffusion.
    """

    def __init__(
        self,
        order: Literal["deviation", "uncertain", "distance", "random"] = "deviation",
        neighbourhood: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.order = order
        self.neighbourhood = neighbourhood

    def ranking(
        self, prediction: Prediction, state: DiffusionState, initial_mask: Tensor
    ) -> Tensor:
        """Rank the pixels by the order; see SpatialDiffusion."""
        hole = 1 - initial_mask
        if self.order == "distance":
            masks = hole[:, 0].cpu().numpy().astype(np.uint8)
            distances = [cv2.distanceTransform(mask, cv2.DIST_L2, 5) for mask in masks]
            return torch.from_numpy(np.stack(distances))[:, None].to(hole)
        if self.order == "random":
            return torch.rand(hole.shape, generator=torch.Generator().manual_seed(0)).to(hole)
        deviation = super().ranking(prediction, state, initial_mask)
        if self.neighbourhood > 1:
            window = (self.neighbourhood, 1, self.neighbourhood // 2)
            deviation = avg_pool2d(deviation * hole, *window)
            deviation = deviation / avg_pool2d(hole, *window).clamp_min(1e-6)
        return -deviation if self.order == "uncertain" else deviation
