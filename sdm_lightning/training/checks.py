"""Settings and trainers that a GAN with two optimizers cannot be trained by."""

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from sdm_lightning.errors import InputError
from sdm_lightning.losses import PerceptualLoss, WeightedPerceptualLoss

if TYPE_CHECKING:
    from sdm_lightning.training.module import SDMModule


RESERVED = (
    "adversarial", "perceptual", "likelihood", "deviation", "discriminator", "r1",
    "ada_probability", "gradient_norm_g", "gradient_norm_d", "skipped_batches",
)  # fmt: skip
"""What a further term of the loss cannot be named: it is logged as ``train/<name>``."""


def refuse_unfit_settings(module: "SDMModule") -> None:
    """Refuse settings that are out of range, do not go together, or would train wrongly.

    Raises:
        InputError: Naming the key.
    """
    losses = module.losses
    if losses.perceptual and module.perceptual is None:
        raise InputError(
            "model.perceptual is missing: give a loss such as "
            "sdm_lightning.losses.ResNetPerceptualLoss, or set model.losses.perceptual to 0"
        )
    _refuse_unfit_terms(module)
    likelihood = module.decoupled and losses.likelihood
    further = any(term.weight for term in module.terms)
    if not (losses.adversarial or losses.perceptual or likelihood or further):
        raise InputError(
            "model.losses: no loss is left to train by; give adversarial, perceptual, "
            "(with decoupled) likelihood or one of model.terms a weight above 0"
        )
    for name in ("test_iterations", "losses.r1_interval"):
        if (value := attrgetter(name)(module)) < 1:
            raise InputError(f"model.{name} is {value}; it must be at least 1")
    if (skipped := module.health.max_skipped) < 0:
        raise InputError(f"model.max_skipped_batches is {skipped}; 0 is the least")
    drawn = module.random_iterations
    if drawn is not None and not 1 <= drawn[0] <= drawn[1]:
        raise InputError(
            f"model.random_iterations is {list(drawn)}; give the least and the "
            "most T, such as [1, 4]"
        )
    for key in ("optimizer_g", "optimizer_d"):
        betas = getattr(module, key).betas
        if not all(0 <= beta < 1 for beta in betas):
            raise InputError(
                f"model.{key}.betas is {list(betas)}; each must be at least 0 and below 1"
            )
    for name in ("gradient_clip", "average.half_life_images", "average.ramp_up"):
        if (value := attrgetter(name)(module)) is not None and not value > 0:
            off = "; null turns it off" if name == "gradient_clip" else ""
            raise InputError(f"model.{name} is {value}; it must be above 0{off}")
    terms = ("adversarial", "perceptual", "likelihood", "r1_gamma")
    for name in (*(f"losses.{term}" for term in terms), "optimizer_g.lr", "optimizer_d.lr"):
        if not (value := attrgetter(name)(module)) >= 0:
            raise InputError(f"model.{name} is {value}; it must not be negative")
    if not 0 <= module.style_mixing_probability <= 1:
        raise InputError(
            f"model.style_mixing_probability is {module.style_mixing_probability}; it must lie in "
            "[0, 1]"
        )


def _refuse_unfit_terms(module: "SDMModule") -> None:
    names = list(RESERVED)
    for term in module.terms:
        kind, name = f"model.terms {type(term).__name__}", getattr(term, "name", None)
        if not (isinstance(name, str) and name):
            raise InputError(
                f'{kind} has no name; give the class one, such as name = "calibration", for the '
                "logged keys"
            )
        if name in names:
            raise InputError(
                f"{kind} is named {name!r}, as another term or logged value is; choose another name"
            )
        names.append(name)
        if not 0 <= term.weight < math.inf:
            raise InputError(f"{kind} has weight {term.weight}; it must be finite and not negative")
        if any(parameter.requires_grad for parameter in term.parameters()):
            raise InputError(
                f"{kind} has parameters to train, which no optimizer steps; freeze them with "
                "requires_grad_(False), or make them part of the generator"
            )


