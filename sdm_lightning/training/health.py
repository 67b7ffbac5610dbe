"""Noticing in the step what is not finite, so that no optimizer applies it.

Whether a batch is bad is decided on the device, so that the host need not wait for a GPU. The flag
goes to the fused Adam kernel, which then leaves weights, moments and step counts as they are. A
step that was taken before the first bad term is kept: the generator's, where only the
discriminator's loss was bad. What happened is read back at the logging interval, and always before
a checkpoint is written.
"""

import itertools
import logging
import math
from dataclasses import dataclass, field

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from sdm_lightning.errors import DivergedError
from sdm_lightning.training.distributed import all_reduce

_log = logging.getLogger(__name__)

READ_AT_LEAST_EVERY = 100
"""Batches: bounds what is kept on the device where nothing is logged."""

SATURATED = 6.0
"""Logit beyond which the discriminator is wrong less than once in 400 times."""

SATURATION_BATCHES = 1000
"""Time constant of the mean logits, in batches."""


@dataclass
class _Batch:
    """What was seen of one batch; values stay on the device until they are read."""

    images_seen: int
    keys: list[str]
    names: list[str] = field(default_factory=list)
    flags: list[Tensor] = field(default_factory=list)
    skipped: Tensor | None = None  # on any process, for the last optimizer step
    logits: list[Tensor] = field(default_factory=list)

    def row(self) -> Tensor:
        """Collect all values in one tensor: flags, skipped, mean logits of both kinds of images."""
        assert self.skipped is not None
        return torch.stack([*self.flags, self.skipped, *self.logits])


