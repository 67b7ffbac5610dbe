"""Keeping the step at which training diverged, and the command ``sdm replay`` that repeats it."""

import logging
import math
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sdm_lightning.errors import DivergedError, InputError, load_failure
from sdm_lightning.files import atomic_file
from sdm_lightning.working_directory import import_from_working_directory

if TYPE_CHECKING:
    from sdm_lightning.training.module import SDMModule

_log = logging.getLogger(__name__)

DIVERGED = "diverged"
STATE = "state.ckpt"


def stopped_by_divergence(module: "SDMModule", batch: dict[str, Any]) -> DivergedError:
    """Write what it takes to repeat the last step; return the error to raise.

    ``diverged/batch-rankN.pt`` in the run directory holds this process's batch and what its step
    depended on; ``diverged/state.ckpt`` the networks as they were before the step, or before the
    part of it that failed first.

    Args:
        module: After the step.
        batch: Batch of the step.
    """
    trainer = module.trainer
    folder = Path(trainer.default_root_dir) / DIVERGED
    path = folder / f"batch-rank{module.global_rank}.pt"
    before = module.images_seen - batch["image"].shape[0] * trainer.world_size
    content = {
        "batch": {"image": batch["image"].cpu(), "mask": batch["mask"].cpu(), "key": batch["key"]},
        "images_seen": before,
        "step_seed": module.step_seed(before),
        "num_iterations": module.num_iterations(before),
        "num_micro_batches": module.num_micro_batches,
        "penalty": module.penalty_due(),
        "precision": str(trainer.precision),
        "terms": module.health.terms,
    }
    try:
        with atomic_file(path) as file:
            torch.save(content, file)
        trainer.save_checkpoint(folder / STATE, weights_only=False)
    except (OSError, RuntimeError, InputError) as error:
        _log.warning("%s cannot be written whole: %s", folder, error)
    return module.health.error(before, batch["key"], str(path))


def replay_step(file: str, checkpoint: str | None = None) -> None:
    """Repeat the step at which a run stopped because losses or gradients were not finite.

    Prints every term of the loss, the first layers whose output was not finite, and the parameters
    whose gradients were not. Nothing is trained or saved. Randomness is the step's own; on the kind
    of device that it ran on, the numbers are too. Only for runs of your own: the checkpoint names
    the classes that it is built from.

    Args:
        file: batch-rankN.pt in the run's folder diverged/.
        checkpoint: Networks to repeat it with; default: state.ckpt beside the file, as they were.
            An earlier checkpoint of the run shows whether the batch or the networks are at fault.
    """
    from sdm_lightning.training.module import SDMModule

    import_from_working_directory()  # as sdm fit does, whose checkpoint this is
    saved = _load(file)
    path = Path(checkpoint) if checkpoint is not None else Path(file).with_name(STATE)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; name one of the run with --checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = SDMModule.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # as in _load
        raise InputError(f"{path}: cannot be read: {load_failure(error)}") from error
    print(f"{file}: batch after {saved['images_seen']:,} images, networks of {path}")
    print(f"keys: {', '.join(saved['batch']['key'])}")
    report = _Report(module, saved)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's remarks are about longer runs than one step
        trainer = pl.Trainer(
            max_steps=1, accelerator="auto", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
            precision=saved.get("precision", "32-true"),
        )  # fmt: skip
        trainer.fit(module, DataLoader([saved["batch"]], batch_size=None))  # type: ignore[arg-type]
    report.print()


def _load(file: str) -> dict[str, Any]:
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        if set(saved) >= {"batch", "images_seen", "step_seed", "penalty"}:
            return dict(saved)
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file") from error
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise InputError(f"{file}: cannot be read: {load_failure(error)}") from error
    raise InputError(f"{file}: not a step that sdm fit kept; give diverged/batch-rankN.pt of a run")


class _Report:
    """Puts a module into the state of the step, and watches its layers, terms and gradients."""

    def __init__(self, module: "SDMModule", saved: dict[str, Any]) -> None:
        self.terms: list[tuple[str, float]] = []
        self.layers: list[str] = []
        self.gradients: dict[str, list[str]] = {}
        self._guard, self._look = module._guard, module.health.look
        module.images_seen = saved["images_seen"]
        module.num_micro_batches = saved["num_micro_batches"]
        # Of this one object, so that the step itself runs as it does in training.
        replaced = {
            "step_seed": lambda images_seen: saved["step_seed"],
            "num_iterations": lambda images_seen: saved["num_iterations"],
            "penalty_due": lambda: bool(saved["penalty"]),
            "_read_health": lambda *args: None,  # one bad batch is what we came for
            "_guard": self.guard,
        }
        for name, function in replaced.items():
            object.__setattr__(module, name, function)
        module.health.look = self.look  # type: ignore[method-assign]
        for name, layer in module.named_modules():
            if name.startswith(("generator.", "discriminator.")):
                layer.register_forward_hook(partial(self.watch, name))

    def watch(self, name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the names of layers with an output that is not finite, in order."""
        tensors = output if isinstance(output, tuple) else (output,)
        bad = any(isinstance(t, Tensor) and not bool(t.isfinite().all()) for t in tensors)
        if bad and name not in self.layers:
            self.layers.append(name)

    def look(self, name: str, value: Tensor) -> None:
        """Keep the value of a term."""
        self.terms.append((name, float(value)))
        self._look(name, value)

    def guard(self, optimizer: Any, network: nn.Module, name: str, *clip: Any) -> None:
        """Keep the names of parameters with a gradient that is not finite."""
        self.gradients[name] = [
            key
            for key, parameter in network.named_parameters()
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
        ]
        self._guard(optimizer, network, name, *clip)

    def print(self) -> None:
        """Print what was seen."""
        for name, value in self.terms:
            print(f"{name:<38} {value:>12.5g}{'' if math.isfinite(value) else '  not finite'}")
        print(_listed("layers with an output that is not finite", self.layers))
        for name, found in self.gradients.items():
            print(_listed(f"parameters whose gradient of the {name} is not finite", found))


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return f"{what}: none"
    return f"{what}: {len(names)}, first {', '.join(names[:3])}"