def refuse_unfit_parts(module: "SDMModule") -> None:
    """Refuse, before the first batch, networks and losses that lack a part of their interface.

    Args:
        module: With its perceptual loss prepared.

    Raises:
        InputError: Naming the class and what it lacks.
    """
    name = f"model.generator {type(module.generator).__name__}"
    for attribute in (
        "latent_dim", "stride", "mapping", "mapping.average", "mapping.update_average",
    ):  # fmt: skip
        try:
            attrgetter(attribute)(module.generator)
        except AttributeError:
            raise InputError(
                f"{name} has no {attribute}; a generator has latent_dim, stride, mapping, "
                "mapping.average and mapping.update_average"
            ) from None
    if module.style_mixing_probability and not hasattr(module.generator, "num_styles"):
        raise InputError(f"{name} has no num_styles: set model.style_mixing_probability to 0")
    perceptual = module.perceptual if module.losses.perceptual else None
    for part in perceptual.modules() if perceptual is not None else ():
        # A weighted sum's name is that of its parts.
        named = isinstance(part, WeightedPerceptualLoss) or hasattr(part, "name")
        if isinstance(part, PerceptualLoss) and not named:
            raise InputError(
                f"model.perceptual {type(part).__name__} has no name; give the class one, such as "
                'name = "gradient", for the logged keys'
            )


def refuse_unfit_batch(batch: object) -> None:
    """Refuse, before its first step, a batch that a loader of the user's makes wrongly.

    Args:
        batch: As ``SDMModule`` trains on it. Its values are read, so that a GPU is waited for.

    Raises:
        InputError: Naming what is wrong with it and what would be right. Images with NaN pass:
            such batches are skipped.
    """
    right = (
        "give image, float32 (B, 3, H, W) in [-1, 1]; mask, float32 (B, 1, H, W) with 1 = known "
        "and 0 = hole; and key, B names"
    )
    if not isinstance(batch, Mapping):
        raise InputError(f"training batch is a {type(batch).__name__}, not a dict: {right}")
    for name in ("image", "mask", "key"):
        if name not in batch:
            raise InputError(f"training batch has no {name}: {right}")
    image, mask = batch["image"], batch["mask"]
    for name, value, channels in (("image", image, 3), ("mask", mask, 1)):
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"training batch: {name} is {found}: {right}")
        shape = tuple(value.shape)
        if len(shape) != 4 or shape != (image.shape[0], channels, *image.shape[2:]):
            raise InputError(f"training batch: {name} has shape {shape}: {right}")
    if len(batch["key"]) != len(image):
        raise InputError(f"training batch: {len(batch['key'])} keys, {len(image)} images: {right}")
    largest = image.abs().nan_to_num(0.0, posinf=0.0).amax()
    grey = ((mask != 0) & (mask != 1)).any()
    largest, grey = torch.stack([largest, grey.float()]).tolist()
    if largest > 1.01:  # what is resized may lie a little above 1
        raise InputError(f"training batch: image holds values up to {largest:g}: {right}")
    if grey:
        raise InputError(f"training batch: mask holds other values than 0 and 1: {right}")


def refuse_unfit_precision(precision: object) -> None:
    """Refuse fp16, and precisions that were never tried.

    Args:
        precision: As the trainer takes it; None is its default.

    Raises:
        InputError: With those that train.
    """
    if str(precision) not in ("32-true", "32", "bf16-mixed", "bf16", "None"):
        raise InputError(
            f"trainer.precision {precision} is refused: two optimizers share one gradient "
            "scaler in fp16, and other precisions are untested; use 32-true or bf16-mixed"
        )


def refuse_unfit_trainer(trainer: pl.Trainer, training: bool) -> None:
    """Refuse, before the first batch, a trainer that would train wrongly.

    Args:
        trainer: With its precision and strategy chosen.
        training: Whether it will train, and not only test.

    Raises:
        InputError: For its precision, a strategy that cannot run two optimizers, a callback that
            would never save, and validations by the clock with several processes.
    """
    refuse_unfit_precision(trainer.precision)
    if not training:
        return
    strategy = trainer.strategy
    unfit = None
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        unfit = type(strategy).__name__
    elif getattr(strategy, "_ddp_kwargs", {}).get("static_graph"):
        unfit = "DDP with static_graph"
    if unfit is not None:
        raise InputError(
            f"trainer.strategy is {unfit}: generator and discriminator take turns, so each "
            "backward leaves the other unused; set it to ddp"
        )
    # Each process would go by its own clock, and some train on while others validate.
    timed = getattr(trainer, "_val_check_time_interval", None) is not None
    if timed and trainer.world_size > 1:
        raise InputError(
            "trainer.val_check_interval: several processes would start at different batches; give "
            "a number of batches"
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        # Lightning looks at the time in automatic optimization only.
        if getattr(callback, "_train_time_interval", None) is not None:
            raise InputError(
                "trainer.callbacks: ModelCheckpoint with train_time_interval never saves here; use "
                "checkpoint.every_n_batches"
            )
