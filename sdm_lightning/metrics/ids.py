"""Paired and unpaired inception discriminative scores (P-IDS, U-IDS).

A linear SVM learns to tell the features of completed images from those of their originals. U-IDS is
the share that it still mistakes, P-IDS the share of completed images that look more real to it than
their own original; both in percent, both measured on the same rows it was fitted to, as the
published code does. So they depend strongly on the number of pairs: with fewer pairs than about the
length of a feature row any two sets are separable, and both scores are 0.

Source: Zhao et al. 2021 (co-modulated GANs).
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdm_lightning.errors import InputError
from sdm_lightning.metrics.state import ExactMetric, sort_unique

MIN_PAIRS = 2500
"""Fewer pairs of 2048 features are (nearly) separable, and the scores meaningless."""


def inception_discriminative_scores(
    real: Tensor | npt.NDArray, fake: Tensor | npt.NDArray, *, few_pairs: bool = False
) -> tuple[float, float]:
    """Compute P-IDS and U-IDS of paired features.

    ``sklearn.svm.LinearSVC(dual=False)`` with its other defaults on unscaled features. A tie is not
    a win: identical sets give U-IDS 50 and P-IDS 0.

    Args:
        real: ``(N, D)`` features of the originals.
        fake: ``(N, D)`` features of the completed images, in the same order.
        few_pairs: Accept fewer than ``MIN_PAIRS`` pairs; name the result accordingly.

    Returns:
        P-IDS and U-IDS in percent, 0 to 100.

    Raises:
        InputError: If the shapes differ, a value is not finite, or there are too few pairs.
    """
    from sklearn.svm import LinearSVC

    first, second = _as_array(real), _as_array(fake)
    if first.shape != second.shape or first.ndim != 2:
        raise InputError(
            f"P-IDS pairs rows: real is {first.shape} and fake is {second.shape}, "
            "expected the same (N, D)"
        )
    count = len(first)
    if not count:
        raise InputError("P-IDS needs at least 1 pair, got none")
    if count < MIN_PAIRS and not few_pairs:
        raise InputError(
            f"{count} pairs are too few for P-IDS and U-IDS, which are near 0 for any images "
            f"below {MIN_PAIRS}; leave them out, or pass few_pairs=True and say so in their names"
        )
    # float64 from the start: the solver would make that copy itself and keep ours beside it.
    rows = np.empty((2 * count, first.shape[1]), dtype=np.float64)
    rows[:count], rows[count:] = first, second
    del first, second
    if not np.isfinite(rows).all():
        raise InputError("P-IDS: a feature is not a finite number")
    labels = np.repeat(np.array([1, 0]), count)
    svm = LinearSVC(dual=False).fit(rows, labels)
    scores = svm.decision_function(rows)
    correct = (scores > 0) == (labels == 1)
    p_ids = float(np.mean(scores[count:] > scores[:count]))
    return 100 * p_ids, 100 * (1 - float(np.mean(correct)))


def _as_array(features: Tensor | npt.NDArray) -> npt.NDArray:
    if isinstance(features, Tensor):
        wide = torch.promote_types(features.dtype, torch.float32)
        return features.detach().to("cpu", wide).numpy()
    return np.asarray(features)


class PairedFeatures(ExactMetric):
    """Feature rows of originals and completed images, paired by key, from all processes.

    Args:
        dim: Length of a feature row.
    """

    ids: list[Tensor]
    real: list[Tensor]
    fake: list[Tensor]

    def __init__(self, dim: int = 2048) -> None:
        super().__init__()
        self.add_rows("ids", dtype=torch.int64)
        self.add_rows("real", dim, dtype=torch.float32)
        self.add_rows("fake", dim, dtype=torch.float32)

    def update(self, ids: Tensor, real: Tensor, fake: Tensor) -> None:
        """Add pairs.

        Args:
            ids: int64 ``(B,)``, one number per pair, unique over all processes.
            real: ``(B, dim)`` features of the originals.
            fake: ``(B, dim)`` features of the completed images.
        """
        self.ids.append(ids.detach().cpu())
        self.real.append(real.detach().to("cpu", torch.float32))
        self.fake.append(fake.detach().to("cpu", torch.float32))

    def table(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids, real and fake rows in the order of the ids.

        Raises:
            InputError: If a pair occurs more than once.
        """
        order = sort_unique(self.rows("ids"))
        for name in ("ids", "real", "fake"):
            # In the state's place: at N = 36,500 a second copy would be 600 MB.
            setattr(self, name, [self.rows(name)[order]])
        return self.rows("ids"), self.rows("real"), self.rows("fake")

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``table`` over all processes."""
        return self.table()
