"""Checks for trainer settings with which a GAN with two optimizers cannot be trained."""

import lightning.pytorch as pl

from sdm_lightning.errors import InputError


def refuse_unfit_trainer(trainer: pl.Trainer, both_networks: bool) -> None:
    """Refuse, before the first batch, a trainer that would train wrongly.

    Args:
        trainer: With its precision and strategy chosen.
        both_networks: Generator and discriminator will be trained.

    Raises:
        InputError: For fp16, and for a DDP strategy that cannot run two optimizers.
    """
    precision = str(trainer.precision)
    if precision.startswith("16"):
        raise InputError(
            f"trainer.precision is {precision}: one gradient scaler shared by two optimizers "
            "scales the discriminator wrongly; use bf16-mixed or 32-true"
        )
    options = getattr(trainer.strategy, "_ddp_kwargs", None)
    if both_networks and options is not None and not options.get("find_unused_parameters"):
        raise InputError(
            "trainer.strategy is DDP without find_unused_parameters: generator and "
            "discriminator take turns, so each backward leaves the other unused; set it to "
            "ddp_find_unused_parameters_true"
        )
