"""The GAN step: counting, phases, memory of nothing, and what it refuses."""

import copy
import re
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.errors import DivergedError, InputError
from sdm_lightning.losses import LossTerm, PerceptualLoss, PixelPyramidLoss, WeightedPerceptualLoss
from sdm_lightning.models import Discriminator
from sdm_lightning.models.mapping import MappingNetwork
from sdm_lightning.training import (
    AdamSettings,
    AdaptiveAugment,
    AverageSettings,
    LossSettings,
)
from sdm_lightning.training.styles import draw_styles, styled_network
from tests.trainers import quiet_trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:Found .* in eval mode"
)


def fit(module, loader, steps, callbacks=(), **options):
    trainer = quiet_trainer(
        max_steps=steps, use_distributed_sampler=False, callbacks=list(callbacks), **options
    )
    trainer.fit(module, loader)
    return trainer


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_one_global_step_per_batch(make_module, make_loader):
    module = make_module(diffusion=SpatialDiffusion(num_iterations=3))
    trainer = fit(module, make_loader(), steps=5)
    assert trainer.global_step == 5
    assert module.images_seen == 20


def test_every_network_moves_and_the_average_follows(make_module, make_loader):
    module = make_module()
    before = copy.deepcopy(module.state_dict())
    fit(module, make_loader(), steps=2)
    moved = {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    for prefix in ("generator.", "discriminator.", "generator_ema."):
        assert any(name.startswith(prefix) for name in moved), prefix
    assert not torch.equal(
        module.generator_ema.mapping.average, before["generator_ema.mapping.average"]
    )


def test_average_is_the_closed_form_of_the_live_weights(make_module, make_loader):
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            seen.append(weights(pl_module.generator))

    module = make_module()
    expected = weights(module.generator)
    fit(module, make_loader(), steps=3, callbacks=[Watch()])
    decay = 0.5 ** (4 / 10_000)
    for live in seen:
        expected = decay * expected + (1 - decay) * live
    torch.testing.assert_close(weights(module.generator_ema), expected)


def test_micro_batches_give_the_same_generator_gradient(make_module, make_loader):
    """Of a deterministic model: no noise, no mixing, no minibatch statistics."""

    def after_one_step(parts):
        module = make_module(
            style_mixing_probability=0.0,
            network={"latent_dim": 1},
            diffusion=SpatialDiffusion(num_iterations=2, alpha=0.0),
            losses=LossSettings(adversarial=0.0),
        )
        module.num_micro_batches = parts
        with torch.no_grad():
            module.generator.mapping(torch.ones(1, 1))
            for p in module.generator.mapping.parameters():
                p.zero_()
        gradient = []

        class Catch(Callback):
            def on_before_optimizer_step(self, trainer, pl_module, optimizer):
                gradient.append(
                    torch.cat([p.grad.flatten() for p in pl_module.generator.parameters()])
                )

        fit(module, make_loader(), steps=1, callbacks=[Catch()])
        return gradient[0]

    torch.testing.assert_close(after_one_step(2), after_one_step(1), rtol=1e-4, atol=1e-6)


def test_detached_iterations_equal_one_iteration_at_a_time(make_module, make_loader):
    """With detached states, back-propagating each step at once or all together is the same."""

    class KeepGraph(SpatialDiffusion):
        """States are cut, but the module believes that they are not."""

        def __init__(self):
            super().__init__(num_iterations=2, detach=False)

        def iterate(self, *args, **kwargs):
            self.detach = True
            yield from super().iterate(*args, **kwargs)

    class Detached(KeepGraph):
        def __init__(self):
            super().__init__()
            self.detach = True

    results = []
    for diffusion in (Detached(), KeepGraph()):
        module = make_module(diffusion=diffusion)
        fit(module, make_loader(), steps=1)
        results.append(weights(module.generator))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_gradients_between_iterations_change_training(make_module, make_loader):
    results = []
    for detach in (True, False):
        module = make_module(
            diffusion=SpatialDiffusion(num_iterations=2, detach=detach),
            losses=LossSettings(adversarial=0.0),
        )
        fit(module, make_loader(), steps=2)
        results.append(weights(module.generator))
    assert not torch.equal(*results)


def test_without_an_adversarial_loss_the_discriminator_rests(make_module, make_loader):
    module = make_module(losses=LossSettings(adversarial=0.0))
    before = weights(module.discriminator)
    fit(module, make_loader(), steps=2)
    assert torch.equal(weights(module.discriminator), before)


def test_augmentation_follows_the_signs_of_real_logits(make_module, make_loader):
    module = make_module(augment=AdaptiveAugment(interval=2, images_to_unit=100, probability=0.5))

    class AllReal(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.ones(()))

        def forward(self, image, mask):
            return self.bias.abs() + 0 * image.flatten(1).sum(1, keepdim=True)

    module.discriminator = AllReal()
    module.losses = LossSettings(r1_gamma=0.0)
    fit(module, make_loader(), steps=4)
    # Signs are all 1 > target: up by 2 batches * 4 images / 100, twice.
    assert float(module.augment.probability) == pytest.approx(0.5 + 2 * 8 / 100)


def test_signs_are_counted_for_augmentation_alone(make_module, make_loader):
    module = make_module()
    fit(module, make_loader(), steps=1)
    assert module.real_signs.tolist() == [0.0, 0.0]


def test_every_logged_number_is_in_the_table_of_the_docs(make_module, make_loader):
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    names = re.findall(r"^\|(.*?)\|", page.split("| logged name |")[1].split("\n## ")[0], re.M)
    module = make_module(
        augment=AdaptiveAugment(),
        gradient_clip=1.0,
        losses=LossSettings(r1_interval=1),
        terms=[named("NAME")],
    )
    batch = next(iter(make_loader()))
    bad = batch | {"image": batch["image"] * torch.nan}
    trainer = fit(module, iter([bad, batch]), steps=2)
    logged = {name.replace("pixel-pyramid", "NAME") for name in trainer.callback_metrics}
    assert logged | {"epoch", "step"} == set(re.findall(r"`([^`]*)`", "".join(names)))


def test_optimizers_are_the_paper_s(make_module):
    generator, discriminator = make_module(losses=LossSettings()).configure_optimizers()
    assert generator.defaults["lr"] == 1e-3
    assert generator.defaults["betas"] == (0.0, 0.99)
    assert discriminator.defaults["lr"] == pytest.approx(1e-3 * 16 / 17)


def test_resumed_run_takes_the_learning_rate_of_its_config(make_module, make_loader, tmp_path):
    trainer = fit(make_module(), make_loader(), steps=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    module = make_module(optimizer_g=AdamSettings(lr=5e-4))
    trainer = quiet_trainer(max_steps=2)
    trainer.fit(module, make_loader(), ckpt_path=tmp_path / "last.ckpt")
    assert next(o.param_groups[0]["lr"] for o in trainer.optimizers) == 5e-4
    assert trainer.global_step == 2


def test_max_time_is_that_of_one_call(make_module, make_loader, tmp_path):
    path = tmp_path / "last.ckpt"
    first = quiet_trainer(max_time={"seconds": 1}, max_epochs=-1)
    first.fit(make_module(), make_loader())
    first.save_checkpoint(path)
    assert torch.load(path, weights_only=True)["callbacks"]["Timer"]["time_elapsed"]["train"] >= 1
    second = quiet_trainer(max_time={"seconds": 1}, max_steps=first.global_step + 1)
    second.fit(make_module(), make_loader(), ckpt_path=path)
    assert second.global_step == first.global_step + 1


def test_result_of_an_image_does_not_depend_on_its_batch(make_module, make_loader):
    module = make_module().eval()
    batch = next(iter(make_loader(batch_size=3)))
    together = module.validation_step(batch, 0)["completed"]
    alone = module.validation_step(
        {"image": batch["image"][1:2], "mask": batch["mask"][1:2], "key": batch["key"][1:2]}, 0
    )["completed"]
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)
    known = batch["mask"].expand(-1, 3, -1, -1).bool()
    assert torch.equal(together[known], batch["image"][known])


@pytest.mark.parametrize("precision", ["16-true", "64-true"])
def test_other_precisions_are_refused_with_their_reason(make_module, make_loader, precision):
    with pytest.raises(InputError, match=f"{precision} is refused: .* one gradient scaler"):
        fit(make_module(), make_loader(), steps=1, precision=precision)


def test_bf16_trains_to_finite_weights(make_module, make_loader):
    module = make_module()
    fit(module, make_loader(), steps=2, precision="bf16-mixed")
    assert weights(module).isfinite().all()


def test_bad_settings_are_named(make_module):
    with pytest.raises(InputError, match=r"model\.perceptual is missing"):
        make_module(perceptual=None)
    with pytest.raises(InputError, match=r"test_iterations is 0"):
        make_module(test_iterations=0)
    nothing = LossSettings(adversarial=0, perceptual=0)
    with pytest.raises(InputError, match=r"model\.losses: no loss is left"):
        make_module(losses=nothing, decoupled=False)
    make_module(losses=nothing)  # the likelihood
    make_module(losses=nothing, decoupled=False, terms=[Known()])
    with pytest.raises(InputError, match=r"or one of model\.terms a weight above 0"):
        make_module(losses=nothing, decoupled=False, terms=[Known(0.0)])


class Known(LossTerm):
    """The squared mean of the hole and the log variance where it is sure; looks at everything."""

    name = "known"

    def forward(self, mean, log_variance, uncertainty, image, mask):
        assert {x.dtype for x in (mean, log_variance, uncertainty, image, mask)} == {torch.float32}
        assert not uncertainty.requires_grad
        seen = (1 - mask) * (mean - image).square() + (1 - uncertainty) * log_variance
        return seen.mean(dim=(1, 2, 3))


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_term_is_weighted_and_summed_over_the_iterations(detach, parts, make_module, make_loader):
    """Of a deterministic model, as above; alone, and its gradient is what autograd says of it."""
    module = make_module(
        style_mixing_probability=0.0,
        network={"latent_dim": 1},
        diffusion=SpatialDiffusion(num_iterations=3, alpha=0.0, detach=detach),
        losses=LossSettings(adversarial=0.0, perceptual=0.0, likelihood=0.0),
        terms=[Known(0.5)],
    )
    module.num_micro_batches = parts
    with torch.no_grad():
        for p in module.generator.mapping.parameters():
            p.zero_()
    batch = next(iter(make_loader()))
    network = styled_network(module.generator, draw_styles(module.generator, 4))
    values = [
        Known()(s.mean, s.log_variance, s.uncertainty, batch["image"], batch["mask"]).mean()
        for s in module.diffusion.iterate(network, batch["image"], batch["mask"])
    ]
    trained = [p for n, p in module.generator.named_parameters() if not n.startswith("mapping")]
    expected = torch.autograd.grad(0.5 * torch.stack(values).sum(), trained)
    found = {}

    class Catch(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            found["gradient"] = [p.grad.clone() for p in trained]

        def on_train_batch_end(self, trainer, *args):
            found["logged"] = float(trainer.callback_metrics["train/known"])

    fit(module, make_loader(), steps=1, callbacks=[Catch()])
    torch.testing.assert_close(found["gradient"], list(expected), rtol=1e-3, atol=1e-6)
    assert found["logged"] == pytest.approx(float(torch.stack(values).detach().mean()), rel=1e-5)


def test_a_term_sees_float32_in_bf16_and_is_watched(make_module, make_loader, tmp_path):
    class Infinite(Known):
        def forward(self, *args):
            return super().forward(*args) * torch.inf

    fit(make_module(terms=[Known()]), make_loader(), steps=1, precision="bf16-mixed")
    module = make_module(terms=[Infinite()], max_skipped_batches=0)
    with pytest.raises(DivergedError, match="known was not finite"):
        fit(module, make_loader(), steps=1, default_root_dir=tmp_path)


def test_a_term_that_returns_something_else(make_module, make_loader):
    class Scalar(Known):
        def forward(self, *args):
            return super().forward(*args).mean()

    says = r"Scalar\.forward returned a tensor \(\); it must return one number per image, \(4,\)"
    with pytest.raises(InputError, match=says):
        fit(make_module(terms=[Scalar()]), make_loader(), steps=1)


def named(name):
    return type("Own", (Known,), {"name": name})()


def trainable():
    term = Known()
    term.scale = nn.Linear(1, 1)
    return term


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ([named(None)], r"model\.terms Own has no name"),
        ([named("r1")], r"model\.terms Own is named 'r1', as another term"),
        ([named("discriminator")], "is named 'discriminator'"),
        ([Known(), Known(2.0)], r"model\.terms Known is named 'known', as another term"),
        ([Known(-1.0)], r"Known has weight -1\.0; it must be finite and not negative"),
        ([Known(float("nan"))], "has weight nan"),
        ([Known(float("inf"))], "has weight inf"),
        ([trainable()], "Known has parameters to train, which no optimizer steps"),
    ],
)
def test_unfit_terms_are_refused(make_module, terms, says):
    with pytest.raises(InputError, match=says):
        make_module(terms=terms)


