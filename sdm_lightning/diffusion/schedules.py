"""Mask schedules: how much of the initial hole is filled after each iteration (Fig. 7, Table 4).

A schedule maps the progress ``t / T`` in [0, 1] to the fraction of the initial hole that counts as
known after iteration ``t``. The paper names four and plots them; it prints no formula. These are
the formulas that its names stand for in MaskGIT (Chang et al. 2022, Sec. 3.3), the work that
introduced mask scheduling: there, gamma(r) is the fraction still masked; here, 1 - gamma(r) is the
fraction known.

Any callable of one float can replace these classes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from sdm_lightning.errors import one_line


class MaskSchedule(ABC):
    """Fraction of the initial hole known after a given progress; 0 -> 0, 1 -> 1, non-decreasing."""

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """Return the known fraction of the hole, in [0, 1].

        Args:
            progress: Iterations done over all iterations, in [0, 1].
        """


class UniformSchedule(MaskSchedule):
    """The same number of pixels in each iteration ("Linear" in Table 4; the paper's choice)."""

    def __call__(self, progress: float) -> float:
        """Return r."""
        return progress


class CosineSchedule(MaskSchedule):
    """Few pixels first: 1 - cos(pi r / 2)."""

    def __call__(self, progress: float) -> float:
        """Return 1 - cos(pi r / 2)."""
        return 1.0 - math.cos(math.pi * progress / 2)


class CubicSchedule(MaskSchedule):
    """Very few pixels first: r^3."""

    def __call__(self, progress: float) -> float:
        """Return r^3."""
        return progress**3


class SquareRootSchedule(MaskSchedule):
    """Most pixels first: sqrt(r)."""

    def __call__(self, progress: float) -> float:
        """Return sqrt(r)."""
        return math.sqrt(progress)


def require_rising(schedule: Callable[[float], float]) -> None:
    """Refuse a schedule that does not rise from 0 to 1, or cannot be called.

    Raises:
        ValueError: With the first progress, in hundredths, at which it is wrong.
    """
    name = getattr(schedule, "__name__", type(schedule).__name__)
    before = 0.0
    for progress in (step / 100 for step in range(101)):
        try:
            known = float(schedule(progress))
        except Exception as error:  # of the user's code
            raise ValueError(
                f"schedule {name} gives no number at progress {progress:g}: {one_line(error)}"
            ) from error
        low, high = {0.0: (0, 0), 1.0: (1, 1)}.get(progress, (before, 1))
        if not low - 1e-6 <= known <= high + 1e-6:
            raise ValueError(
                f"schedule {name} is {known:g} at progress {progress:g}"
                + (f" after {before:g}" if 0 <= known < before else "")
                + "; it must rise from 0 to 1"
            )
        before = known
