"""A picture whose regions are filled one after the other."""

import numpy as np
import torch

from sdm_lightning.arrays import BoolArray, FloatArray
from sdm_lightning.diffusion.uncertainty import UncertaintyScale, scale_uncertainty
from sdm_lightning.inference.pictures import Array, Picture
from sdm_lightning.inference.regions import Region, enlarge
from sdm_lightning.inference.results import InpaintingSample, InpaintingStep


class Canvas:
    """Collects the fillings of all regions at the picture's own size.

    Args:
        picture: The input.
        values: ``(H, W, 3)``, its pixels in [-1, 1].
        known: ``(H, W)``.
        num_steps: Iterations that are kept; 0 keeps only the last.
        scale: How deviations become an uncertainty; see ``scale_uncertainty``.

    Attributes:
        completed: ``(H, W, 3)``, the pixels with what is filled so far.
        known_or_filled: ``(H, W)``, True where known or filled: what the next region sees.
    """

    def __init__(
        self,
        picture: Picture,
        values: FloatArray,
        known: BoolArray,
        num_steps: int,
        scale: UncertaintyScale = "minmax",
    ) -> None:
        self.scale: UncertaintyScale = scale
        self.picture = picture
        self.known = known
        self.completed = values.copy()
        self.known_or_filled = known.copy()
        self.deviation = np.zeros(known.shape, np.float32)
        self.steps = [
            (np.zeros_like(values), np.zeros(known.shape, np.float32), known.copy())
            for _ in range(num_steps)
        ]

    def put_deviation(self, region: Region, deviation: FloatArray) -> None:
        """Take over the first iteration's predicted deviation in a region, ``(h, w)``."""
        _put(self.deviation, region, enlarge(deviation, region.box.height, region.box.width))

    def put(
        self,
        region: Region,
        index: int,
        filling: FloatArray,
        deviation: FloatArray,
        mask: FloatArray,
        last: bool,
    ) -> None:
        """Take over what iteration ``index`` gave in a region; the last one is the result."""
        if last:
            _put(self.completed, region, filling)
            self.known_or_filled[region.box.slices] |= region.target
        if self.steps:
            completed, deviations, masks = self.steps[index]
            _put(completed, region, filling)
            _put(deviations, region, enlarge(deviation, region.box.height, region.box.width))
            # A thin hole can vanish in the shrunken cut-out; it is filled in the last iteration.
            picked = enlarge(mask, region.box.height, region.box.width, smooth=False) > 0.5
            _put(masks, region, picked | last)

    def sample(self, seed: int) -> InpaintingSample:
        """Return everything collected as one sample."""
        steps = [
            InpaintingStep(
                self.picture.filled(values, self.known),
                self._uncertainty(deviation),
                self.picture,
                mask,
            )
            for values, deviation, mask in self.steps
        ]
        array = self.picture.filled(self.completed, self.known)
        return InpaintingSample(array, self._uncertainty(self.deviation), self.picture, steps, seed)

    def _uncertainty(self, deviation: FloatArray) -> FloatArray:
        """Scale deviations over all holes at once, so that those of two cut-outs compare."""
        hole = ~self.known
        uncertainty = np.zeros_like(deviation)
        if hole.any():
            self.picture.require_finite(deviation[hole])
            values = torch.from_numpy(deviation[hole])[None, None, None]
            scaled = scale_uncertainty(values, torch.ones_like(values), self.scale)
            uncertainty[hole] = scaled.flatten().numpy()
        return uncertainty


def _put(canvas: Array, region: Region, values: Array) -> None:
    """Write into a picture-sized array where the region's hole is, and nowhere else."""
    canvas[region.box.slices][region.target] = values[region.target]
