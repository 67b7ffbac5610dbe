"""From the network's output at its working size to pixels at the picture's size."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdm_lightning.inference.detail import add_detail
from sdm_lightning.inference.regions import enlarge, feathered
from sdm_lightning.inference.seams import close_seams

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Finish:
    """Enlarges fillings and lets them meet their surroundings.

    Attributes:
        detail: Give enlarged fillings the fine detail of their surroundings.
        seams: Let fillings meet the known pixels by a smooth offset.
        feather: Pixels over which the step in colour at the edge fades out; 0 leaves it.
    """

    detail: bool = True
    seams: bool = True
    feather: float = 0.0

    def __call__(
        self,
        completed: Floats,
        mean: Floats,
        small: tuple[Floats, Bools],
        full: tuple[Floats, Bools],
    ) -> Floats:
        """Bring a completed cut-out to its own size.

        Args:
            completed: ``(h, w, 3)`` at the working size.
            mean: ``(h, w, 3)``, the network's values, at known pixels too.
            small: Picture and known pixels at the working size.
            full: Picture ``(H, W, 3)`` and known pixels ``(H, W)`` of the cut-out.

        Returns:
            ``(H, W, 3)``; only its hole pixels are meant to be used.
        """
        image, known = full
        height, width = known.shape
        shrunk = completed.shape[:2] != known.shape
        if self.seams:
            # Here too, since one pixel of this size is wide at full size.
            completed = close_seams(completed, *small)
        if shrunk and self.detail:
            filling = add_detail(completed, image, known)
        else:
            filling = enlarge(completed, height, width)
        if self.feather:
            prediction = enlarge(mean, height, width)
            filling = feathered(filling, prediction, image, known, self.feather)
        if shrunk and self.seams:
            filling = close_seams(filling, image, known)
        return filling
