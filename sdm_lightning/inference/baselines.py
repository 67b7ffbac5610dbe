"""Baselines on the same arrays: mean colour, and OpenCV's two classical methods."""

from collections.abc import Callable

import cv2
import numpy as np

from sdm_lightning.arrays import Bools, Bytes

RADIUS = 3.0
"""Of the surroundings that OpenCV's methods look at, in pixels."""


def mean_fill(image: Bytes, known: Bools) -> Bytes:
    """Fill the hole with the mean colour of the known pixels.

    Args:
        image: ``(H, W, 3)`` uint8.
        known: ``(H, W)`` bool; if nothing is known, the hole becomes middle grey.
    """
    colour = image[known].mean(axis=0) if known.any() else np.full(3, 127.5)
    result = image.copy()
    result[~known] = np.rint(colour).astype(np.uint8)
    return result


def telea(image: Bytes, known: Bools) -> Bytes:
    """Fill by OpenCV's fast marching method (Telea 2004); arguments as in ``mean_fill``."""
    return _opencv(image, known, cv2.INPAINT_TELEA)


def navier_stokes(image: Bytes, known: Bools) -> Bytes:
    """Fill by OpenCV's fluid dynamics (Bertalmio et al. 2001); arguments as in ``mean_fill``."""
    return _opencv(image, known, cv2.INPAINT_NS)


def _opencv(image: Bytes, known: Bools, method: int) -> Bytes:
    if not known.any():
        return mean_fill(image, known)
    # Its values in the hole are cleared first: no method may see the truth.
    cleared = np.where(known[:, :, None], image, np.uint8(0))
    result = cv2.inpaint(cleared, (~known).astype(np.uint8), RADIUS, method)
    return np.where(known[:, :, None], image, np.asarray(result, dtype=np.uint8))


BASELINES: dict[str, Callable[[Bytes, Bools], Bytes]] = {
    "mean-colour fill": mean_fill,
    "OpenCV Telea": telea,
    "OpenCV Navier-Stokes": navier_stokes,
}
