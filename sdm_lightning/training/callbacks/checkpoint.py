"""When a run writes its checkpoints, and which of them stay."""

import json
import math
import re
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from sdm_lightning.errors import InputError
from sdm_lightning.files import write_atomically
from sdm_lightning.inference.checkpoints import CHECKPOINTS
from sdm_lightning.scores import find_score
from sdm_lightning.training.callbacks.preemption import validation_cut_short

_NUMBERED = re.compile(r"\d{9,}(-v\d+)?\.ckpt")


class RunCheckpoint(ModelCheckpoint):
    """Keeps the newest checkpoints, named by images seen, the best one, and a run's last state.

    Two are kept, so that a file that turns out damaged leaves the one before it. Files with other
    names than ``000500000.ckpt`` are never deleted.

    Args:
        every_n_batches: Batches between two checkpoints.
        keep: How many of them stay; those of earlier starts of the run count.
        monitor: Score of a validation, such as ``val/kid_quick[efficientnet-lite2]``: the
            checkpoint with its best value is kept as ``best.ckpt``, the value in ``best.json``.
            None: no best checkpoint is kept.
        mode: min if lower is better, max if higher is; None: known from the metric.

    Raises:
        InputError: If a count is not positive, or it is not known which of the monitored score's
            values is best.
    """

    def __init__(
        self,
        every_n_batches: int = 1000,
        keep: int = 2,
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        if every_n_batches < 1 or keep < 1:
            raise InputError("checkpoint.every_n_batches and checkpoint.keep must be at least 1")
        super().__init__(
            filename="{images_seen:09.0f}",
            monitor="images_seen",
            mode="max",
            save_top_k=-1,  # how many stay is decided by what is on disk
            auto_insert_metric_name=False,
            every_n_train_steps=every_n_batches,
        )
        self.every_n_batches = every_n_batches
        self.keep = keep
        self._ended_at = -1  # batch after which last.ckpt was written
        self.score = monitor
        self.score_mode = (mode or score_direction(monitor)) if monitor is not None else None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Put the folder into the run directory."""
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir).resolve() / CHECKPOINTS)
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero:
            for path in self.folder.glob(".*.ckpt.*.partial"):  # a killed process left them
                path.unlink(missing_ok=True)

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        assert self.dirpath is not None
        return Path(self.dirpath)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        """Save, then delete the oldest beyond ``keep``, those of earlier starts included."""
        name = Path(filepath).name
        health = getattr(trainer.lightning_module, "health", None)
        if health is not None:
            health.read()
            if health.in_a_row:
                # Networks in doubt must not push out good ones.
                rank_zero_info(f"{name} not written: the last {health.in_a_row} batches were bad")
                return
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero:
            # By time, not by images seen: a run that went back to an earlier checkpoint must not
            # lose its new ones to those that it left behind.
            found = [path for path in self.folder.iterdir() if _NUMBERED.fullmatch(path.name)]
            found.sort(key=lambda path: (path.name == name, path.lstat().st_mtime_ns, path.name))
            for path in found[: -self.keep]:
                path.unlink(missing_ok=True)
                self.best_k_models.pop(str(path), None)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save when it is due, and once more at the last batch of a run."""
        super().on_train_batch_end(trainer, *args)
        if trainer.should_stop or trainer.global_step == trainer.max_steps:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where early stopping or the number of epochs ends a run."""
        super().on_train_epoch_end(trainer, pl_module)
        most = trainer.max_epochs
        if trainer.should_stop or (most not in (None, -1) and trainer.current_epoch + 1 >= most):
            self._save_last(trainer)

    def _save_last(self, trainer: pl.Trainer) -> None:
        """Write ``last.ckpt``, once for the state that a run ends with."""
        stopped_by_signal = any(getattr(c, "requested", False) for c in trainer.callbacks)  # type: ignore[attr-defined]
        done = stopped_by_signal or trainer.fast_dev_run or self._ended_at == trainer.global_step  # type: ignore[attr-defined]
        if not done:
            trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)
            self._ended_at = trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save ``best.ckpt`` where the monitored score is better than all before.

        And ``last.ckpt`` where the validation ends the run.

        Raises:
            InputError: If the validation has no such score.
        """
        super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking or trainer.state.fn != "fit" or validation_cut_short(trainer):
            return
        if self.score is not None:
            self._save_best(trainer, pl_module)
        if trainer.should_stop:  # by early stopping, after this validation
            self._save_last(trainer)

    def _save_best(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.score is not None
        if self.score not in trainer.callback_metrics:
            known = sorted(name for name in trainer.callback_metrics if name.startswith("val/"))
            raise InputError(
                f"checkpoint.monitor: the validation has no '{self.score}'; it has "
                f"{', '.join(known) or 'no scores at all'}"
            )
        value = float(trainer.callback_metrics[self.score])
        # Decided by the first process, which reads the file; the others might see it late.
        if trainer.strategy.broadcast(self._is_best(value)):
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=False)
            if trainer.is_global_zero:
                seen = int(getattr(pl_module, "images_seen", 0))
                found = {"score": self.score, "value": value, "images_seen": seen}
                write_atomically(self.folder / "best.json", json.dumps(found) + "\n")
            rank_zero_info(f"best.ckpt: {self.score} {value:.4g}")

    def _is_best(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        try:
            best = json.loads((self.folder / "best.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return True
        if not isinstance(best, dict) or best.get("score") != self.score:
            return True
        before = float(best["value"])
        return value > before if self.score_mode == "max" else value < before


def score_direction(name: str) -> str:
    """Return ``"max"`` or ``"min"``, whichever of a score is best.

    Raises:
        InputError: If the score is not known.
    """
    score = find_score(name)
    if score is None:
        raise InputError(
            f"checkpoint.monitor: cannot tell whether a higher or lower '{name}' is better; set "
            "checkpoint.mode to min or max"
        )
    return "max" if score.better == "higher" else "min"
