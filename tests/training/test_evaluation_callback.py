"""The callback around the evaluator, with a module that inpaints by halving the contrast."""

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from sdm_lightning.errors import InputError
from sdm_lightning.evaluation.evaluate import evaluate_folders
from sdm_lightning.evaluation.mask_sets import check_mask_set, write_mask_set
from sdm_lightning.evaluation.record import RESERVED
from sdm_lightning.features import to_uint8
from sdm_lightning.reports.results import read_result_lines
from sdm_lightning.training.callbacks.evaluation import EvaluationCallback, describe_data
from tests.trainers import quiet_trainer

COUNT = 5


class Samples(IterableDataset):
    """``COUNT`` samples over all processes: every second one, or all on the first process."""

    def __init__(self, shares="even"):
        self.shares = shares

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        rank, world = 0, 1
        if torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        for i in range(COUNT):
            image = torch.rand(3, 32, 32, generator=generator) * 2 - 1
            mask = (torch.rand(1, 32, 32, generator=generator) > 0.4).float()
            owner = {"even": i % world, "first": 0, "all": rank}[self.shares]
            if owner == rank:
                yield {"image": image, "mask": mask, "key": f"photo{i}"}


class Module(pl.LightningModule):
    """Does nothing in training."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.generator_ema = torch.nn.Identity()
        self.test_iterations, self.seed, self.images_seen = 4, 11, 77

    def training_step(self, batch, index):
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def validation_step(self, batch, index):
        image, mask = batch["image"], batch["mask"]
        mean = image / 2
        return {
            **batch,
            "completed": image * mask + mean * (1 - mask),
            "mean": mean,
            "uncertainty": image.abs().mean(1, keepdim=True),
        }

    test_step = validation_step


def trainer(root, callback, **settings):
    return quiet_trainer(
        max_epochs=1, limit_train_batches=1, callbacks=[callback], default_root_dir=str(root),
        use_distributed_sampler=False, **{"devices": 1, **settings},
    )  # fmt: skip


def loader(shares="even"):
    return DataLoader(Samples(shares), batch_size=2)


def test_names_while_training_and_in_a_test(tmp_path):
    callback = EvaluationCallback("random-conv", few_pairs=True, protocol="toy5")
    run = trainer(tmp_path, callback, enable_checkpointing=True)
    module = Module()
    run.fit(module, loader("all"), loader())
    logged = {name: value.item() for name, value in run.callback_metrics.items()}
    assert {
        "val/psnr_hole",
        "val/fid_quick[random-conv]",
        "val/u_ids_quick[random-conv,n<2500]",
    } <= (logged.keys())
    assert not any(name.startswith("val/fid[") for name in logged)
    # mean = image / 2 and uncertainty = |image|: the error is half the uncertainty.
    # Not exactly: the error is taken against the 8-bit original.
    assert logged["val/uncertainty_error_correlation"] == pytest.approx(1, abs=1e-3)
    assert not (tmp_path / "results.jsonl").exists()
    checkpoint = torch.load(run.checkpoint_callback.best_model_path, weights_only=True)
    assert list(checkpoint["state_dict"]) == ["weight"]
    assert not checkpoint["callbacks"].get("EvaluationCallback")

    run.test(module, loader(), verbose=False)
    (record,) = read_result_lines(tmp_path / "results.jsonl")
    assert record["metrics"]["psnr/toy5"] == pytest.approx(logged["val/psnr"], rel=1e-6)
    assert run.callback_metrics["test/psnr"].item() == pytest.approx(logged["val/psnr"])
    assert record["command"] == "test"
    assert (record["num_iterations"], record["seed"], record["images_seen"]) == (4, 11, 77)
    assert record["parameters"] == "ema"
    assert record["checkpoint"] is None


def test_checkpoint_hash_is_recorded(tmp_path):
    callback = EvaluationCallback()
    run = trainer(tmp_path, callback, enable_checkpointing=True)
    module = Module()
    run.fit(module, loader("all"), loader())
    path = run.checkpoint_callback.best_model_path
    run.validate(module, loader(), ckpt_path=path, weights_only=True, verbose=False)
    (record,) = read_result_lines(tmp_path / "results.jsonl")
    expected = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert record["checkpoint"]["sha256"] == expected
    assert record["command"] == "validate"


def test_a_test_and_its_files_on_disk_score_the_same(tmp_path):
    callback = EvaluationCallback("random-conv", protocol="toy")
    run = trainer(tmp_path, callback)
    module = Module()
    run.test(module, loader(), verbose=False)
    for batch in loader():
        outputs = module.test_step(batch, 0)
        for name in ("completed", "image", "mask"):
            (tmp_path / name).mkdir(exist_ok=True)
            pixels = outputs[name]
            pixels = (pixels * 255).byte() if name == "mask" else to_uint8(pixels)
            for key, picture in zip(batch["key"], pixels, strict=True):
                array = np.squeeze(picture.permute(1, 2, 0).numpy())
                Image.fromarray(array).save(tmp_path / name / f"{key}.png")
    record = str(tmp_path / "results.jsonl")
    evaluate_folders(
        str(tmp_path / "image"), str(tmp_path / "completed"), masks=str(tmp_path / "mask"),
        features="random-conv", lpips=None, ids=False, precision_recall=False, cache=None,
        batch_size=2, num_workers=0, protocol="toy", record=record,
    )  # fmt: skip
    tested, evaluated = read_result_lines(record)
    tested["metrics"].pop("uncertainty_error_correlation/toy")
    assert evaluated["metrics"] == pytest.approx(tested["metrics"], rel=1e-12)
    for same in ("images_digest", "masks_digest", "results_digest", "device"):
        assert evaluated[same] == tested[same]


def test_facts_cannot_take_the_records_own_names(tmp_path):
    with pytest.raises(
        InputError, match=r"evaluation\.facts\.seed: the record has a seed of its own"
    ):
        EvaluationCallback(facts={"seed": 3, "row": "A"})
    callback = EvaluationCallback(facts={"row": "A"}, protocol="toy5")
    trainer(tmp_path, callback).test(Module(), loader(), verbose=False)
    (record,) = read_result_lines(tmp_path / "results.jsonl")
    assert record["row"] == "A"
    added = set(record) - {"row"}
    assert added == RESERVED


def test_a_record_that_cannot_be_written_is_refused_before_the_test(tmp_path):
    callback = EvaluationCallback(record=".")
    with pytest.raises(InputError, match="cannot be written"):
        trainer(tmp_path, callback).test(Module(), loader(), verbose=False)


@pytest.mark.parametrize(
    ("stage", "part"),
    [
        ("test", {"fast_dev_run": True}),
        ("test", {"limit_test_batches": 1}),
        ("val", {"limit_val_batches": 1}),
    ],
)
def test_a_part_of_the_images_is_not_recorded(tmp_path, caplog, stage, part):
    run = trainer(tmp_path, EvaluationCallback(), **part)
    (run.test if stage == "test" else run.validate)(Module(), loader(), verbose=False)
    assert f"a part of the {stage} images: not recorded" in caplog.text
    assert not (tmp_path / "results.jsonl").exists()


def test_refusals_do_not_stop_a_test(tmp_path, caplog):
    run = trainer(tmp_path, EvaluationCallback("random-conv"))
    run.test(Module(), loader(), verbose=False)
    (record,) = read_result_lines(tmp_path / "results.jsonl")
    assert "p_ids[random-conv]/custom" in record["refused"]
    assert "5 pairs; below 2500" in caplog.text


def test_results_that_are_not_finite_show_in_training_and_end_a_test(tmp_path, caplog):
    class Diverged(Module):
        def validation_step(self, batch, index):
            outputs = super().validation_step(batch, index)
            return outputs | {"completed": outputs["completed"] * torch.nan}

        test_step = validation_step

    run = trainer(tmp_path, EvaluationCallback())
    run.fit(Diverged(), loader("all"), loader())
    assert run.callback_metrics["val/psnr"].isnan()
    assert "5 of 5 validation results hold values that are not finite" in caplog.text
    with pytest.raises(InputError, match=r"^photo0: the result holds a value that is not finite"):
        run.test(Diverged(), loader(), verbose=False)
    assert not (tmp_path / "results.jsonl").exists()


def test_a_mask_set_is_checked_before_its_digest_is_recorded(tmp_path):
    masks = tmp_path / "masks"
    write_mask_set(str(masks), count=2, preset="mat256_small", size=16, num_workers=0)
    data = SimpleNamespace(test="x", masks={"test": str(masks)}, mask_convention="known-white")
    run = cast("pl.Trainer", SimpleNamespace(datamodule=data))
    assert describe_data(run, "test")["mask_set"] == check_mask_set(masks)["digest"]
    data.mask_convention = "hole-white"
    with pytest.raises(InputError, match="says known-white, mask_convention says hole-white"):
        describe_data(run, "test")
    (masks / "00000000.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"00000000\.png: changed"):
        describe_data(run, "test")


@pytest.mark.slow
@pytest.mark.parametrize("shares", ["even", "first"])
def test_two_processes_of_lightning_record_the_same(tmp_path, shares):
    run = trainer(tmp_path / "one", EvaluationCallback("random-conv", few_pairs=True))
    run.test(Module(), loader(), verbose=False)
    command = [sys.executable, __file__, str(tmp_path / "two"), shares]
    subprocess.run(command, check=True, timeout=300, cwd=Path(__file__).parents[2])
    (one,), (two,) = (read_result_lines(tmp_path / n / "results.jsonl") for n in ("one", "two"))
    assert two["processes"] == 2
    # Batches hold other images, so the float32 features differ in their last digits.
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-6)
    assert two["images_digest"] == one["images_digest"]


if __name__ == "__main__":
    run = trainer(
        sys.argv[1], EvaluationCallback("random-conv", few_pairs=True), devices=2, strategy="ddp"
    )
    run.fit(Module(), loader("all"), loader(sys.argv[2]))
    run.test(Module(), loader(sys.argv[2]), verbose=False)
