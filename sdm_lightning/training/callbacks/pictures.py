"""Pictures of what the model does: sample grids while it trains, results when it predicts."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torchvision.utils import make_grid

from sdm_lightning.data.transforms import to_array
from sdm_lightning.errors import InputError
from sdm_lightning.files import atomic_file


def grid_rows(output: dict[str, Any], limit: int) -> list[list[np.ndarray]]:
    """Build rows of tiles: input with a grey hole, iterations, first uncertainty, target.

    Args:
        output: What ``SDMModule.validation_step`` returns.
        limit: Most rows.
    """
    rows = []
    for i in range(min(limit, output["image"].shape[0])):
        image, mask = output["image"][i], output["mask"][i]
        tiles = [image * mask, *(step.completed[i] for step in output["steps"])]
        tiles += [output["uncertainty"][i].expand(3, -1, -1) * 2 - 1, image]
        rows.append([to_array(tile) for tile in tiles])
    return rows


class SampleGrid(pl.Callback):
    """Draws the first images of each validation and test, to disk and to W&B.

    Columns: input, each iteration, uncertainty of the first iteration (white = unsure), target.

    Args:
        num_images: Rows.
        folder: Relative to the trainer's root directory; files are named by the images seen.
    """

    def __init__(self, num_images: int = 8, folder: str = "samples") -> None:
        self.num_images = num_images
        self.folder = folder
        self._rows: list[list[np.ndarray]] = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *args: Any
    ) -> None:
        """Keep rows until there are enough."""
        missing = self.num_images - len(self._rows)
        if trainer.is_global_zero and missing > 0:
            self._rows += grid_rows(outputs, missing)

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the sheet."""
        self._write(trainer, "val", f"{pl_module.images_seen:09d}.png")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the sheet."""
        self._write(trainer, "test", f"test-{pl_module.images_seen:09d}.png")

    def _write(self, trainer: pl.Trainer, stage: str, file_name: str) -> None:
        rows, self._rows = self._rows, []
        if not rows or trainer.sanity_checking:
            return
        tiles = torch.from_numpy(np.stack([tile for row in rows for tile in row]))
        grid = make_grid(tiles.movedim(-1, 1), nrow=len(rows[0]), padding=2, pad_value=255)
        sheet = Image.fromarray(grid.movedim(0, -1).numpy())
        path = Path(trainer.default_root_dir) / self.folder / file_name
        with atomic_file(path) as file:
            sheet.save(file, "PNG")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image(f"{stage}/samples", [sheet])


class PredictionWriter(BasePredictionWriter):
    """Writes each prediction as ``FOLDER/KEY.png``, known pixels as they were.

    Args:
        folder: Relative to the trainer's root directory.
    """

    def __init__(self, folder: str = "predictions") -> None:
        super().__init__(write_interval="batch")
        self.folder = folder

    def write_on_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, prediction: Any, *args: Any
    ) -> None:
        """Write one batch.

        Raises:
            InputError: If a key would leave the folder.
        """
        folder = (Path(trainer.default_root_dir) / self.folder).resolve()
        for key, image in zip(prediction["key"], prediction["completed"], strict=True):
            path = (folder / f"{key}.png").resolve()
            if folder not in path.parents:
                raise InputError(f"sample key {key!r} leads out of {folder}; it must be a name")
            with atomic_file(path) as file:
                Image.fromarray(to_array(image)).save(file, "PNG")
