"""Precision and recall of a set of completed images against the set of originals."""

from torch import Tensor

from sdm_lightning.errors import InputError

NEIGHBOURS = 3
"""k of the original publication."""


def precision_recall(real: Tensor, fake: Tensor, chunk: int = 2000) -> tuple[float, float]:
    """Compute improved precision and recall, from the same features as FID.

    Precision is the share of completed images within the k-nearest-neighbour balls of the
    originals, recall the reverse.

    Args:
        real: ``(N, D)`` features of the originals.
        fake: ``(M, D)`` features of the completed images.
        chunk: Rows whose distances are held at once: ``4 * chunk * N`` bytes.

    Returns:
        Precision and recall in [0, 1].

    Raises:
        InputError: If a side has fewer than k + 1 rows.

    Source: Kynkaanniemi et al. 2019.
    """
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    fewest = min(len(real), len(fake))
    if fewest <= NEIGHBOURS:
        raise InputError(
            f"precision and recall need more than {NEIGHBOURS} images per side, got {fewest}"
        )
    precision, recall = calculate_precision_recall_part(fake, real, NEIGHBOURS, chunk)
    return float(precision), float(recall)