def test_signs_of_real_logits_of_all_processes_are_kept_once(make_module, monkeypatch):
    """ADA's statistics are each process's own; a resumed run must not count the first's for all."""
    monkeypatch.setattr("sdm_lightning.training.module.all_reduce", lambda _, value, how: 2 * value)
    module = make_module(augment=AdaptiveAugment())
    module.trainer = quiet_trainer()
    module.trainer.state.fn = TrainerFn.FITTING
    module.real_signs += torch.tensor([1.0, 3.0])
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["state_dict"]["real_signs"].tolist() == [2.0, 6.0]
    assert module.real_signs.tolist() == [1.0, 3.0]
    module.on_load_checkpoint(checkpoint)
    assert checkpoint["state_dict"]["real_signs"].tolist() == [2.0, 6.0]
    monkeypatch.setattr(type(module), "global_rank", 1)
    module.on_load_checkpoint(checkpoint)
    assert checkpoint["state_dict"]["real_signs"].tolist() == [0.0, 0.0]


def test_batch_that_does_not_split_is_named(make_module, make_loader):
    module = make_module()
    module.num_micro_batches = 3
    with pytest.raises(InputError, match="a batch of 4 does not split into 3 equal parts"):
        fit(module, make_loader(), steps=1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda batch: tuple(batch.values()), "is a tuple, not a dict: give image, float32"),
        (lambda batch: {"image": batch["image"], "mask": batch["mask"]}, "has no key: give"),
        (lambda batch: batch | {"mask": batch["mask"].bool()}, r"mask is torch\.bool: give"),
        (lambda batch: batch | {"image": batch["image"].numpy()}, "image is ndarray: give"),
        (
            lambda batch: batch | {"image": batch["image"][:, :1]},
            r"image has shape \(4, 1, 32, 32\)",
        ),
        (lambda batch: batch | {"mask": batch["mask"][0]}, r"mask has shape \(1, 32, 32\): give"),
        (lambda batch: batch | {"key": batch["key"][:3]}, "3 keys, 4 images: give"),
        (lambda batch: batch | {"image": batch["image"] * 200}, "image holds values up to 1"),
        (lambda batch: batch | {"mask": batch["mask"] * 255}, "mask holds other values than 0 and"),
    ],
)
def test_the_first_batch_must_fit(make_module, make_loader, change, says):
    with pytest.raises(InputError, match=f"^training batch:? {says}"):
        fit(make_module(), map(change, make_loader()), steps=1)


