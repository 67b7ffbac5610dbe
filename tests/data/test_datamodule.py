"""The data module under a trainer: what it delivers, and that it continues where it stopped."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import ModelCheckpoint

from sdm_lightning.data import InpaintingDataModule
from sdm_lightning.data.datamodule import batch_share
from sdm_lightning.data.masks.presets import free_form_mask
from sdm_lightning.data.masks.sources import FolderMasks, PresetMasks, mask_seed
from sdm_lightning.data.preprocess import EvalPreprocess, TrainPreprocess
from sdm_lightning.errors import InputError
from tests.data.shard_tools import encoded, make_images, make_shards, photo
from tests.shapes_only import DEVICE, NoFloat64
from tests.trainers import quiet_trainer


class Recorder(pl.LightningModule):
    """Remembers what it is given; its one weight depends on every pixel in order."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.stop_at = stop_at
        self.batches: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.batches["train"].append(batch)
        self.optimizers().step()
        with torch.no_grad():
            self.weight.mul_(0.9).add_((batch["image"] * batch["mask"]).double().sum())
        if len(self.batches["train"]) == self.stop_at:
            self.trainer.should_stop = True

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.batches["val"].append(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.batches["test"].append(batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)

    def keys(self, split: str) -> list[str]:
        return [key for batch in self.batches[split] for key in batch["key"]]


def trainer(root: Path, **options: Any) -> pl.Trainer:
    return quiet_trainer(
        default_root_dir=root, use_distributed_sampler=False, num_sanity_val_steps=0, **options
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    make_shards(path, 11, 3)
    return path


def module(root: Path, **options: Any) -> InpaintingDataModule:
    shards = str(root / "shards")
    settings: dict[str, Any] = {
        "train": shards, "val": shards, "test": shards, "resolution": 8, "batch_size": 2,
        "num_workers": 0, "train_masks": "lama_thick", "val_masks": "lama_thick",
        "test_masks": "lama_thick",
    }  # fmt: skip
    return InpaintingDataModule(**{**settings, **options})


def test_a_batch(root: Path):
    batch = next(iter(module(root).train_dataloader()))
    assert batch["image"].shape == (2, 3, 8, 8)
    assert batch["image"].dtype == torch.float32
    assert -1 <= batch["image"].min() < 0 < batch["image"].max() <= 1
    assert batch["mask"].shape == (2, 1, 8, 8)
    assert batch["mask"].dtype == torch.float32
    assert batch["mask"].unique().tolist() == [0, 1]
    assert len(batch["key"]) == 2


def test_validation_and_test_see_every_sample_once_with_the_same_masks(root: Path):
    models = []
    for workers in (0, 2):
        model = Recorder()
        trainer(root).validate(model, module(root, num_workers=workers), verbose=False)
        trainer(root).test(model, module(root, eval_batch_size=5), verbose=False)
        models.append(model)
        for split in ("val", "test"):
            assert sorted(model.keys(split)) == [f"{i:03d}" for i in range(11)]
        assert [len(batch["key"]) for batch in model.batches["test"]] == [5, 5, 1]
    masks = [
        {k: m for b in model.batches["val"] for k, m in zip(b["key"], b["mask"], strict=True)}
        for model in models
    ]
    for key, mask in masks[0].items():
        assert torch.equal(mask, masks[1][key])
        expected = free_form_mask("lama_thick", 8, mask_seed(0, key))
        assert torch.equal(mask[0], torch.from_numpy(expected).float())


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_and_resumed_equals_uninterrupted(root: Path, tmp_path: Path, workers: int):
    """Stop at batch 4, with a validation in between and prefetched batches in flight."""
    options = {"max_steps": 9, "val_check_interval": 3, "check_val_every_n_epoch": None}
    whole = Recorder()
    trainer(tmp_path, **options).fit(whole, module(root, num_workers=workers))
    assert len(whole.batches["train"]) == 9

    stopped = Recorder(stop_at=4)
    saver = ModelCheckpoint(tmp_path, filename="stop", every_n_train_steps=4)
    trainer(tmp_path, callbacks=[saver], enable_checkpointing=True, **options).fit(
        stopped, module(root, num_workers=workers)
    )
    state = torch.load(tmp_path / "stop.ckpt", weights_only=True)["InpaintingDataModule"]
    assert state["batches_done"] == 4

    resumed = Recorder()
    trainer(tmp_path, **options).fit(
        resumed, module(root, num_workers=workers), ckpt_path=tmp_path / "stop.ckpt"
    )
    assert stopped.keys("train") + resumed.keys("train") == whole.keys("train")
    for a, b in zip(whole.batches["train"][4:], resumed.batches["train"], strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["mask"], b["mask"])
    assert torch.equal(whole.weight, resumed.weight)


def test_epochs_of_a_limited_length_go_on_and_do_not_begin_again(root: Path):
    whole, epochs = Recorder(), Recorder()
    trainer(root, max_steps=6, limit_val_batches=0).fit(whole, module(root))
    data = module(root)
    limited = {"limit_train_batches": 2, "max_epochs": 3, "limit_val_batches": 0}
    trainer(root, **limited).fit(epochs, data)
    assert epochs.keys("train") == whole.keys("train")
    assert data.state_dict()["batches_done"] == 6


def test_a_resume_under_other_conditions_warns_or_refuses(root: Path, caplog):
    before = module(root, batch_size=2)
    before.batches_done = 30
    state = before.state_dict()
    assert set(map(type, state.values())) == {int, str}  # a weights-only checkpoint takes these
    after = module(root, batch_size=3)
    after.load_state_dict(state)
    with caplog.at_level(logging.WARNING):
        loader = after.train_dataloader()
    assert "batch_size 2 -> 3" in caplog.text
    assert after.batches_done == 20  # 60 images
    assert loader.position() == 20
    fewer = module(root)
    fewer.trainer = SimpleNamespace(global_rank=0, world_size=3, overfit_batches=0)
    fewer.load_state_dict(state | {"world_size": 4})
    fewer.train_dataloader()
    assert fewer.batches_done == 40  # 240 images
    for name, value in (("shuffle_shards", 3), ("num_workers", 2)):
        changed = module(root, strict_resume=True, **{name: value})
        changed.load_state_dict(state)
        with pytest.raises(InputError, match=f"{name} .* -> {value}"):
            changed.train_dataloader()
    strict = module(root, seed=1, strict_resume=True)
    strict.load_state_dict(state)
    with pytest.raises(InputError, match="seed 0 -> 1"):
        strict.train_dataloader()
    caplog.clear()
    same = module(root, strict_resume=True)
    same.load_state_dict(state)
    same.train_dataloader()
    assert not caplog.records
    assert same.batches_done == 30


def test_overfitting_repeats_the_first_batches(root: Path):
    data = module(root)
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, overfit_batches=2)
    data.batches_done = 7
    assert data.train_dataloader().position() == 0
    data.trainer.overfit_batches = 0
    assert data.train_dataloader().position() == 7


def test_batches_can_move_to_apples_gpus(root: Path):
    data = module(root)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batch = next(iter(loader))
        with NoFloat64():
            move_data_to_device(batch, DEVICE)


def test_settings_reach_the_streams(root: Path, tmp_path: Path):
    data = module(
        root, seed=7, flip=False, shuffle_shards=3, max_bad_images=4, mask_seed=5,
        eval_batch_size=5, num_workers=2, mask_convention="hole-white",
    )  # fmt: skip
    data.trainer = SimpleNamespace(global_rank=1, world_size=3, overfit_batches=0)
    train = data.train_dataloader().stream
    masks = {"lama_thick": 1.0}
    assert train.preprocess == TrainPreprocess(8, masks, 7, False, "hole-white")
    assert (train.seed, train.batch_size, train.rank, train.world_size) == (7, 2, 1, 3)
    assert (train.shuffle_shards, train.max_bad_images) == (3, 4)
    test = data.test_dataloader().dataset
    assert test.preprocess == EvalPreprocess(8, PresetMasks("lama_thick", 5))
    assert (test.batch_size, test.rank, test.world_size, test.num_workers) == (5, 1, 3, 2)
    (tmp_path / "000.png").write_bytes(encoded(photo(0)))
    data.masks["test"] = str(tmp_path)
    source = data.test_dataloader().dataset.preprocess.masks
    assert isinstance(source, FolderMasks)
    assert source.convention == "hole-white"


def test_prediction_from_a_folder_with_masks(tmp_path: Path, root: Path):
    images = make_images(tmp_path / "in", 3)
    (tmp_path / "masks").mkdir()
    for number in range(3):
        mask = (photo(number + 5)[..., 0] > 90).astype("uint8") * 255
        (tmp_path / "masks" / f"{number:03d}.png").write_bytes(encoded(mask))
    data = InpaintingDataModule(
        predict=str(images), predict_masks=str(tmp_path / "masks"), resolution=8, batch_size=2,
        num_workers=0,
    )  # fmt: skip
    outputs = trainer(tmp_path).predict(Recorder(), data)
    assert [batch["key"] for batch in outputs] == [["000", "001"], ["002"]]
    expected = torch.from_numpy(photo(2)[2:10, 3:11].copy()).permute(2, 0, 1) / 127.5 - 1
    assert torch.equal(outputs[1]["image"][0], expected)
    known = torch.from_numpy(photo(7)[2:10, 3:11, 0] > 90).float()
    assert torch.equal(outputs[1]["mask"][0, 0], known)
    (tmp_path / "masks" / "001.png").unlink()
    with pytest.raises(InputError, match=r"no mask for 001; expected a file 001.png"):
        trainer(tmp_path).predict(Recorder(), data)
    data = InpaintingDataModule(predict=str(images), resolution=8)
    with pytest.raises(InputError, match=r"images carry no masks; set data.predict_masks"):
        data.predict_dataloader()


def test_masks_packed_with_the_images(tmp_path: Path):
    (tmp_path / "masks").mkdir()
    for number in range(4):
        (tmp_path / "masks" / f"{number:03d}.png").write_bytes(encoded(photo(number)[..., 0]))
    make_shards(tmp_path, 4, 2, masks=str(tmp_path / "masks"))
    data = InpaintingDataModule(
        test=str(tmp_path / "shards"), test_masks="sample", resolution=8, num_workers=0
    )
    for batch in data.test_dataloader():
        for key, mask in zip(batch["key"], batch["mask"], strict=True):
            expected = torch.from_numpy(photo(int(key))[2:10, 3:11, 0] >= 128).float()
            assert torch.equal(mask[0], expected)


def test_what_is_wrong_shows_before_training_starts(root: Path, tmp_path: Path):
    cases = {
        r"data\.train is not set": {"train": None},
        "no such index": {"train": str(tmp_path)},
        "refused": {"train": "pipe:touch x"},
    }
    for message, options in cases.items():
        with pytest.raises(InputError, match=message):
            trainer(tmp_path, max_steps=1).fit(Recorder(), module(root, **options))
    with pytest.raises(InputError, match=r"data\.test is not set"):
        trainer(tmp_path).test(Recorder(), module(root, test=None))
    with pytest.raises(InputError, match=r"data\.test: the images carry no masks"):
        trainer(tmp_path).test(Recorder(), module(root, test_masks="sample"))
    for name, value in (
        ("resolution", 0), ("batch_size", 0), ("eval_batch_size", 0), ("num_workers", -1),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"data.{name} must be at least"):
            module(root, **{name: value})
    with pytest.raises(InputError, match="did you mean mat512_large"):
        trainer(tmp_path).fit(Recorder(), module(root, train_masks="mat512_larg"))
    with pytest.raises(InputError, match=r"data\.train: the images carry no masks"):
        trainer(tmp_path).fit(Recorder(), module(root, train_masks="sample"))
    trainer(tmp_path, max_steps=1).fit(Recorder(), module(root, val=None))


def test_starting_loaders_leaves_the_global_random_state_alone(root: Path):
    state = torch.get_rng_state()
    data = module(root)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        next(iter(loader))
    assert torch.equal(torch.get_rng_state(), state)


def test_persistent_workers_start_every_evaluation_from_its_beginning(root: Path):
    loader = module(root, num_workers=1, persistent_workers=True).val_dataloader()
    first = next(iter(loader))["key"]  # left in the middle, as limit_val_batches does
    runs = [[key for batch in loader for key in batch["key"]] for _ in range(2)]
    assert runs[0] == runs[1]
    assert sorted(runs[0]) == [f"{i:03d}" for i in range(11)]
    assert runs[0][:2] == first


def test_no_worker_and_one_worker_give_the_same_order(root: Path):
    data = [module(root, num_workers=workers) for workers in (0, 1)]
    batches = [iter(one.train_dataloader()) for one in data]
    for _ in range(4):
        assert next(batches[0])["key"] == next(batches[1])["key"]
    data[1].load_state_dict(data[0].state_dict())
    data[1].strict_resume = True
    data[1].train_dataloader()


def test_the_global_batch_is_shared_in_equal_parts(root: Path) -> None:
    assert batch_share(32, 4, 1) == (32, 8)
    assert batch_share(32, 4, 8) == (4, 1)
    assert batch_share(32, 5, 2) == (16, 4)
    with pytest.raises(InputError, match=r"32, which 3 processes"):
        batch_share(32, 4, 3)
    data = module(root, global_batch_size=6, batch_size=4)
    recorder = Recorder()
    trainer(root, max_steps=1).fit(recorder, datamodule=data)
    assert [len(batch["key"]) for batch in recorder.batches["train"]] == [6]
    assert data.num_parts == 2
    assert data.eval_batch_size == 4
