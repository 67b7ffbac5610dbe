"""When a run writes its checkpoints, and which one it goes on from."""

import re
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from sdm_lightning.errors import InputError, load_failure

FOLDER = "checkpoints"
OWN_NAME = re.compile(r"\d{9}\.ckpt")


class RunCheckpoint(ModelCheckpoint):
    """Keeps the newest checkpoints, named by images seen, and the last state of a run.

    Two are kept, so that a file that turns out damaged leaves the one before it.

    Args:
        every_n_batches: Batches between two checkpoints.
        keep: How many of them stay.
        dirpath: Folder; ``checkpoints`` in the run directory if None.

    Raises:
        InputError: If a count is not positive.
    """

    def __init__(self, every_n_batches: int = 1000, keep: int = 2, dirpath: str | None = None):
        if every_n_batches < 1 or keep < 1:
            raise InputError("checkpoint.every_n_batches and checkpoint.keep must be at least 1")
        super().__init__(
            dirpath=dirpath,
            filename="{images_seen:09.0f}",
            monitor="images_seen",
            mode="max",
            save_top_k=-1,  # how many stay is decided by what is on disk
            auto_insert_metric_name=False,
            every_n_train_steps=every_n_batches,
        )
        self.every_n_batches = every_n_batches
        self.keep = keep

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Puts the folder into the run directory."""
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir).resolve() / FOLDER)
        super().setup(trainer, pl_module, stage)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        """Save, then delete the oldest beyond ``keep``, those of earlier starts included."""
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero:
            self._remove_old(Path(filepath))

    def _remove_old(self, newest: Path) -> None:
        # By time of writing, not by images seen: a run that went back to an earlier checkpoint
        # must not lose its new ones to those that it left behind. Other files are never deleted.
        files = [file for file in newest.parent.glob("*.ckpt") if OWN_NAME.fullmatch(file.name)]
        files.sort(key=lambda file: (file == newest, file.stat().st_mtime_ns, file.name))
        for file in files[: -self.keep]:
            file.unlink(missing_ok=True)
            self.best_k_models.pop(str(file), None)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Saves when it is due, and once more at the last batch of a run."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        ends = trainer.should_stop or trainer.global_step == trainer.max_steps
        stopped_by_signal = any(getattr(c, "requested", False) for c in trainer.callbacks)  # type: ignore[attr-defined]
        if ends and not stopped_by_signal and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            assert self.dirpath is not None
            trainer.save_checkpoint(Path(self.dirpath) / "last.ckpt", weights_only=False)


def newest_checkpoint(run_directory: str | Path) -> Path | None:
    """The newest checkpoint of a run that can be read, or None where there is none.

    Args:
        run_directory: ``runs/<name>``.

    Raises:
        InputError: If there are checkpoints and none of them can be read.
    """
    folder = Path(run_directory) / FOLDER
    files = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files:
        try:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            warnings.warn(
                f"{path} cannot be read ({load_failure(error)}); trying the one before",
                stacklevel=2,
            )
        else:
            return path
    if files:
        raise InputError(f"{folder}: none of its {len(files)} checkpoints can be read")
    return None
