"""The discriminator that goes with weights, to continue training: a file of its own beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from sdm_lightning.errors import InputError, one_line, parse_json
from sdm_lightning.files import sha256_of_file
from sdm_lightning.inference.checkpoints import open_checkpoint
from sdm_lightning.inference.locating import find_weights

DISCRIMINATOR = "discriminator."


def discriminator_file(path: Path) -> Path:
    """Return where the discriminator of a weights file lies: ``demo.discriminator.safetensors``.

    A file of its own, so that those who only fill holes need not have it.
    """
    return path.with_name(f"{path.stem}.discriminator.safetensors")


def load_discriminator(
    weights: str | Path,
) -> tuple[dict[str, Tensor] | None, dict[str, Any] | None]:
    """Read the discriminator that goes with weights: float32 tensors, and class with arguments.

    Args:
        weights: As for ``load_generator``. Of a ``.safetensors`` file it lies in the file
            beside it (``discriminator_file``).

    Returns:
        Tensors and configuration; None for what there is not.

    Raises:
        InputError: If a file is missing or damaged, or the discriminator is that of other weights.
    """
    path = find_weights(weights)
    state: Mapping[str, Tensor] = {}
    config: Any = None
    if path.suffix == ".ckpt":
        checkpoint = open_checkpoint(path)
        state = checkpoint["state_dict"]
        config = (checkpoint.get("hyper_parameters") or {}).get("discriminator")
    elif (beside := discriminator_file(path)).is_file():
        facts, state = _read_discriminator(beside)
        if facts.get("generator_sha256") != sha256_of_file(path):
            raise InputError(
                f"{beside}: belongs to other weights than {path.name}; export both together "
                "(sdm export ... --discriminator), or delete it"
            )
        config = facts.get("discriminator")
    found = {
        name[len(DISCRIMINATOR) :]: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
        if name.startswith(DISCRIMINATOR)
    }
    known = isinstance(config, Mapping) and "class_path" in config
    return found or None, dict(config) if known else None


def _read_discriminator(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            config = parse_json((file.metadata() or {}).get("sdm_lightning", "{}"))
            names = [name for name in file.keys() if name.startswith(DISCRIMINATOR)]  # noqa: SIM118
            return dict(config), {name: file.get_tensor(name) for name in names}
    except Exception as error:
        raise InputError(f"{path}: not a whole safetensors file: {one_line(error)}") from error