def test_checkpoint_holds_no_modules_and_loads_safely(make_module, make_loader, tmp_path):
    module = make_module(seed=3)
    trainer = fit(module, make_loader(), steps=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["images_seen"] == 4
    assert not any("perceptual" in name for name in checkpoint["state_dict"])
    other = make_module()
    parts = {name: getattr(other, name) for name in ("generator", "discriminator", "perceptual")}
    loaded = type(module).load_from_checkpoint(tmp_path / "last.ckpt", **parts)
    torch.testing.assert_close(weights(loaded), weights(module))
    assert (loaded.images_seen, loaded.seed) == (4, 3)


def test_loggers_are_handed_numbers_and_no_networks(make_module, make_loader, tmp_path):
    module = make_module(seed=3)
    logger = CSVLogger(tmp_path)
    fit(module, make_loader(), steps=1, logger=logger)
    written = Path(logger.log_dir, "hparams.yaml").read_text()
    assert yaml.safe_load(written) == dict(module.hparams_initial)
    assert module.hparams_initial.seed == 3
    assert "generator" not in module.hparams_initial


def test_random_iterations_are_drawn_for_each_batch_from_images_seen_alone(
    make_module, make_loader
):
    def drawn(start, steps):
        counts = []
        module = make_module(random_iterations=(1, 3))
        module.images_seen = start
        phase = module._discriminator_phase
        module._discriminator_phase = lambda chunks, fakes: (
            counts.append(len(fakes[0])),
            phase(chunks, fakes),
        )
        fit(module, make_loader(), steps=steps)
        return counts

    whole = drawn(0, 12)
    assert set(whole) == {1, 2, 3}
    assert drawn(16, 8) == whole[4:]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gradient_clip": 0.0}, r"model\.gradient_clip is 0\.0; .* above 0; null turns it off"),
        ({"gradient_clip": -1.0}, r"model\.gradient_clip is -1\.0"),
        ({"losses": LossSettings(r1_gamma=-10)}, r"model\.losses\.r1_gamma is -10; .* negative"),
        ({"losses": LossSettings(adversarial=-1)}, r"model\.losses\.adversarial is -1"),
        ({"average": AverageSettings(half_life_images=-5)}, r"average\.half_life_images is -5"),
        ({"average": AverageSettings(ramp_up=float("nan"))}, r"average\.ramp_up is nan"),
        ({"style_mixing_probability": 2.0}, r"style_mixing_probability is 2\.0; .* in \[0, 1\]"),
        ({"optimizer_g": AdamSettings(lr=-1e-3)}, r"model\.optimizer_g\.lr is -0\.001"),
        ({"optimizer_d": AdamSettings(betas=(0, 1.0))}, r"optimizer_d\.betas is \[0, 1\.0\]"),
    ],
)
def test_numbers_that_would_train_wrongly_are_refused(make_module, settings, says):
    with pytest.raises(InputError, match=says):
        make_module(**settings)


