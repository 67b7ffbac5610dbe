"""Weights that can be shipped: safetensors with the configuration inside and a checksum beside.

A weights file holds the generator's tensors and, in its metadata, everything needed to build and
run it: the generator's class and arguments, the spatial-diffusion settings, what it was trained
on and for how many images. Loading runs no code from the file: no pickle, and only networks and
diffusion settings of this package are built unless the caller names another package.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.errors import InputError, one_line, parse_json
from sdm_lightning.files import sha256_of_file, write_atomically
from sdm_lightning.inference.checkpoints import open_checkpoint
from sdm_lightning.inference.discriminators import DISCRIMINATOR, discriminator_file
from sdm_lightning.inference.locating import find_weights
from sdm_lightning.inference.trusted import TRUSTED_PACKAGES, build, built_network, is_own

FORMAT = "sdm-lightning/1"
AVERAGED = "generator_ema."  # prefix of its tensors in a checkpoint
CHECKPOINT = "checkpoint_sha256"
"""Key of ``WeightsInfo.extra``: the checkpoint that the weights are, or were exported from."""

Parameters: TypeAlias = Literal["ema", "raw"]


@dataclass(frozen=True)
class WeightsInfo:
    """The description that a weights file carries.

    Attributes:
        generator: Class and arguments of the generator, ``{"class_path": ..., "init_args": {...}}``
            as in the YAML files.
        diffusion: Class and arguments of the spatial diffusion.
        path: The file.
        resolution: Side length of the training crops in pixels; None if not recorded.
        images_seen: Training images over all processes; None if not recorded.
        parameters: ``"ema"`` (moving average, the default everywhere) or ``"raw"``.
        licence: Licence of the weights.
        data: What they were trained on.
        sha256: Hash of the file.
        extra: Anything else that was saved with them.
    """

    generator: dict[str, Any]
    diffusion: dict[str, Any]
    path: Path = Path()
    resolution: int | None = None
    images_seen: int | None = None
    parameters: str = "ema"
    licence: str = "not stated"
    data: str = "not stated"
    sha256: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def build_diffusion(
        self, trusted_packages: Sequence[str] = TRUSTED_PACKAGES
    ) -> SpatialDiffusion:
        """Build the loop with the settings that the weights were saved with."""
        diffusion = build(self.diffusion, str(self.path), trusted_packages)
        if not isinstance(diffusion, SpatialDiffusion):
            raise InputError(f"{self.path}: diffusion is {type(diffusion).__name__}")
        return diffusion


def sidecar(path: Path) -> Path:
    """Return the path of a weights file's checksum: ``demo.safetensors.sha256``."""
    return path.with_name(path.name + ".sha256")


