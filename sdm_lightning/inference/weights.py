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
from typing import Any, Literal, TypeAlias

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.errors import InputError, load_failure, one_line, parse_json
from sdm_lightning.files import sha256_of_file, write_atomically
from sdm_lightning.inference.locating import find_weights
from sdm_lightning.inference.trusted import TRUSTED_PACKAGES, build, built_network

FORMAT = "sdm-lightning/1"
DISCRIMINATOR = "discriminator."

ClassConfig: TypeAlias = Mapping[str, Any]
"""A ``{"class_path": ..., "init_args": {...}}`` mapping, as in the YAML files."""

Parameters: TypeAlias = Literal["ema", "raw"]


@dataclass(frozen=True)
class WeightsInfo:
    """The description that a weights file carries.

    Attributes:
        path: The file.
        generator: Class and arguments of the generator.
        diffusion: Class and arguments of the spatial diffusion.
        resolution: Side length of the training crops in pixels; None if not recorded.
        images_seen: Training images over all processes; None if not recorded.
        parameters: ``"ema"`` (moving average, the default everywhere) or ``"raw"``.
        licence: Licence of the weights.
        data: What they were trained on.
        sha256: Of the file.
        extra: Anything else that was saved with them.
    """

    path: Path
    generator: dict[str, Any]
    diffusion: dict[str, Any]
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
    generator_config: ClassConfig,
    state_dict: Mapping[str, Tensor],
    diffusion_config: ClassConfig,
    *,
    resolution: int | None = None,
    images_seen: int | None = None,
    parameters: Parameters = "ema",
    licence: str = "not stated",
    data: str = "not stated",
    half: bool = False,
    extra: Mapping[str, Any] | None = None,
    discriminator_state: Mapping[str, Tensor] | None = None,
    discriminator_config: ClassConfig | None = None,
) -> Path:
    """Write a weights file and its checksum.

    Args:
        path: ``*.safetensors``.
        generator_config: Class and arguments of the generator.
        state_dict: Its tensors.
        diffusion_config: Class and arguments of the spatial diffusion.
        resolution: Side length of the training crops in pixels.
        images_seen: Training images over all processes.
        parameters: Whether the tensors are the moving average or the raw ones.
        licence: Licence of the weights.
        data: What they were trained on.
        half: Store floating-point tensors as float16 (half the size); they load as float32.
        extra: Further JSON values to keep with them.
        discriminator_state: The discriminator's tensors, to continue training; written to a file
            beside, see :func:`discriminator_file`.
        discriminator_config: Class and arguments of the discriminator, for that file.

    Returns:
        The path.

    Raises:
        InputError: If the path has another suffix, or a tensor does not fit into float16.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: weights files end in .safetensors")
    tensors = _stored(path, state_dict, half)
    named = {DISCRIMINATOR + name: tensor for name, tensor in (discriminator_state or {}).items()}
    others = _stored(path, named, half)
    config = {
        "format": FORMAT,
        "generator": generator_config,
        "diffusion": diffusion_config,
        "resolution": resolution,
        "images_seen": images_seen,
        "parameters": parameters,
        "licence": licence,
        "data": data,
        "extra": dict(extra or {}),
    }
    checksum = _write(path, tensors, config)
    if others:
        facts = {"generator_sha256": checksum, "discriminator": discriminator_config}
        _write(discriminator_file(path), others, {"format": FORMAT, **facts})
    return path


def discriminator_file(path: Path) -> Path:
    """Return where the discriminator of a weights file lies: ``demo.discriminator.safetensors``.

    A file of its own, so that those who only fill holes need not have it.
    """
    return path.with_name(f"{path.stem}.discriminator.safetensors")


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
        weights: Name of bundled weights, ``*.safetensors``, a ``*.ckpt`` written by ``sdm fit``, a
            run directory, or ``user/repo`` on the hub; see :func:`find_weights`.
        parameters: Of a checkpoint: the moving average or the raw weights.
        trusted_packages: Packages whose classes the file's configuration may name.

    Raises:
        InputError: If the file is missing, damaged, altered, or does not fit its configuration.
    """
    path = find_weights(weights)
    if path.suffix == ".safetensors":
        state, info = _read_safetensors(path)
    elif path.suffix == ".ckpt":
        state, info = _read_checkpoint(path, parameters)
    else:
        raise InputError(f"{path}: neither .safetensors nor .ckpt")
    generator = built_network(info.generator, str(path), trusted_packages)
    if not isinstance(generator, nn.Module):
        raise InputError(f"{path}: {info.generator.get('class_path')} is not a network")
    empty = any(tensor.is_meta for tensor in generator.state_dict().values())
    try:
        _require_plain(state, generator.state_dict() if empty else state)
        generator.load_state_dict(state, assign=empty)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
        raise InputError(f"{path}: weights do not fit the generator: {first}") from error
    return generator.eval().requires_grad_(False), info


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
    info = WeightsInfo(
        path=path,
        generator=generator,
        diffusion=diffusion,
        resolution=config.get("resolution"),
        images_seen=config.get("images_seen"),
        parameters=config.get("parameters", "ema"),
        licence=config.get("licence", "not stated"),
        data=config.get("data", "not stated"),
        sha256=checksum,
        extra=config.get("extra") or {},
    )
    floats = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
        if not name.startswith(DISCRIMINATOR)
    }
    return floats, info


