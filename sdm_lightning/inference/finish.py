"""From the network's output at its working size to pixels at the picture's size."""

from sdm_lightning.arrays import BoolArray, FloatArray
from sdm_lightning.inference.detail import add_detail
from sdm_lightning.inference.regions import enlarge
from sdm_lightning.inference.seams import close_seams

Cutout = tuple[FloatArray, BoolArray]


def finished(
    completed: FloatArray, small: Cutout, full: Cutout, detail: bool, seams: bool
) -> FloatArray:
    """Bring a completed cut-out to its own size and let it meet its surroundings.

    Args:
        completed: ``(h, w, 3)`` at the working size.
        small: Picture and known pixels at the working size.
        full: Picture ``(H, W, 3)`` and known pixels ``(H, W)`` of the cut-out.
        detail: Give the filling the fine detail of its surroundings.
        seams: Let the filling meet the known pixels by a smooth offset.

    Returns:
        ``(H, W, 3)``; only its hole pixels are meant to be used.
    """
    image, known = full
    if seams:
        # Here too, since one pixel of this size is wide at full size.
        completed = close_seams(completed, *small)
    if detail:
        filling = add_detail(completed, image, known)
    else:
        filling = enlarge(completed, *known.shape)
    return close_seams(filling, image, known) if seams and filling is not completed else filling