def test_random_iterations_out_of_order_are_refused(make_module):
    with pytest.raises(InputError, match=r"random_iterations is \[4, 2\]"):
        make_module(random_iterations=(4, 2))


def test_a_shared_global_batch_is_taken_in_parts(make_module, make_loader):
    """What ``data.global_batch_size`` does to a module."""

    class Data(pl.LightningDataModule):
        num_parts = 2

        def train_dataloader(self):
            return make_loader()

    module = make_module()
    fit(module, Data(), steps=1)
    assert module.num_micro_batches == 2
    assert module.images_seen == 4


class OwnGenerator(nn.Module):
    """The attributes of the interface that are named, and outputs as they are given."""

    def __init__(self, attributes, output):
        super().__init__()
        self.layer = nn.Conv2d(7, 6, 1)
        self.output = output
        for name in attributes.split():
            value = MappingNetwork(8, 1) if name == "mapping" else 8
            setattr(self, name, value)

    def forward(self, inputs, styles=None):
        return self.output(*self.layer(inputs).chunk(2, dim=1))


@pytest.mark.parametrize(
    ("attributes", "probability", "says"),
    [
        ("stride latent_dim mapping", 0.5, "has no num_styles: set model.style_mixing_prob"),
        ("stride mapping num_styles", 0.5, "OwnGenerator has no latent_dim;"),
        ("stride latent_dim", 0.0, "OwnGenerator has no mapping;"),
        ("latent_dim mapping", 0.0, "OwnGenerator has no stride;"),
    ],
)
def test_a_generator_that_lacks_an_attribute(
    attributes, probability, says, make_module, make_loader
):
    generator = OwnGenerator(attributes, lambda mean, variance: (mean, variance))
    module = make_module(generator=generator, style_mixing_probability=probability)
    with pytest.raises(InputError, match=f"model.generator .*{says}"):
        fit(module, make_loader(), steps=1)


