"""Checkpoints: written atomically, and checked against the network when loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from sdm_lightning.errors import DivergedError, InputError, load_failure
from sdm_lightning.files import atomic_file
from sdm_lightning.inference.weights import AVERAGED, read_weights


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames.

    Lightning's own writer moves a file from the temporary folder; if that is on another file
    system, a kill during the move destroys the previous good checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save to ``path``, which at any time holds the old or the new file.

        Args:
            checkpoint: What to save.
            path: A local path; anything with a URL scheme goes through Lightning's writer.
            storage_options: Only for Lightning's writer.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with atomic_file(path) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load as Lightning does, with a one-line error for a file that is not a checkpoint.

        A weights file (``.safetensors``) gives a checkpoint of the averaged generator alone, which
        is all that validation, test and prediction use.

        Raises:
            InputError: If the file is damaged, cut short, or of another kind.
        """
        if Path(path).suffix == ".safetensors":
            state, info = read_weights(Path(path))
            return {
                "state_dict": {f"{AVERAGED}{name}": tensor for name, tensor in state.items()},
                "images_seen": info.images_seen or 0,
                "parameters": info.parameters,
                "pytorch-lightning_version": lightning.__version__,
            }
        try:
            checkpoint = super().load_checkpoint(path, *args, **kwargs)
        except MemoryError:
            raise
        except Exception as error:  # unpickling raises anything at all
            raise InputError(
                f"{path}: cannot be read as a checkpoint ({load_failure(error)}); it is cut short, "
                "damaged, or not one that sdm fit wrote"
            ) from error
        if not isinstance(checkpoint, dict) or "images_seen" not in checkpoint:
            raise InputError(
                f"{path}: holds no run of sdm fit; give a file of its checkpoints/ folder"
            )
        return checkpoint


def require_finite(weights: Mapping[str, Tensor]) -> None:
    """Refuse to save a model that has diverged, so that the checkpoints before it stay.

    Raises:
        DivergedError: If a parameter or buffer holds NaN or infinity.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise DivergedError(
                f"training diverged: {name} holds NaN or infinity; no checkpoint was written and "
                "earlier ones were kept: continue from the newest (--ckpt_path last) with a lower "
                "learning rate or with --model.gradient_clip 1.0"
            )


def fitting_weights(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], training: bool, path: str = ""
) -> dict[str, Tensor]:
    """Return a checkpoint's weights for a module, after checking that they fit it.

    In training the networks have to fit; what else the checkpoint lacks, such as ADA's probability
    where augmentation is turned on, stays the module's own. Outside training the averaged generator
    alone is used; for the rest the module keeps its own. The discriminator would not even fit where
    the generator runs at a size that it was not trained at (Table B.1).

    Args:
        weights: Weights of the checkpoint.
        own: Weights of the module.
        training: Whether more than the averaged generator is used.
        path: The checkpoint, for messages.

    Raises:
        InputError: If a network's weight is missing or too much, or any is of another shape.
    """
    needed = ("generator.", "discriminator.", AVERAGED) if training else (AVERAGED,)
    fitting = {k: v for k, v in weights.items() if k.startswith(needed)}
    rest = {k: v for k, v in own.items() if not k.startswith(needed)}
    fitting |= {k: weights.get(k, v) if training else v for k, v in rest.items()}
    wrong = [key for key in own if key not in fitting] + [key for key in fitting if key not in own]
    wrong += [key for key in own if key in fitting and fitting[key].shape != own[key].shape]
    if wrong:
        key = wrong[0]
        shapes = [
            f"{tuple(found[key].shape)} {where}" if key in found else f"nothing {where}"
            for found, where in ((fitting, "there"), (own, "here"))
        ]
        raise InputError(
            f"{path or 'checkpoint'}: belongs to a different network than the one configured: "
            f"{len(wrong)} weights differ, the first is {key}, {' and '.join(shapes)}; use the "
            "config that it was trained with"
        )
    return fitting