def save_weights(
    path: str | Path,
    info: WeightsInfo,
    state_dict: Mapping[str, Tensor],
    *,
    half: bool = False,
    discriminator_state: Mapping[str, Tensor] | None = None,
    discriminator_config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a weights file and its checksum.

    Args:
        path: ``*.safetensors``.
        info: What the file says of itself; its ``path`` and ``sha256`` are not written.
        state_dict: The generator's tensors.
        half: Store floating-point tensors as float16 (half the size); they load as float32.
        discriminator_state: The discriminator's tensors, to continue training; written to a file
            beside, see ``discriminator_file``.
        discriminator_config: Class and arguments of the discriminator, for that file.

    Returns:
        The path.

    Raises:
        InputError: If the path has another suffix, a class of this package is named so that it is
            not loaded again, or a tensor does not fit into float16.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: weights files end in .safetensors")
    for part, parent in ((info.generator, "models"), (info.diffusion, "diffusion")):
        name = str(part.get("class_path"))
        if name.startswith("sdm_lightning.") and not is_own(name):
            right = f"sdm_lightning.{parent}.{name.rpartition('.')[2]}"
            raise InputError(f"{path}: class_path {name} is not loaded from weights; give {right}")
    tensors = _stored(path, state_dict, half)
    named = {DISCRIMINATOR + name: tensor for name, tensor in (discriminator_state or {}).items()}
    others = _stored(path, named, half)
    facts = {name: value for name, value in vars(info).items() if name not in ("path", "sha256")}
    checksum = _write(path, tensors, {"format": FORMAT, **facts})
    if others:
        facts = {"generator_sha256": checksum, "discriminator": discriminator_config}
        _write(discriminator_file(path), others, {"format": FORMAT, **facts})
    return path


def _stored(path: Path, state: Mapping[str, Tensor], half: bool) -> dict[str, Tensor]:
    tensors = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu()
        if half and tensor.is_floating_point():
            tensor = tensor.to(torch.float16)
            if not bool(torch.isfinite(tensor).all()):
                raise InputError(f"{path}: {name} does not fit into float16; save with half=False")
        # clone: tensors that share memory are refused by safetensors.
        tensors[name] = tensor.contiguous().clone()
    return tensors


def _write(path: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> str:
    content = save(tensors, metadata={"sdm_lightning": json.dumps(config, sort_keys=True)})
    write_atomically(path, content)
    checksum = hashlib.sha256(content).hexdigest()
    write_atomically(sidecar(path), f"{checksum}  {path.name}\n")
    return checksum


def load_generator(
    weights: str | Path,
    *,
    parameters: Parameters = "ema",
    trusted_packages: Sequence[str] = TRUSTED_PACKAGES,
) -> tuple[nn.Module, WeightsInfo]:
    """Build the generator of a weights file or checkpoint, in eval mode, on the CPU.

    Args:
        weights: Name of packaged weights, ``*.safetensors``, a ``*.ckpt`` written by ``sdm fit``, a
            run directory, or ``user/repo`` on the hub; see ``find_weights``.
        parameters: Weights of a checkpoint: the moving average or the raw ones.
        trusted_packages: Packages whose classes the file's configuration may name.

    Returns:
        The generator, and what the file says of it.

    Raises:
        InputError: If the file is missing, damaged, altered, or does not fit its configuration.
    """
    path = find_weights(weights)
    state, info = read_weights(path, parameters)
    generator = built_network(info.generator, str(path), trusted_packages)
    class_path = str(info.generator.get("class_path"))
    # Of this package's networks only generators have a mapping; those of others need none.
    needed = getattr(generator, "mapping", None) if is_own(class_path) else generator
    if not isinstance(needed, nn.Module):
        raise InputError(f"{path}: {class_path[:200]} is no generator")
    empty = any(tensor.is_meta for tensor in generator.state_dict().values())
    try:
        _require_plain(state, generator.state_dict() if empty else state)
        generator.load_state_dict(state, assign=empty)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
        raise InputError(f"{path}: weights do not fit the generator: {first}") from error
    return generator.eval().requires_grad_(False), info


def read_weights(
    path: Path, parameters: Parameters = "ema"
) -> tuple[dict[str, Tensor], WeightsInfo]:
    """Read the generator's tensors and their description, and build nothing.

    Args:
        path: A ``.safetensors`` or ``.ckpt`` file.
        parameters: Weights of a checkpoint: the moving average or the raw ones.

    Returns:
        The tensors by name, float32 of a weights file, and what the file says of them.

    Raises:
        InputError: If the file is missing, damaged or altered, or lacks those weights.
    """
    if parameters not in get_args(Parameters):
        raise InputError(f"parameters is {parameters!r}; choose ema or raw")
    if path.suffix == ".safetensors":
        state, info = _read_safetensors(path)
        if parameters == "raw" and info.parameters != "raw":
            raise InputError(f"{path}: holds the moving average; the raw weights are in its .ckpt")
        return state, info
    if path.suffix == ".ckpt":
        return _read_checkpoint(path, parameters)
    raise InputError(f"{path}: neither .safetensors nor .ckpt")


def _require_plain(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse weights that no training can have given.

    Raises:
        RuntimeError: As ``load_state_dict`` does, if one is of another type or not finite.
    """
    for name, tensor in state.items():
        if name in own and tensor.dtype != own[name].dtype:
            raise RuntimeError(f"{name} is {tensor.dtype}, not {own[name].dtype}")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise RuntimeError(f"{name} holds NaN or infinity, as after a diverged training")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], WeightsInfo]:
    checksum = sha256_of_file(path)
    if sidecar(path).is_file():
        expected = sidecar(path).read_bytes()[:200].decode(errors="replace").split()
        if not expected or expected[0] != checksum:
            raise InputError(
                f"{path}: its SHA-256 is not the one in {sidecar(path).name}: damaged or altered; "
                "fetch it again"
            )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # beside its own class, what PyTorch says of sizes and types
        raise InputError(f"{path}: not a whole safetensors file: {one_line(error)}") from error
    try:
        config = parse_json(metadata["sdm_lightning"])
        generator, diffusion = dict(config["generator"]), dict(config["diffusion"])
        _check_facts(config)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: no sdm_lightning configuration inside ({one_line(error)}); was it written "
            "by sdm export?"
        ) from error
    optional = ("resolution", "images_seen", "parameters", "licence", "data", "extra")
    facts = {name: config[name] for name in optional if config.get(name) is not None}
    info = WeightsInfo(generator, diffusion, path, sha256=checksum, **facts)
    floats = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
    return floats, info


def _check_facts(config: Mapping[str, Any]) -> None:
    """Hold what a file says of itself against the types of ``WeightsInfo``."""
    for name, least in (("resolution", 1), ("images_seen", 0)):
        value = config.get(name)
        if value is not None and (type(value) is not int or not least <= value < 1 << 53):
            raise ValueError(f"{name} is {value!r:.40}")
    for name in ("parameters", "licence", "data"):
        if not isinstance(config.get(name, ""), str):
            raise TypeError(f"{name} is no text")
    if config.get("parameters", "ema") not in ("ema", "raw"):
        raise ValueError("parameters is neither ema nor raw")
    if not isinstance(config.get("extra"), dict | None):
        raise TypeError("extra is no mapping")


def _read_checkpoint(path: Path, parameters: Parameters) -> tuple[dict[str, Tensor], WeightsInfo]:
    checkpoint = open_checkpoint(path)
    everything: Mapping[str, Tensor] = checkpoint["state_dict"]
    prefix = AVERAGED if parameters == "ema" else "generator."
    state = {
        # A copy of what is mapped: the file may be overwritten while the weights are in use.
        name[len(prefix) :]: tensor.clone()
        for name, tensor in everything.items()
        if name.startswith(prefix)
    }
    if not state:
        other = "raw" if parameters == "ema" else "ema"
        raise InputError(
            f"{path}: holds no {prefix}* weights; if it is a checkpoint of sdm fit, try "
            f"parameters={other!r}"
        )
    settings = checkpoint.get("hyper_parameters") or {}
    generator, diffusion = settings.get("generator"), settings.get("diffusion")
    if not isinstance(generator, Mapping) or "class_path" not in generator:
        raise InputError(
            f"{path}: does not say how its generator was built (hyper_parameters.generator has no "
            "class_path; a module made in Python rather than by sdm fit?): use save_weights()"
        )
    if not isinstance(diffusion, Mapping) or "class_path" not in diffusion:
        diffusion = {"class_path": "sdm_lightning.diffusion.SpatialDiffusion"}
    seen, data = checkpoint.get("images_seen"), checkpoint.get("InpaintingDataModule")
    size = data.get("resolution") if isinstance(data, Mapping) else None
    try:
        arguments = dict(diffusion.get("init_args") or {})
        if size is None:  # an older checkpoint, whose discriminator is built for one size
            discriminator = dict(settings.get("discriminator") or {})
            size = dict(discriminator.get("init_args") or {}).get("resolution")
        _check_facts({"resolution": size, "images_seen": seen})
    except (ValueError, TypeError, RuntimeError) as error:  # the last of a tensor's truth
        raise InputError(f"{path}: not a checkpoint of sdm fit: {one_line(error)}") from error
    # Tested with as many iterations as sdm test takes, which may be more than training took.
    if settings.get("test_iterations") is not None:
        arguments["num_iterations"] = settings["test_iterations"]
    checksum = sha256_of_file(path)
    info = WeightsInfo(
        dict(generator),
        {"class_path": diffusion["class_path"], "init_args": arguments},
        path,
        resolution=size,
        images_seen=seen,
        parameters=parameters,
        sha256=checksum,
        extra={CHECKPOINT: checksum},
    )
    return state, info
