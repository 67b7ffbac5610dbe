"""Settings and trainers that a GAN with two optimizers cannot be trained by."""

from operator import attrgetter
from typing import TYPE_CHECKING

import lightning.pytorch as pl

from sdm_lightning.errors import InputError
from sdm_lightning.losses import PerceptualLoss, WeightedPerceptualLoss
from sdm_lightning.training.averaging import AverageSettings
from sdm_lightning.training.settings import AdamSettings, LossSettings

if TYPE_CHECKING:
    from sdm_lightning.training.module import SDMModule


def refuse_unfit_settings(
    losses: LossSettings,
    perceptual: PerceptualLoss | None,
    random_iterations: tuple[int, int] | None,
    max_skipped_batches: int,
    decoupled: bool,
    **counts: int,
) -> None:
    """Refuse settings of the module that are out of range or do not go together.

    Args:
        losses: Weights and intervals.
        perceptual: Needed where it has a weight.
        random_iterations: Least and most T.
        max_skipped_batches: 0 or more.
        decoupled: Whether the likelihood counts.
        counts: Arguments of the module that must be at least 1.

    Raises:
        InputError: Naming the key.
    """
    if losses.perceptual and perceptual is None:
        raise InputError(
            "model.perceptual is missing: give a loss such as "
            "sdm_lightning.losses.ResNetPerceptualLoss, or set model.losses.perceptual to 0"
        )
    for name, value in {**counts, "losses.r1_interval": losses.r1_interval}.items():
        if value < 1:
            raise InputError(f"model.{name} is {value}; it must be at least 1")
    if not (losses.adversarial or losses.perceptual or (decoupled and losses.likelihood)):
        raise InputError(
            "model.losses: no loss is left to train by; give adversarial, perceptual or "
            "(with decoupled) likelihood a weight above 0"
        )
    if max_skipped_batches < 0:
        raise InputError(f"model.max_skipped_batches is {max_skipped_batches}; 0 is the least")
    if random_iterations is not None and not 1 <= random_iterations[0] <= random_iterations[1]:
        raise InputError(
            f"model.random_iterations is {list(random_iterations)}; give the least and the "
            "most T, such as [1, 4]"
        )


def refuse_unfit_recipe(
    losses: LossSettings,
    optimizer_g: AdamSettings,
    optimizer_d: AdamSettings,
    average: AverageSettings,
    gradient_clip: float | None,
    style_mixing_probability: float,
) -> None:
    """Refuse numbers of the recipe that would train wrongly without a word.

    Args:
        losses: Weights.
        optimizer_g: Of the generator.
        optimizer_d: Of the discriminator.
        average: Half-life and ramp.
        gradient_clip: None = off.
        style_mixing_probability: In [0, 1].

    Raises:
        InputError: Naming the key.
    """
    above = {
        "gradient_clip": gradient_clip,
        "average.half_life_images": average.half_life_images,
        "average.ramp_up": average.ramp_up,
    }
    optimizers = {"optimizer_g": optimizer_g, "optimizer_d": optimizer_d}
    for key, settings in optimizers.items():
        if not all(0 <= beta < 1 for beta in settings.betas):
            raise InputError(
                f"model.{key}.betas is {list(settings.betas)}; each must be at least 0 and below 1"
            )
    for name, value in above.items():
        if value is not None and not value > 0:
            off = "; null turns it off" if name == "gradient_clip" else ""
            raise InputError(f"model.{name} is {value}; it must be above 0{off}")
    names = ("adversarial", "perceptual", "likelihood", "r1_gamma")
    at_least_0 = {f"losses.{name}": getattr(losses, name) for name in names}
    at_least_0 |= {f"{key}.lr": settings.lr for key, settings in optimizers.items()}
    for name, value in at_least_0.items():
        if not value >= 0:
            raise InputError(f"model.{name} is {value}; it must not be negative")
    if not 0 <= style_mixing_probability <= 1:
        raise InputError(
            f"model.style_mixing_probability is {style_mixing_probability}; it must lie in [0, 1]"
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
        InputError: For its precision, and for a DDP strategy that cannot run two optimizers.
    """
    refuse_unfit_precision(trainer.precision)
    options = getattr(trainer.strategy, "_ddp_kwargs", None)
    if training and options is not None and not options.get("find_unused_parameters"):
        raise InputError(
            "trainer.strategy is DDP without find_unused_parameters: generator and "
            "discriminator take turns, so each backward leaves the other unused; set it to "
            "ddp_find_unused_parameters_true"
        )
