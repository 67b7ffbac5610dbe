"""Weights files of feature networks: find them, check their hash, load them safely."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from sdm_lightning.errors import InputError, one_line
from sdm_lightning.files import sha256_of_file


@dataclass(frozen=True)
class PublishedWeights:
    """A weights file as its authors publish it.

    Attributes:
        url: Where it is published; the last part is the file's name in torch hub's cache.
        sha256: First digits of its SHA-256, as torch hub writes them into file names.
        argument: The argument that takes a local path, for messages.
        stand_in: How to choose a stand-in instead, for messages.
    """

    url: str
    sha256: str
    argument: str
    stand_in: str

    @property
    def file_name(self) -> str:
        """Name in torch hub's cache."""
        return self.url.rsplit("/", 1)[1]


def check_hash(file: Path, expected: str | None) -> str:
    """Return a file's SHA-256; refuse one that does not begin with ``expected``.

    Raises:
        InputError: If the file does not exist, or is another one.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such weights file")
    found = sha256_of_file(file)
    if expected is not None and (not expected or not found.startswith(expected.lower())):
        raise InputError(
            f"{file}: its SHA-256 is {found}, expected {expected}; fetch the file again, or "
            "correct the hash"
        )
    return found


def find_published(
    published: PublishedWeights,
    path: str | Path | None = None,
    sha256: str | None = None,
    download: bool = False,
) -> tuple[Path, str]:
    """Locate a weights file and check its hash.

    Args:
        published: Which file.
        path: A local file; None looks in torch hub's cache (``$TORCH_HOME/hub/checkpoints``).
        sha256: First digits (at least 8) of the hash to expect instead of the published one.
        download: Fetch the file into torch hub's cache if it is not there.

    Returns:
        The file and its full SHA-256.

    Raises:
        InputError: If it is missing, or it is another file.
    """
    expected = sha256 if sha256 is not None else published.sha256
    if len(expected) < 8:
        raise InputError(f"{published.argument}: give at least 8 digits of the hash, {expected!r}")
    if path is None:
        file = Path(torch.hub.get_dir()) / "checkpoints" / published.file_name
        if not file.is_file() and download:
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(
                    published.url, str(file), hash_prefix=published.sha256
                )
            except (OSError, RuntimeError) as error:
                raise InputError(
                    f"{published.url}: cannot be downloaded ({one_line(error)})"
                ) from error
        if not file.is_file():
            raise InputError(
                f"{file}: no such file; add --download true to sdm evaluate, or put "
                f"{published.url} there, give its path by {published.argument}, or choose "
                f"{published.stand_in}"
            )
    else:
        file = Path(path).expanduser()
        if not file.is_file():
            raise InputError(
                f"{file}: no such file, given by {published.argument}; it would be "
                f"{published.file_name} from {published.url}"
            )
    found = sha256_of_file(file)
    if not found.startswith(expected.lower()):
        raise InputError(
            f"{file}: its SHA-256 starts with {found[:8]}, expected {expected[:8]}; use the "
            f"published {published.file_name}, or state another file's hash by "
            f"{published.argument}_sha256 (its scores then carry that hash in their names)"
        )
    return file, found


def load_state(file: Path, published: PublishedWeights) -> dict[str, Tensor]:
    """Read a checked file's tensors; nothing else in it is unpickled, whatever its hash.

    Published hashes are eight digits, and a file whose hash begins with given ones takes minutes
    to make.

    Raises:
        InputError: If it is not a PyTorch file of tensors.
    """
    try:
        return read_state(file)
    except InputError as error:
        raise InputError(f"{error}; expected the state dict of {published.file_name}") from error


def read_state(file: Path) -> dict[str, Tensor]:
    """Read a ``.safetensors`` file, or a ``.pth`` file of tensors alone.

    Raises:
        InputError: If it is damaged, or holds anything but a state dict.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and format errors of several libraries
        raise InputError(
            f"{file}: cannot be read as weights ({type(error).__name__}): it is damaged or holds "
            "more than tensors"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{file}: is not a plain dictionary of tensors")
    return content


def as_file(state: dict[str, Tensor]) -> io.BytesIO:
    """Write a state dict to memory, for loaders that insist on reading a file."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    buffer.seek(0)
    return buffer


def sha256_of_state(state: dict[str, Tensor]) -> str:
    """Hash names and values of tensors, for networks that do not come from a file."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
