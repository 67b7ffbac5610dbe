"""Which checkpoints stay, which one is best, and which one is taken."""

import json
import os
import shutil

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from sdm_lightning.errors import DivergedError, InputError
from sdm_lightning.inference.checkpoints import newest_checkpoint
from sdm_lightning.inference.weights import find_weights
from sdm_lightning.training.callbacks import ImageBudget
from sdm_lightning.training.callbacks.checkpoint import RunCheckpoint, score_direction
from tests.training.test_callbacks import trainer_in

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:Found .* in eval mode"
)


def kept(folder):
    return sorted(file.name for file in (folder / "checkpoints").glob("[!.]*"))


def test_keep_counts_what_earlier_starts_left(make_module, make_loader, tmp_path):
    for images in (8, 16, 24):
        trainer = trainer_in(
            tmp_path, [ImageBudget(images), RunCheckpoint(1, keep=2)], enable_checkpointing=True
        )
        newest = newest_checkpoint(tmp_path)
        trainer.fit(make_module(), make_loader(), ckpt_path=newest)
        (tmp_path / "checkpoints" / "mine.ckpt").write_bytes(b"written by somebody else")
        os.utime(tmp_path / "checkpoints" / "mine.ckpt", (0, 0))
    assert kept(tmp_path) == ["000000020.ckpt", "000000024.ckpt", "last.ckpt", "mine.ckpt"]
    # Going back must not cost the new checkpoints: those of the abandoned end go first.
    again = trainer_in(
        tmp_path, [ImageBudget(12), RunCheckpoint(1, keep=2)], enable_checkpointing=True
    )
    again.fit(make_module(), make_loader())
    assert kept(tmp_path) == ["000000008.ckpt", "000000012.ckpt", "last.ckpt", "mine.ckpt"]


def test_diverged_training_keeps_its_good_checkpoints(make_module, make_loader, tmp_path):
    class Diverge(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:
                next(pl_module.generator.parameters()).data.fill_(float("nan"))

    trainer = trainer_in(
        tmp_path, [Diverge(), ImageBudget(40), RunCheckpoint(1, keep=2)], enable_checkpointing=True
    )
    with pytest.raises(DivergedError, match="holds NaN or infinity; no checkpoint was written"):
        trainer.fit(make_module(), make_loader())
    assert kept(tmp_path) == ["000000004.ckpt", "000000008.ckpt"]


def test_only_numbered_checkpoints_and_what_a_kill_left_are_deleted(
    make_module, make_loader, tmp_path
):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    stay = ["000000004-good.ckpt", "4.ckpt", "best.ckpt", "000000004.ckpt.bak"]
    go = ["000000001.ckpt", "000000002-v1.ckpt", ".000000003.ckpt.77.partial"]
    for name in stay + go:
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (0, 0))
    trainer_in(tmp_path, [ImageBudget(8), RunCheckpoint(2, keep=1)], enable_checkpointing=True).fit(
        make_module(), make_loader()
    )
    left = sorted(path.name for path in folder.iterdir())
    assert left == sorted([*stay, "000000008.ckpt", "last.ckpt"])


class Scores(Callback):
    """Logs a score of one's choice after each validation."""

    def __init__(self, values):
        self.values = list(values)

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("val/fid_quick[x]", self.values.pop(0))


def test_the_best_checkpoint_is_kept_and_outlives_restarts(make_module, make_loader, tmp_path):
    def run(values, images, **options):
        trainer = trainer_in(
            tmp_path,
            [Scores(values), ImageBudget(images), RunCheckpoint(1, keep=1, **options)],
            enable_checkpointing=True, val_check_interval=1, num_sanity_val_steps=0,
        )  # fmt: skip
        newest = newest_checkpoint(tmp_path)
        trainer.fit(make_module(), make_loader(), make_loader(length=2), ckpt_path=newest)

    monitor = {"monitor": "val/fid_quick[x]"}
    run([5.0, 3.0, float("nan"), 4.0], 16, **monitor)
    best = tmp_path / "checkpoints" / "best.ckpt"
    found = json.loads((tmp_path / "checkpoints" / "best.json").read_text())
    assert found == {"score": "val/fid_quick[x]", "value": 3.0, "images_seen": 8}
    assert torch.load(best, weights_only=True)["images_seen"] == 8
    run([3.5], 20, **monitor)  # not better than before the restart
    assert torch.load(best, weights_only=True)["images_seen"] == 8
    run([2.5], 24, **monitor)
    assert torch.load(best, weights_only=True)["images_seen"] == 24
    assert kept(tmp_path) == ["000000024.ckpt", "best.ckpt", "best.json", "last.ckpt"]


def test_a_score_that_is_not_there_is_named(make_module, make_loader, tmp_path):
    trainer = trainer_in(
        tmp_path, [Scores([1.0]), RunCheckpoint(monitor="val/kid")], enable_checkpointing=True,
        max_steps=1, val_check_interval=1, num_sanity_val_steps=0,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"no 'val/kid'; it has val/fid_quick\[x\]"):
        trainer.fit(make_module(), make_loader(), make_loader(length=2))


def test_which_way_a_score_is_better():
    assert score_direction("val/kid_quick[efficientnet-lite2]") == "min"
    assert score_direction("val/l1_hole") == "min"
    assert score_direction("val/psnr_hole") == "max"
    with pytest.raises(InputError, match=r"checkpoint.mode to min or max"):
        score_direction("val/beauty")


def test_a_run_directory_stands_for_its_newest_checkpoint_that_loads(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match="a directory without checkpoints"):
        find_weights(tmp_path / "run")
    for number, name in enumerate(("old.ckpt", "good.ckpt", "cut.ckpt")):
        torch.save({"state_dict": {}}, folder / name)
        os.utime(folder / name, (number, number))
    (folder / "cut.ckpt").write_bytes((folder / "cut.ckpt").read_bytes()[:50])
    (folder / "gone.ckpt").symlink_to(folder / "deleted-meanwhile")
    with pytest.warns(UserWarning, match="cut.ckpt cannot be read"):
        assert find_weights(tmp_path / "run") == folder / "good.ckpt"
    shutil.copy(folder / "cut.ckpt", folder / "good.ckpt")
    shutil.copy(folder / "cut.ckpt", folder / "old.ckpt")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(InputError, match="none of its 3 checkpoints can be read"),
    ):
        find_weights(tmp_path / "run")