def test_a_mapping_without_an_average_is_named(make_module, make_loader):
    generator = OwnGenerator("stride latent_dim", lambda mean, variance: (mean, variance))
    generator.mapping = nn.Linear(8, 8)
    with pytest.raises(InputError, match=r"OwnGenerator has no mapping\.average;"):
        fit(make_module(generator=generator, style_mixing_probability=0.0), make_loader(), steps=1)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (lambda mean, variance: mean, r" a tensor \(4, 3, 32, 32\); it must return mean"),
        (lambda mean, variance: (mean, variance, mean), r" a tuple of a tensor"),
        (lambda mean, variance: (torch.cat([mean, mean], 1), variance), r"\(4, 6, 32, 32\)"),
        (lambda mean, variance: (mean[..., ::2], variance[..., ::2]), r"\(4, 3, 32, 16\)"),
        (lambda mean, variance: (mean, variance[:, :1]), r"\(4, 1, 32, 32\); .*\(4, 3, 32, 32\)"),
    ],
)
def test_a_generator_that_returns_something_else(output, says, make_module, make_loader):
    generator = OwnGenerator("stride latent_dim mapping", output)
    module = make_module(generator=generator, style_mixing_probability=0.0)
    with pytest.raises(InputError, match=f"model.generator OwnGenerator returned.*{says}"):
        fit(module, make_loader(), steps=1)


