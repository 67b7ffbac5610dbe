"""Batches that are not finite: noticed, skipped, counted, and too many of them stop the run."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from sdm_lightning.errors import DivergedError, InputError
from sdm_lightning.training import SDMModule
from sdm_lightning.training.callbacks.checkpoint import RunCheckpoint
from sdm_lightning.training.health import SATURATION_BATCHES, StepHealth
from sdm_lightning.training.replay import replay_step
from tests.training.conftest import TinyImages, tiny_module
from tests.training.test_callbacks import trainer_in
from tests.training.test_module import fit

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:Found .* in eval mode"
)


class Poisoned(TinyImages):
    """One pixel of some images is NaN."""

    def __init__(self, bad, length=64):
        super().__init__(length)
        self.bad = bad

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        if index in self.bad:
            sample["image"][0, 0, 0] = float("nan")
        return sample


def loader(*bad):
    return DataLoader(Poisoned(bad), batch_size=4)


class States(Callback):
    """Keeps weights and optimizers after every batch."""

    def __init__(self):
        self.seen = []

    def on_train_start(self, trainer, pl_module):
        self.on_train_batch_end(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, *args):
        optimizers = [o.state_dict()["state"] for o in trainer.optimizers]
        networks = {
            name: copy.deepcopy(getattr(pl_module, name).state_dict())
            for name in ("generator", "discriminator", "generator_ema")
        }
        counts = (pl_module.images_seen, trainer.global_step)
        self.seen.append((networks, copy.deepcopy(optimizers), counts))


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return all(same(a, b) for a, b in zip(one, other, strict=True))
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


def parameters(networks, name):
    # The mapping's average follows the mapping, which no batch changes by itself.
    return {k: v for k, v in networks[name].items() if not k.endswith("mapping.average")}


@pytest.mark.parametrize("on_device", [False, True])
def test_a_bad_batch_changes_nothing_but_the_clock(on_device, monkeypatch, caplog):
    """Whether what happened is read at once or, as on CUDA, some batches later."""
    if on_device:
        monkeypatch.setattr(StepHealth, "due", lambda self, i, trainer: i == 3)
    states = States()
    module = tiny_module()
    with caplog.at_level(logging.WARNING):
        fit(module, loader(9), steps=4, callbacks=[states])
    before, after = states.seen[2], states.seen[3]
    assert after[2] == (12, 3)
    for name in ("generator", "discriminator"):
        assert same(parameters(before[0], name), parameters(after[0], name)), name
    assert same(before[1], after[1])
    decay = 0.5 ** (4 / 10_000)
    for name, value in before[0]["generator_ema"].items():
        expected = decay * value + (1 - decay) * before[0]["generator"][name]
        if "mapping.average" not in name:
            torch.testing.assert_close(after[0]["generator_ema"][name], expected)
    last = states.seen[4]
    assert not same(parameters(after[0], "generator"), parameters(last[0], "generator"))
    assert last[0]["generator"]["mapping.average"].isfinite().all()
    assert (module.health.skipped, module.health.in_a_row) == (1, 0)
    skipped = [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
    assert skipped == [
        "batch after 8 images skipped: perceptual[pixel-pyramid] and likelihood "
        "were not finite (keys 0008, 0009, 0010, 0011); 1 in a row, training stops after 21"
    ]


def test_a_gradient_alone_can_be_bad(caplog):
    """As where a finite loss has an infinite slope."""
    module = tiny_module()
    weight = next(module.discriminator.parameters())
    weight.register_hook(lambda gradient: gradient * float("inf"))
    before = copy.deepcopy(module.discriminator.state_dict())
    generator = copy.deepcopy(parameters({"generator": module.generator.state_dict()}, "generator"))
    fit(module, loader(), steps=1)
    assert same(before, module.discriminator.state_dict())
    assert not same(
        generator, parameters({"generator": module.generator.state_dict()}, "generator")
    )
    assert "skipped: gradient of the discriminator was not finite" in caplog.text


def test_augmentation_survives_a_bad_batch():
    from sdm_lightning.training import AdaptiveAugment

    module = tiny_module(augment=AdaptiveAugment(interval=2, images_to_unit=100, probability=0.5))
    fit(module, loader(5), steps=4)
    assert module.augment.probability.isfinite()
    assert module.real_signs.isfinite().all()


def test_too_many_in_a_row_stop_the_run(tmp_path, capsys):
    module = tiny_module(max_skipped_batches=1)
    trainer = trainer_in(
        tmp_path, [RunCheckpoint(1, keep=1)], enable_checkpointing=True, max_steps=9
    )
    with pytest.raises(DivergedError) as caught:
        trainer.fit(module, loader(2, 9, 13))  # the first alone is tolerated
    assert caught.value.exit_status == 3
    file = tmp_path / "diverged" / "batch-rank0.pt"
    for part in (
        "training diverged: ",
        "perceptual[pixel-pyramid] and likelihood were not finite",
        "in 2 batches in a row (model.max_skipped_batches is 1)",
        "the last after 12 images with keys 0012, 0013, 0014, 0015",
        f"sdm replay {file}",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    # None was written while batches were bad: that after the second batch is the newest.
    kept = [path.name for path in (tmp_path / "checkpoints").glob("0*.ckpt")]
    assert kept == ["000000008.ckpt"]
    state = torch.load(tmp_path / "diverged" / "state.ckpt", weights_only=True)
    assert state["health"] == {"skipped": 3, "in_a_row": 2}
    assert file.stat().st_size < 300_000


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_step_can_be_replayed(tmp_path, capsys, monkeypatch, precision):
    """With the same numbers, from the files alone."""
    module = tiny_module(max_skipped_batches=0, random_iterations=(1, 3))
    seen = []
    look = module.health.look
    module.health.look = lambda name, value: (seen.append((name, float(value))), look(name, value))
    with pytest.raises(DivergedError):
        trainer_in(tmp_path, [], max_steps=9, precision=precision).fit(module, loader(9))
    last = seen[-(len(seen) - [name for name, _ in seen].index("r1") - 2) :]  # of the third batch
    capsys.readouterr()

    # Built in Python, so the checkpoint cannot build it.
    def load(path, **options):
        again = tiny_module(random_iterations=(1, 3))
        again.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
        return again

    monkeypatch.setattr(SDMModule, "load_from_checkpoint", load)
    replay_step(str(tmp_path / "diverged" / "batch-rank0.pt"))
    shown = capsys.readouterr().out
    assert "batch after 8 images" in shown
    assert "keys: 0008, 0009, 0010, 0011" in shown
    assert "likelihood" in shown
    assert "layers with an output that is not finite: " in shown
    assert "first discriminator.stem" in shown  # only the target was bad, none of the inputs
    assert last
    for name, value in last:
        line = next(line for line in shown.splitlines() if line.startswith(name))
        printed = float(line[38:51])
        assert printed == pytest.approx(value, rel=1e-4, nan_ok=True)


def test_what_is_no_kept_step_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "other.pt").read_bytes()[:100])
    for name, message in (
        ("other.pt", "not a step that sdm fit kept"), ("cut.pt", "cannot be read"),
        ("nowhere.pt", "no such file"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            replay_step(str(tmp_path / name))


def watched(health, real, completed, count):
    for _ in range(count):
        health.begin(0, [])
        health.look("loss", torch.tensor(0.0))
        health.look_at_logits(torch.tensor(real), torch.tensor(completed))
        health.guard(torch.optim.SGD([torch.zeros(1)]), SimpleNamespace(world_size=1))
        health.read()


def test_a_collapsed_discriminator_is_told_once(caplog):
    health = StepHealth(20)
    watched(health, 9.0, -9.0, SATURATION_BATCHES)
    assert "collapsed" not in caplog.text  # the mean is not there yet: 9 * (1 - 1/e) = 5.7
    watched(health, 9.0, -9.0, SATURATION_BATCHES)
    assert caplog.text.count("the discriminator has collapsed") == 1
    assert "6.0 for real and -6.0 for completed" in caplog.text
    watched(health, 0.0, 0.0, 2 * SATURATION_BATCHES)
    watched(health, 9.0, -9.0, 2 * SATURATION_BATCHES)
    assert caplog.text.count("the discriminator has collapsed") == 2


def test_a_discriminator_that_is_only_sure_of_real_images_is_not_collapsed(caplog):
    watched(StepHealth(20), 9.0, -1.0, 3 * SATURATION_BATCHES)
    assert "collapsed" not in caplog.text


def test_on_a_gpu_flags_are_read_at_the_log_interval():
    health = StepHealth(20)
    health.begin(0, [])
    health._pending[-1].skipped = SimpleNamespace(device=torch.device("cuda"))
    due = [i for i in range(300) if health.due(i, SimpleNamespace(log_every_n_steps=50))]
    assert due == [49, 99, 149, 199, 249, 299]
    due = [i for i in range(300) if health.due(i, SimpleNamespace(log_every_n_steps=10_000))]
    assert due == [99, 199, 299]
