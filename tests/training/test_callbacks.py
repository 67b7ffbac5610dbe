"""Budget, preemption, pictures and checkpoints."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sdm_lightning.data.transforms import to_array
from sdm_lightning.errors import InputError
from sdm_lightning.training.callbacks import (
    ImageBudget,
    ImageProgressBar,
    PredictionWriter,
    Preemption,
    SampleGrid,
)
from tests.trainers import quiet_trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:Found .* in eval mode"
)


def trainer_in(folder, callbacks, **options):
    return quiet_trainer(default_root_dir=folder, callbacks=callbacks, **options)


def test_budget_counts_images(make_module, make_loader, tmp_path):
    module = make_module()
    trainer = trainer_in(tmp_path, [ImageBudget(10)])
    trainer.fit(module, make_loader())
    assert (module.images_seen, trainer.global_step) == (12, 3)  # the first batch at or past 10


def test_budget_must_be_positive():
    with pytest.raises(InputError, match="max_images is 0"):
        ImageBudget(0)


def test_pixels_are_rounded():
    levels = torch.arange(256) / 127.5 - 1
    image = levels.expand(3, 1, 256)
    assert to_array(image)[0, :, 0].tolist() == list(range(256))
    assert to_array(image * 3)[0, [0, -1], 0].tolist() == [0, 255]


def test_samples_and_predictions_are_written(make_module, make_loader, tmp_path):
    module = make_module()
    trainer = trainer_in(tmp_path, [SampleGrid(num_images=3), PredictionWriter()], max_steps=2,
                         val_check_interval=2, num_sanity_val_steps=0)  # fmt: skip
    trainer.fit(module, make_loader(), make_loader(length=8))
    sheet = Image.open(tmp_path / "samples" / "000000008.png")
    tiles = 1 + module.test_iterations + 2
    assert sheet.size == (tiles * (32 + 2) + 2, 3 * (32 + 2) + 2)

    loader = make_loader(length=2)
    trainer.predict(module, loader, return_predictions=False)
    batch = next(iter(loader))
    written = np.asarray(Image.open(tmp_path / "predictions" / "0001.png"))
    known = batch["mask"][1, 0].bool().numpy()
    original = to_array(batch["image"][1])
    assert (written[known] == original[known]).all()
    assert (written[~known] != original[~known]).any()


def test_predictions_stay_in_their_folder(tmp_path):
    writer = PredictionWriter()
    trainer = trainer_in(tmp_path, [])
    prediction = {"key": ["../outside"], "completed": torch.zeros(1, 3, 4, 4)}
    with pytest.raises(InputError, match=r"'\.\./outside' leads out"):
        writer.write_on_batch_end(trainer, None, prediction, None, None, 0, 0)
    assert not (tmp_path / "outside.png").exists()


def test_progress_bar_counts_images_of_the_budget(make_module, make_loader, tmp_path, capsys):
    trainer = trainer_in(tmp_path, [ImageBudget(8), ImageProgressBar()], enable_progress_bar=True)
    trainer.fit(make_module(), make_loader())
    shown = capsys.readouterr()
    assert "8.00/8.00" in shown.err + shown.out
    assert "nll=" in shown.err + shown.out


def test_progress_bar_of_a_resumed_run_goes_on(make_module, make_loader, tmp_path, capsys):
    first = trainer_in(tmp_path, [ImageBudget(8)])
    first.fit(make_module(), make_loader())
    first.save_checkpoint(tmp_path / "first.ckpt")
    bar = ImageProgressBar()
    second = trainer_in(tmp_path, [ImageBudget(16), bar], enable_progress_bar=True)
    second.fit(make_module(), make_loader(), ckpt_path=tmp_path / "first.ckpt")
    shown = capsys.readouterr()
    assert "16.0/16.0" in shown.err + shown.out
    assert bar.train_progress_bar.format_dict["initial"] == 8  # speed is of this run's images


def test_progress_bar_counts_a_runs_own_images(make_module, make_loader, tmp_path, capsys):
    module = make_module()
    module.images_seen = module.images_before = 1000  # as of the weights that it starts from
    bar = ImageProgressBar()
    trainer = trainer_in(tmp_path, [ImageBudget(8), bar], enable_progress_bar=True)
    trainer.fit(module, make_loader())
    shown = capsys.readouterr()
    assert bar.train_progress_bar.format_dict["initial"] == 0
    assert "8.00/8.00" in shown.err + shown.out


def test_several_processes_ask_each_other_however_short_an_epoch_is(monkeypatch):
    """The count of batches goes on over epochs, that of an epoch would never reach ten."""
    asked = []
    monkeypatch.setattr(
        "sdm_lightning.training.callbacks.preemption.on_any_process",
        lambda trainer, flag: asked.append(trainer.global_step),
    )
    preemption = Preemption(every_n_batches=10)
    for step in range(1, 31):
        trainer = SimpleNamespace(world_size=2, global_step=step)
        preemption.on_train_batch_end(trainer, None, None, None, step % 3)
    assert asked == [10, 20, 30]