def test_a_perceptual_loss_without_a_name(make_module, make_loader):
    class Nameless(PerceptualLoss):
        def encode(self, images):
            return [images]

        def distance(self, prediction, target):
            return (prediction[0] - target[0]).mean(dim=(1, 2, 3))

    for loss in (Nameless(), WeightedPerceptualLoss([PixelPyramidLoss(), Nameless()], [1, 1])):
        with pytest.raises(InputError, match=r"model\.perceptual Nameless has no name"):
            fit(make_module(perceptual=loss), make_loader(), steps=1)


def caught_gradients(module, loader):
    """Train one step; return the gradient and the clip of each optimizer step by its name."""
    found = {}
    guard = module._guard

    def catch(optimizer, network, name, clip=None):
        gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        found[name] = torch.cat(gradients), clip
        guard(optimizer, network, name, clip)

    module._guard = catch
    fit(module, loader, steps=1)
    return found


def test_micro_batches_give_the_same_discriminator_gradients(make_module, make_loader):
    """Of its step and of the penalty's; a deterministic model, as above."""
    found = []
    for parts in (1, 2):
        torch.manual_seed(0)
        module = make_module(
            style_mixing_probability=0.0,
            network={"latent_dim": 1},
            discriminator=Discriminator(32, base_channels=8, max_channels=16, mbstd_group=0),
            diffusion=SpatialDiffusion(num_iterations=2, alpha=0.0),
            losses=LossSettings(r1_interval=1),
            optimizer_d=AdamSettings(lr=1e-9),
        )
        module.num_micro_batches = parts
        with torch.no_grad():
            for p in module.generator.mapping.parameters():
                p.zero_()
        found.append(caught_gradients(module, make_loader()))
    for name in ("discriminator", "penalty"):
        torch.testing.assert_close(found[1][name][0], found[0][name][0], rtol=1e-3, atol=1e-5)


