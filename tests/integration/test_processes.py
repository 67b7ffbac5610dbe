"""Two processes (gloo) at the same global batch equal one."""

import os
import signal
from datetime import timedelta
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch.utils.data import DataLoader

from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.errors import InputError
from sdm_lightning.losses import LossTerm, PixelPyramidLoss
from sdm_lightning.models import Discriminator, Generator
from sdm_lightning.training import AdaptiveAugment, LossSettings, SDMModule
from sdm_lightning.training.callbacks import Preemption
from sdm_lightning.training.checks import refuse_unfit_trainer
from tests.integration.test_resume import digest, flat
from tests.trainers import quiet_trainer

GLOBAL_BATCH = 4
STEPS = 4
ROUNDING = 3e-5
"""Adam makes a step of 1e-3 of any gradient, also of one that is nearly all rounding."""


class Batches(pl.LightningDataModule):
    """Each process takes every world-size-th sample of the same global batches.

    Args:
        bad: Number of a sample that is not finite; None: all are.
    """

    def __init__(self, bad=None):
        super().__init__()
        self.bad = bad

    def train_dataloader(self):
        rng = torch.Generator().manual_seed(0)
        samples = []
        for index in range(GLOBAL_BATCH * STEPS * 2):
            image = torch.rand(3, 16, 16, generator=rng) * 2 - 1
            if index == self.bad:
                image[:] = float("nan")
            mask = (torch.rand(1, 16, 16, generator=rng) > 0.5).float()
            samples.append({"image": image, "mask": mask, "key": str(index)})
        rank, world = self.trainer.global_rank, self.trainer.world_size
        start = self.trainer.global_step * GLOBAL_BATCH  # of a resumed run
        return DataLoader(samples[start + rank :: world], batch_size=GLOBAL_BATCH // world)


class Spread(LossTerm):
    """The mean log variance."""

    name = "spread"

    def forward(self, mean, log_variance, uncertainty, image, mask):
        return log_variance.mean(dim=(1, 2, 3))


def silent_module(detach=True):
    """Without anything drawn at random per process, and without statistics over a batch."""
    torch.manual_seed(0)
    generator = Generator(
        base_channels=8, max_channels=8, num_downsamples=2, attention_strides=(4,),
        attention_heads=2, bias_channels=4, latent_dim=4, mapping_layers=1,
    )  # fmt: skip
    for parameter in generator.mapping.parameters():
        parameter.requires_grad_(False).zero_()  # its gradient is of the random latent code
    return SDMModule(
        generator,
        Discriminator(resolution=16, base_channels=8, max_channels=8, mbstd_group=1),
        PixelPyramidLoss(levels=2),
        SpatialDiffusion(num_iterations=2, alpha=0.0, detach=detach),
        losses=LossSettings(r1_interval=2),
        augment=AdaptiveAugment(interval=2, images_to_unit=1_000_000, transforms=()),
        style_mixing_probability=0.0,
        terms=[Spread()],
    )


def trained(world, module, bad=None, ckpt_path=None, options=None, **strategy):
    trainer = quiet_trainer(
        max_steps=STEPS,
        devices=world,
        strategy=DDPStrategy(start_method="fork", process_group_backend="gloo", **strategy)
        if world > 1
        else "auto",
        use_distributed_sampler=False,
        **(options or {}),
    )
    trainer.fit(module, datamodule=Batches(bad), ckpt_path=ckpt_path, weights_only=True)
    return module.state_dict()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("detach", [True, False])
def test_two_processes_equal_one(detach):
    alone = trained(1, silent_module(detach))
    pair = trained(2, silent_module(detach))
    initial = silent_module(detach).state_dict()
    assert alone.keys() == pair.keys()
    for name, value in alone.items():
        torch.testing.assert_close(pair[name], value, rtol=2e-5, atol=ROUNDING, msg=name)
    assert any(not torch.equal(alone[k], initial[k]) for k in alone if "discriminator" in k)
    assert float(alone["augment.probability"]) == pytest.approx(float(pair["augment.probability"]))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_batch_that_is_bad_on_one_process_is_skipped_on_all():
    """And on as many batches as in a single process: the others train on."""
    bad = GLOBAL_BATCH + 1  # of the second batch, and of the second process
    alone = trained(1, silent_module(), bad)
    pair = trained(2, silent_module(), bad)
    healthy = trained(1, silent_module())
    for name, value in alone.items():
        torch.testing.assert_close(pair[name], value, rtol=2e-5, atol=ROUNDING, msg=name)
    assert all(value.isfinite().all() for value in pair.values())
    assert any(not torch.allclose(healthy[k], alone[k]) for k in alone if "generator." in k)


class Save(Callback):
    """Saves after each batch."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, *args):
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_two_processes_go_on_as_if_never_stopped(tmp_path):
    """The signs that ADA has counted are each process's own; a checkpoint holds their sum."""

    def parts(path):
        saved = torch.load(path, weights_only=True)
        return digest(dict(flat([saved["state_dict"], saved["optimizer_states"]])))

    def run(**options):
        module = silent_module()
        module.augment = AdaptiveAugment(
            interval=3, images_to_unit=40, probability=0.3, transforms=()
        )
        trained(2, module, **options)

    (tmp_path / "resumed").mkdir()
    run(options={"callbacks": [Save(tmp_path)]})
    run(options={"callbacks": [Save(tmp_path / "resumed")]}, ckpt_path=tmp_path / "1.ckpt")
    for number in (2, STEPS):  # before and after ADA's update
        whole, resumed = tmp_path / f"{number}.ckpt", tmp_path / "resumed" / f"{number}.ckpt"
        assert parts(whole) == parts(resumed), number


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_signal_to_one_process_stops_both_with_a_whole_checkpoint(tmp_path):
    class Signal(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_rank == 1 and trainer.global_step == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    options = {"callbacks": [Preemption(every_n_batches=2), Signal()], "default_root_dir": tmp_path}
    trained(2, silent_module(), options=options)
    saved = torch.load(tmp_path / "checkpoints" / "preempted.ckpt", weights_only=True)
    assert saved["images_seen"] == 2 * GLOBAL_BATCH


@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        (DDPStrategy(static_graph=True), "DDP with static_graph"),
        (FSDPStrategy(), "FSDPStrategy"),
        (ModelParallelStrategy(), "ModelParallelStrategy"),
    ],
)
def test_a_strategy_that_would_fail_in_the_first_steps_is_refused(strategy, name):
    trainer = SimpleNamespace(precision="32-true", strategy=strategy, callbacks=[])
    with pytest.raises(InputError, match=f"is {name}: .*; set it to ddp"):
        refuse_unfit_trainer(trainer, training=True)
    refuse_unfit_trainer(trainer, training=False)


def test_validations_by_the_clock_of_several_processes_are_refused():
    trainer = quiet_trainer(
        devices=2, strategy="ddp", val_check_interval={"minutes": 5}, check_val_every_n_epoch=None
    )
    with pytest.raises(InputError, match=r"^trainer\.val_check_interval: .* number of batches"):
        refuse_unfit_trainer(trainer, training=True)


def test_a_callback_that_would_never_save_is_refused():
    callback = ModelCheckpoint(train_time_interval=timedelta(minutes=1))
    trainer = quiet_trainer(enable_checkpointing=True, callbacks=[callback])
    with pytest.raises(InputError, match=r"never saves here; use checkpoint\.every_n_batches"):
        refuse_unfit_trainer(trainer, training=True)
