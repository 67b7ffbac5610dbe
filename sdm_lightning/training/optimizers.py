"""The two Adam optimizers, and what a loaded checkpoint must not change in them."""

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info

from sdm_lightning.training.settings import AdamSettings, LossSettings


def adam_options(
    generator: AdamSettings, discriminator: AdamSettings, losses: LossSettings
) -> list[dict[str, Any]]:
    """Return the arguments of the generator's and of the discriminator's Adam.

    The discriminator's is corrected for the penalty's extra steps; the generator has none.
    The fused kernel is the fastest on a CPU as well, and can leave a step out by a flag on the
    device; see :mod:`sdm_lightning.training.health`.

    Args:
        generator: As configured.
        discriminator: As configured.
        losses: Whether and how often there is a penalty.
    """
    interval = losses.r1_interval if losses.r1_gamma else None
    return [
        {**generator.corrected(None), "fused": True},
        {**discriminator.corrected(interval), "fused": True},
    ]


def align_adam(optimizer: torch.optim.Optimizer, options: dict[str, Any]) -> None:
    """Give an optimizer that a checkpoint may have filled the arguments of this run.

    The checkpoint may have other learning rates, and step counts on the CPU, where kernels that are
    not fused keep them.
    """
    for group in optimizer.param_groups:
        if any(group[name] != value for name, value in options.items() if name != "fused"):
            shown = {name: value for name, value in options.items() if name != "fused"}
            rank_zero_info(f"Adam continues with the config's {shown}")
        group.update(options)
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state:
                state["step"] = state["step"].to(parameter.device)