class StepHealth:
    """Watches losses, gradients and logits of the training step.

    Args:
        max_skipped: Bad batches in a row that are skipped before training stops.

    Attributes:
        skipped: Batches skipped so far, as last read.
        in_a_row: Batches skipped up to now without a good one between them.
        terms: What was not finite in the last bad batch, in the order of computation.
    """

    def __init__(self, max_skipped: int) -> None:
        self.max_skipped = max_skipped
        self.skipped = 0
        self.in_a_row = 0
        self.terms: list[str] = []
        self._pending: list[_Batch] = []
        self._means: list[float] = [0.0, 0.0]
        self._warned = False

    # ------------------------------------------------------------------ in the step

    def begin(self, images_seen: int, keys: list[str]) -> None:
        """Start a batch, before which the run has seen ``images_seen``."""
        self._pending.append(_Batch(images_seen, list(keys)))

    def look(self, name: str, value: Tensor) -> None:
        """Note whether a scalar, such as a loss or a gradient's norm, is finite."""
        batch = self._pending[-1]
        batch.names.append(name)
        batch.flags.append((~torch.isfinite(value.detach())).float())

    def look_at_logits(self, real: Tensor, completed: Tensor) -> None:
        """Note the discriminator's mean logits, scalars."""
        self._pending[-1].logits = [real.detach().float(), completed.detach().float()]

    def guard(
        self, optimizer: torch.optim.Optimizer | LightningOptimizer, trainer: pl.Trainer
    ) -> None:
        """Make the optimizer's next step do nothing if this batch was bad, on any process.

        The step itself has to be taken all the same: Lightning counts batches by it.

        Args:
            optimizer: With its gradients complete; Lightning's wrapper or the bare one.
            trainer: Whose processes have to agree.
        """
        batch = self._pending[-1]
        bad = torch.stack(batch.flags).amax()
        if trainer.world_size > 1:
            bad = all_reduce(trainer, bad, "sum").clamp(max=1.0)
        batch.skipped = bad
        bare = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        bare.found_inf = bad  # type: ignore[attr-defined]

    # ------------------------------------------------------------------ reading

    def due(self, batch_idx: int, trainer: pl.Trainer) -> bool:
        """Say whether to read now: at once where that costs nothing, else at the log interval."""
        flag = self._pending[-1].skipped if self._pending else None
        if flag is not None and flag.device.type == "cpu":
            return True
        interval = min(trainer.log_every_n_steps, READ_AT_LEAST_EVERY)  # type: ignore[attr-defined]
        return (batch_idx + 1) % max(interval, 1) == 0

    def read(self) -> None:
        """Count and report what happened since the last call."""
        pending, self._pending = [b for b in self._pending if b.skipped is not None], []
        if not pending:
            return
        rows = [batch.row() for batch in pending]
        values = torch.cat(rows).tolist()  # one transfer for all
        for batch, row in zip(pending, rows, strict=True):
            found, values = values[: len(row)], values[len(row) :]
            count = len(batch.flags)
            self._count(batch, found[:count], found[count] > 0)
            if batch.logits:
                self._follow_logits(found[count + 1 :])

    def _count(self, batch: _Batch, flags: list[float], skipped: bool) -> None:
        if not skipped:
            self.in_a_row = 0
            return
        self.skipped += 1
        self.in_a_row += 1
        self.terms = [name for name, flag in zip(batch.names, flags, strict=True) if flag]
        if self.terms:
            _log.warning(
                "batch after %s images skipped: %s not finite (keys %s); %d in a row, "
                "training stops after %d",
                f"{batch.images_seen:,}", _first(self.terms), _some(batch.keys),
                self.in_a_row, self.max_skipped + 1,
            )  # fmt: skip

    def _follow_logits(self, logits: list[float]) -> None:
        if not all(math.isfinite(value) for value in logits):
            return
        for index, value in enumerate(logits):
            self._means[index] += (value - self._means[index]) / SATURATION_BATCHES
        real, completed = self._means
        if real < SATURATED / 2 or completed > -SATURATED / 2:
            self._warned = False
        elif real > SATURATED and completed < -SATURATED and not self._warned:
            self._warned = True
            _log.warning(
                "the discriminator has collapsed: its mean logit over about %d batches is %.1f "
                "for real and %.1f for completed images, so it separates them whatever the "
                "generator does; see 'Collapsed discriminator' in docs/troubleshooting.md",
                SATURATION_BATCHES, real, completed,
            )  # fmt: skip

    # ------------------------------------------------------------------ stopping

    @property
    def diverged(self) -> bool:
        """Whether more batches in a row were bad than are tolerated."""
        return self.in_a_row > self.max_skipped

    def error(self, images_seen: int, keys: list[str], replay: str) -> DivergedError:
        """Build the one line that a run stops with.

        Args:
            images_seen: Images seen before the last batch.
            keys: Keys of the last batch.
            replay: The file with which its step can be repeated.
        """
        return DivergedError(
            f"training diverged: {_first(self.terms)} not finite in {self.in_a_row} batches in a "
            f"row (model.max_skipped_batches is {self.max_skipped}), the last after "
            f"{images_seen:,} images with keys {_some(keys)}; no step from there on was applied, "
            f"and no earlier checkpoint replaced; 'sdm replay {replay}' repeats the step; then "
            "continue with --ckpt_path last and a lower learning rate or --model.gradient_clip 1.0"
        )

    def state_dict(self) -> dict[str, int]:
        """Return the counters, for a checkpoint."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take up the counters of a checkpoint."""
        self.skipped, self.in_a_row = state.get("skipped", 0), state.get("in_a_row", 0)


def largest_gradient(module: nn.Module) -> Tensor:
    """Return the largest absolute value of a module's gradients; scalar, NaN if one is NaN."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return nn.utils.get_total_norm(gradients, math.inf)


def _first(names: list[str]) -> str:
    """Name what failed first: losses before the first gradient, or that; the rest follows."""
    losses = list(itertools.takewhile(lambda name: not name.startswith("gradient of the "), names))
    shown = losses or names[:1] or ["something on another process"]
    return f"{' and '.join(shown)} {'was' if len(shown) == 1 else 'were'}"


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    return ", ".join(keys[:4]) + more