def test_both_networks_are_clipped_and_the_penalty_is_not(make_module, make_loader):
    module = make_module(gradient_clip=0.5, losses=LossSettings(r1_interval=1))
    found = caught_gradients(module, make_loader())
    clips = {name: clip for name, (_, clip) in found.items()}
    assert clips == {"generator": 0.5, "discriminator": 0.5, "penalty": None}


@pytest.mark.parametrize("detach", [True, False])
def test_each_step_reduces_its_gradients_once_and_at_its_end(detach, make_module, make_loader):
    """Over two micro-batches of two iterations: the generator, the discriminator, the penalty."""
    module = make_module(
        diffusion=SpatialDiffusion(num_iterations=2, detach=detach),
        losses=LossSettings(r1_interval=1),
    )
    module.num_micro_batches = 2
    backward, reduces = module._backward, []
    module._backward = lambda loss, sync: (reduces.append(sync), backward(loss, sync))
    fit(module, make_loader(), steps=1)
    expected = [False] * (3 if detach else 1) + [True] + [False] * 5 + [True] + [False, True]
    assert reduces == expected


def test_the_discriminator_sees_image_and_mask_as_augmented(make_module):
    class Opposite(AdaptiveAugment):
        def forward(self, image, mask):
            return -image, 1 - mask

    class Both(nn.Module):
        def forward(self, image, mask):
            return image, mask

    module = make_module(augment=Opposite(), discriminator=Both())
    image, mask = torch.ones(1, 3, 2, 2), torch.ones(1, 1, 2, 2)
    seen = module._logits(image, mask)
    assert torch.equal(seen[0], -image)
    assert torch.equal(seen[1], 1 - mask)


def test_the_average_code_is_the_mean_over_all_processes(make_module, monkeypatch):
    processes = {"sum": 2.0, "mean": 1.0}  # two that agree
    monkeypatch.setattr(
        "sdm_lightning.training.module.all_reduce", lambda _, value, how: processes[how] * value
    )
    module = make_module()
    module.trainer = pl.Trainer(logger=False, enable_checkpointing=False)
    module._update_mapping_average(torch.ones(8))
    torch.testing.assert_close(module.generator.mapping.average, torch.full((8,), 0.005))


def test_randomness_of_a_step_is_of_its_seed_place_and_process(make_module, monkeypatch):
    module, other = make_module(random_iterations=(1, 9)), make_module(seed=1)
    own = module.step_seed(8)
    assert len({own, module.step_seed(12), other.step_seed(8)}) == 3
    counts = [module.num_iterations(images) for images in range(20)]
    other.random_iterations = (1, 9)
    assert counts != [other.num_iterations(images) for images in range(20)]
    monkeypatch.setattr(type(module), "global_rank", 1)
    assert module.step_seed(8) != own
    assert counts == [module.num_iterations(images) for images in range(20)]


def test_validation_takes_the_average_and_its_own_iterations(make_module, make_loader):
    module = make_module(test_iterations=3).eval()
    batch = next(iter(make_loader(batch_size=2)))
    output = module.validation_step(batch, 0)
    assert len(output["steps"]) == 3
    assert output["mean"] is output["steps"][0].mean
    assert output["uncertainty"] is output["steps"][0].uncertainty
    assert output["completed"] is output["steps"][-1].completed
    assert "steps" not in module.predict_step(batch, 0)
    with torch.no_grad():
        module.generator.to_output.weight.zero_()
    assert torch.equal(module.validation_step(batch, 0)["completed"], output["completed"])
    module.seed = 1
    assert not torch.equal(module.validation_step(batch, 0)["completed"], output["completed"])


def test_without_a_penalty_the_discriminators_rate_is_not_corrected(make_module):
    module = make_module(losses=LossSettings(r1_gamma=0.0))
    assert module.configure_optimizers()[1].defaults["lr"] == 1e-3
