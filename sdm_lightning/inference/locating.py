"""Where weights are: in this package, in a file, in a run's directory, or on the hub."""

from pathlib import Path

from sdm_lightning.errors import InputError
from sdm_lightning.inference.checkpoints import newest_checkpoint
from sdm_lightning.inference.hub import WEIGHTS_NAME, download_weights, split_revision
from sdm_lightning.shipped import ASSETS

DEFAULT_WEIGHTS = "photos-128"
"""The packaged weights that fill photos best."""


def find_weights(weights: str | Path) -> Path:
    """Find the file behind a packaged name (such as ``"demo"``), a path, or a repository.

    Args:
        weights: A name; a ``.safetensors`` or ``.ckpt`` file; the directory of a run of
            ``sdm fit``, finished or not, which stands for its newest checkpoint that can be read;
            a folder of the hub's layout (with ``model.safetensors``); or ``user/repo`` on the hub,
            ``user/repo@revision`` for a branch, tag or commit of it. What is here comes first.

    Raises:
        InputError: If there is no such name, file or repository, or the directory has no weights.
    """
    path = Path(weights)
    if path.is_file():
        return path
    packaged = ASSETS / f"{weights}.safetensors"
    if "/" not in str(weights) and packaged.is_file():
        return packaged
    if path.is_dir():
        if (path / WEIGHTS_NAME).is_file():
            return path / WEIGHTS_NAME
        checkpoint = newest_checkpoint(path)
        if checkpoint is None:
            raise InputError(
                f"{path}: a directory without checkpoints or {WEIGHTS_NAME}; give runs/NAME of a "
                "run that has written one (checkpoint.every_n_batches says how often it does)"
            )
        return checkpoint
    repository = split_revision(str(weights))
    if repository and path.suffix not in (".safetensors", ".ckpt"):
        return download_weights(*repository)
    stems = sorted(file.stem for file in ASSETS.glob("*.safetensors"))
    names = [stem for stem in stems if not stem.endswith(".discriminator")]
    known = f"packaged: {', '.join(names)}" if names else "none are packaged with this installation"
    raise InputError(
        f"{weights}: no such weights; give a .safetensors or .ckpt file, the directory of a run, "
        f"user/repo on the hub, or a name ({known})"
    )
