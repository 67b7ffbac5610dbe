"""A guard against inverted masks."""

import torch
from torch import Tensor

from sdm_lightning.devices import where_float64_is
from sdm_lightning.errors import InputError

MOSTLY_HOLE_ON_AVERAGE = 0.8
"""No published generator of masks has a larger average share of hole."""

ENOUGH_IMAGES = 64
"""A set is judged after so many images and at its end: single masks may be nearly all hole."""


class ConventionGuard:
    """Compares the error of results at known pixels with that in the holes.

    Results keep known pixels, exactly or nearly; if the error is at the "known" pixels instead, the
    masks are inverted.

    Args:
        masks: Their path, for messages.
        proven: A manifest says which way they are; only the method may have read them otherwise.

    Attributes:
        num_images: Images added.
    """

    def __init__(self, masks: str, proven: bool = False) -> None:
        self.masks = masks
        self.proven = proven
        self.num_images = 0
        self._sums = torch.zeros(4, dtype=torch.float64)

    def update(self, real: Tensor, fake: Tensor, mask: Tensor) -> None:
        """Add uint8 ``(B, 3, H, W)`` pairs with masks ``(B, 1, H, W)``, 1 = known."""
        self.num_images += len(mask)
        real, fake, mask = map(where_float64_is, (real, fake, mask))
        error = (real.double() - fake.double()).abs().mean(dim=1, keepdim=True)
        known = (mask >= 0.5).double()
        hole = 1 - known
        sums = [(error * known).sum(), known.sum(), (error * hole).sum(), hole.sum()]
        self._sums += torch.stack(sums).cpu()

    @property
    def known_error(self) -> float:
        """Mean difference at known pixels, in levels of 255."""
        return float(self._sums[0] / self._sums[1].clamp_min(1))

    @property
    def hole_error(self) -> float:
        """Mean difference at hole pixels, in levels of 255."""
        return float(self._sums[2] / self._sums[3].clamp_min(1))

    @property
    def hole_ratio(self) -> float:
        """Share of hole pixels."""
        return float(self._sums[3] / (self._sums[1] + self._sums[3]).clamp_min(1))

    def check(self) -> None:
        """Refuse masks that look inverted or empty, or that the method took for inverted ones.

        Raises:
            InputError: If they do; the message names the argument to set.
        """
        inverted = self.known_error > 0.5 and self.known_error > self.hole_error
        if self.proven:
            if inverted:
                raise InputError(
                    f"{self.masks}: results differ from their originals by {self.known_error:.1f} "
                    f"levels at known (white) pixels and by {self.hole_error:.1f} in the holes: "
                    "the method took white for hole, or sdm masks --files was given the wrong "
                    "--mask_convention; give the method inverted masks, write the set again, or "
                    "set --mask_convention known-white to score the results as they are"
                )
            return
        if self.hole_ratio == 0:
            raise InputError(
                f"{self.masks}: no mask has a hole if white means known; set "
                "--mask_convention hole-white if white means hole"
            )
        if inverted:
            raise InputError(
                f"{self.masks}: looks inverted: results differ from their originals by "
                f"{self.known_error:.1f} levels at known (white) pixels and by "
                f"{self.hole_error:.1f} in the holes; set --mask_convention hole-white "
                "if white means hole, or --mask_convention known-white to keep this reading"
            )
        if self.hole_ratio > MOSTLY_HOLE_ON_AVERAGE:
            raise InputError(
                f"{self.masks}: looks inverted: {100 * self.hole_ratio:.0f} % of the pixels are "
                "hole if white means known; set --mask_convention hole-white if white means hole, "
                "or --mask_convention known-white to keep this reading"
            )