def _check_facts(config: Mapping[str, Any]) -> None:
    """Hold what a file says of itself against the types of :class:`WeightsInfo`."""
    for name, least in (("resolution", 1), ("images_seen", 0)):
        value = config.get(name)
        if value is not None and (type(value) is not int or not least <= value < 1 << 53):
            raise ValueError(f"{name} is {value!r:.40}")
    for name in ("parameters", "licence", "data"):
        if not isinstance(config.get(name, ""), str):
            raise TypeError(f"{name} is no text")
    if config.get("parameters", "ema") not in ("ema", "raw"):
        raise ValueError("parameters is neither ema nor raw")
    if not isinstance(config.get("extra") or {}, dict):
        raise TypeError("extra is no mapping")


def load_discriminator_state(weights: str | Path) -> dict[str, Tensor] | None:
    """Read the discriminator's float32 tensors that go with weights; None if there are none.

    Args:
        weights: As for :func:`load_generator`. Those of a ``.safetensors`` file lie in the file
            beside it (:func:`discriminator_file`), or inside it if an earlier release wrote it.

    Raises:
        InputError: If a file is missing or damaged, or the discriminator is that of other weights.
    """
    path = find_weights(weights)
    if path.suffix == ".ckpt":
        state = _open_checkpoint(path)["state_dict"]
    else:
        _, state = _read_discriminator(path)
        beside = discriminator_file(path)
        if not state and beside.is_file():
            config, state = _read_discriminator(beside)
            if config.get("generator_sha256") != sha256_of_file(path):
                raise InputError(
                    f"{beside}: belongs to other weights than {path.name}; export both together "
                    "(sdm export ... --discriminator), or delete it"
                )
    found = {
        name[len(DISCRIMINATOR) :]: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
        if name.startswith(DISCRIMINATOR)
    }
    return found or None


def load_discriminator_config(weights: str | Path) -> dict[str, Any] | None:
    """Read class and arguments of the discriminator that goes with weights; None if not recorded.

    Args:
        weights: As for :func:`load_generator`.

    Raises:
        InputError: If a file is missing or damaged.
    """
    path = find_weights(weights)
    if path.suffix == ".ckpt":
        config = (_open_checkpoint(path).get("hyper_parameters") or {}).get("discriminator")
    elif discriminator_file(path).is_file():
        config = _read_discriminator(discriminator_file(path))[0].get("discriminator")
    else:
        config = None
    return dict(config) if isinstance(config, Mapping) and "class_path" in config else None


def _read_discriminator(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            config = parse_json((file.metadata() or {}).get("sdm_lightning", "{}"))
            names = [name for name in file.keys() if name.startswith(DISCRIMINATOR)]  # noqa: SIM118
            return dict(config), {name: file.get_tensor(name) for name in names}
    except Exception as error:
        raise InputError(f"{path}: not a whole safetensors file: {one_line(error)}") from error


def _open_checkpoint(path: Path) -> Mapping[str, Any]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise InputError(
            f"{path}: cannot be read as a checkpoint: {load_failure(error)}"
        ) from error
    if not isinstance(checkpoint, Mapping) or "state_dict" not in checkpoint:
        raise InputError(f"{path}: not a Lightning checkpoint: it has no state_dict")
    return checkpoint


def _read_checkpoint(path: Path, parameters: Parameters) -> tuple[dict[str, Tensor], WeightsInfo]:
    checkpoint = _open_checkpoint(path)
    everything: Mapping[str, Tensor] = checkpoint["state_dict"]
    prefix = "generator_ema." if parameters == "ema" else "generator."
    state = {
        name[len(prefix) :]: tensor
        for name, tensor in everything.items()
        if name.startswith(prefix)
    }
    if not state:
        other = "raw" if parameters == "ema" else "ema"
        raise InputError(
            f"{path}: holds no {prefix}* weights; parameters={other!r} may, if it is a checkpoint "
            "of sdm fit at all"
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
    arguments = dict(diffusion.get("init_args") or {})
    # Tested with as many iterations as sdm test takes, which may be more than training took.
    if settings.get("test_iterations"):
        arguments["num_iterations"] = settings["test_iterations"]
    seen = checkpoint.get("images_seen")
    data = checkpoint.get("InpaintingDataModule")
    size = data.get("resolution") if isinstance(data, Mapping) else None
    if size is None:  # an older checkpoint, whose discriminator is built for one size
        discriminator = settings.get("discriminator")
        known = discriminator.get("init_args") if isinstance(discriminator, Mapping) else None
        size = (known or {}).get("resolution")
    info = WeightsInfo(
        path=path,
        generator=dict(generator),
        diffusion={"class_path": diffusion["class_path"], "init_args": arguments},
        resolution=size if isinstance(size, int) else None,
        images_seen=int(seen) if seen is not None else None,
        parameters=parameters,
        sha256=sha256_of_file(path),
    )
    return state, info
