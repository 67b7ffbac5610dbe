"""Metric states that give the same numbers over any number of processes.

Every row that enters carries the 64-bit hash of its image's key. ``compute`` sorts by that hash, so
the order in which processes and workers saw the images does not matter, and refuses a key that
occurs twice, so an image that a padding sampler showed to two processes cannot count twice.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from sdm_lightning.errors import InputError
from sdm_lightning.metrics.hashes import row_hashes


def gather_on_backend(tensor: Tensor, group: Any = None) -> list[Tensor]:
    """Gather all processes' tensors (of any first size) on the device of ``tensor``.

    The states are kept on the CPU; NCCL moves only GPU tensors, so they are copied there and back.
    """
    if dist.get_backend(group) == "nccl":
        gathered = gather_all_tensors(tensor.cuda(), group)
        return [part.to(tensor.device) for part in gathered]
    return gather_all_tensors(tensor.contiguous(), group)


class ExactMetric(Metric):
    """A metric with its states on the CPU, which also works if a process sees no image."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__(dist_sync_fn=gather_on_backend, compute_with_cache=False)
        self._empty_rows: dict[str, Tensor] = {}

    def add_rows(self, name: str, *shape: int, dtype: torch.dtype) -> None:
        """Declare a state made of rows ``(n, *shape)`` from all processes."""
        self.add_state(name, default=[], dist_reduce_fx="cat")
        self._empty_rows[name] = torch.empty((0, *shape), dtype=dtype)

    def rows(self, name: str) -> Tensor:
        """Return the rows so far as one tensor, empty with the right shape where there are none."""
        state = getattr(self, name)
        if isinstance(state, Tensor):
            return state
        if not state:
            return self._empty_rows[name]
        return state[0] if len(state) == 1 else torch.cat(state)

    def sync(
        self,
        dist_sync_fn: Callable | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable | None = None,
    ) -> None:
        """Gather the states of all processes, also those that saw no image.

        torchmetrics would send a one-dimensional float32 tensor for an empty list, which aborts
        the other processes if theirs has two dimensions or integers.
        """
        for name, empty in self._empty_rows.items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                setattr(self, name, [empty])
        super().sync(
            dist_sync_fn=dist_sync_fn or self.dist_sync_fn,
            process_group=process_group,
            should_sync=should_sync,
            distributed_available=distributed_available,
        )

    def _apply(self, fn: Callable, exclude_state: Sequence[str] = ()) -> torch.nn.Module:
        """Ignore moves to another device or type: float64 sums exist on the CPU everywhere."""
        return self


def sort_unique(ids: Tensor) -> Tensor:
    """Return the order that sorts ``ids``.

    Args:
        ids: int64 ``(N,)``.

    Returns:
        int64 ``(N,)``, indices.

    Raises:
        InputError: If a number occurs more than once.
    """
    values, order = torch.sort(ids)
    repeated = int((values[1:] == values[:-1]).sum())
    if repeated:
        raise InputError(
            f"{repeated} of {len(ids)} images were seen more than once: keys must be unique, and "
            "the loader must give each image to one process only (a sampler that pads the last "
            "batch does not)"
        )
    return order


class PerImageScores(ExactMetric):
    """Scores of single images; their means come out the same over any number of processes.

    Args:
        names: The scores, in the order of the columns.
    """

    ids: list[Tensor]
    values: list[Tensor]
    digests: list[Tensor]

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.add_rows("ids", dtype=torch.int64)
        self.add_rows("values", len(self.names), dtype=torch.float64)
        self.add_rows("digests", 3, dtype=torch.int64)

    def update(self, keys: Sequence[str], scores: dict[str, Tensor], digests: Tensor) -> None:
        """Add a batch.

        Args:
            keys: ``B`` names of images.
            scores: One ``(B,)`` tensor per name; NaN where a score does not exist for an image
                (no hole pixel). A missing name is NaN throughout.
            digests: int64 ``(B, 3)``, hashes of the image's, the mask's and the result's pixels.
        """
        unknown = set(scores) - set(self.names)
        if unknown:
            raise ValueError(f"unknown scores {sorted(unknown)}; declared: {self.names}")
        missing = torch.full((len(keys),), torch.nan, dtype=torch.float64)
        columns = [
            scores[name].detach().cpu().double() if name in scores else missing
            for name in self.names
        ]
        self.ids.append(row_hashes(keys))
        self.values.append(torch.stack(columns, dim=1))
        self.digests.append(digests)

    def table(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return all rows in the order of their ids: ids, values, digests.

        Raises:
            InputError: If a key occurs more than once.
        """
        ids = self.rows("ids")
        order = sort_unique(ids)
        return ids[order], self.rows("values")[order], self.rows("digests")[order]

    def compute(self) -> dict[str, float]:
        """Average each score over the images that have it; NaN where none has it."""
        _, values, _ = self.table()
        return {name: finite_mean(values[:, k]) for k, name in enumerate(self.names)}


def finite_mean(values: Tensor) -> float:
    """Average the finite numbers of a ``(N,)`` tensor.

    An image without hole pixels has no hole-only score (NaN), and an identical pair has an infinite
    PSNR, which would make the mean infinite whatever the other images are; both are left out (and
    counted by the evaluator). If nothing is finite, the result is infinite or NaN accordingly.
    """
    finite = values[values.isfinite()]
    if len(finite):
        return finite.mean().item()
    return torch.inf if bool(values.isposinf().any()) else torch.nan
