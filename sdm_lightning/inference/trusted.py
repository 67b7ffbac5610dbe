"""Objects that a weights file describes: only classes that cannot do more than compute.

A weights file comes from anywhere, and its configuration names classes. Of this package only
networks and the diffusion's parts may be named: the command line, for one, is a class too, and runs
anything.
"""

import importlib
import inspect
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from sdm_lightning.errors import InputError
from sdm_lightning.working_directory import import_from_working_directory

TRUSTED_PACKAGES = ("sdm_lightning",)
TRUSTED_VARIABLE = "SDM_TRUSTED_PACKAGES"
"""Environment variable that adds packages to them, separated by commas; never Python's own modules,
by which a configuration could run anything."""

OWN_PARTS = ("sdm_lightning.models", "sdm_lightning.diffusion")
"""Where the classes come from that a weights file may name."""

LARGEST = 16384
"""Largest number that a weights file may give to these classes: channels, layers, iterations."""

_MAX_DEPTH = 20
_ALLOWED: dict[type, tuple[type, ...]] = {
    bool: (bool,), int: (int,), float: (int, float), str: (str,), tuple: (list, tuple),
}  # fmt: skip
"""Type of an argument's default -> the types that a weights file may give it."""


def is_own(class_path: str) -> bool:
    """Return whether a class path names a part of this package that weights files may build."""
    return any(class_path.startswith(f"{part}.") for part in OWN_PARTS)


def build(
    config: Any,
    source: str,
    trusted_packages: Sequence[str] = TRUSTED_PACKAGES,
    depth: int = 0,
) -> Any:
    """Build what nested ``class_path`` / ``init_args`` mappings describe.

    Args:
        config: Mapping, list or plain value.
        source: Name of the file, for error messages.
        trusted_packages: Packages whose classes may be imported; of ``sdm_lightning`` only
            ``OWN_PARTS``. Importing whatever a downloaded file names would let it run code.
            The environment variable ``TRUSTED_VARIABLE`` adds others.
        depth: Depth of the nesting so far.

    Raises:
        InputError: If a class is not trusted, does not exist, or refuses its arguments.
    """
    if depth > _MAX_DEPTH:
        raise InputError(f"{source}: its configuration is nested more than {_MAX_DEPTH} deep")
    if isinstance(config, (list, tuple)):
        return type(config)(build(item, source, trusted_packages, depth + 1) for item in config)
    if not isinstance(config, Mapping):
        return config
    if "class_path" not in config:
        return {k: build(v, source, trusted_packages, depth + 1) for k, v in config.items()}
    class_path = str(config["class_path"])
    target = _trusted(class_path, source, trusted_packages)
    if not isinstance(target, type):
        raise InputError(f"{source}: {class_path} is not a class")
    given = config.get("init_args") or {}
    if not isinstance(given, Mapping):
        raise InputError(f"{source}: init_args of {class_path} is no mapping")
    # One by one: the mapping itself is never built, whatever its names are.
    arguments = {k: build(v, source, trusted_packages, depth + 1) for k, v in given.items()}
    if is_own(class_path):
        _check_arguments(target, arguments, f"{source}: {class_path}")
        if isinstance(schedule := arguments.get("schedule"), str):  # a function by its name
            arguments["schedule"] = _trusted(schedule, source, trusted_packages)
    try:
        return target(**arguments)
    except Exception as error:  # of a constructor fed from outside: TypeError, RuntimeError, ...
        raise InputError(f"{source}: {class_path} refuses its arguments: {error}") from error


def _trusted(class_path: str, source: str, trusted_packages: Sequence[str]) -> Any:
    """Import what a class path names: a class; of another package also a function."""
    module, _, name = class_path.rpartition(".")
    package = class_path.split(".", 1)[0]
    own = package == "sdm_lightning"
    listed = os.environ.get(TRUSTED_VARIABLE, "").replace(",", " ").split()
    by_variable = [name for name in listed if _may_be_trusted(name)]
    if package not in (*trusted_packages, *by_variable) or (own and not is_own(class_path)):
        where = ", ".join(OWN_PARTS) if own else ", ".join(trusted_packages)
        advice = (
            f"; if you trust it, set {TRUSTED_VARIABLE}={package:.100} "
            f"(in Python: trusted_packages=('sdm_lightning', {package[:100]!r}))"
        )
        raise InputError(
            f"{source}: its configuration names {class_path[:200]}, outside {where}"
            + (advice if not own and _may_be_trusted(package) else "")
        )
    if package in by_variable:
        import_from_working_directory()  # as sdm fit does, whose runs these are
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{source}: cannot import {class_path}: {error}") from error
    # What a module has imported for itself is not a part of it.
    if own and not (isinstance(target, type) and is_own(f"{target.__module__}.{name}")):
        raise InputError(f"{source}: {class_path} is not a class of these parts")
    return target


def _may_be_trusted(package: str) -> bool:
    return package.isidentifier() and package not in sys.stdlib_module_names


def _check_arguments(target: type, arguments: Mapping[str, Any], what: str) -> None:
    """Hold arguments against the types of the defaults, and numbers against what can be meant.

    Without it a wrong type would show only where the network runs, and a number of layers would
    only end when memory does.
    """
    parameters = inspect.signature(target).parameters
    for name, value in arguments.items():
        if name not in parameters:
            raise InputError(f"{what} has no argument {name!r}")
        wanted = _ALLOWED.get(type(parameters[name].default))
        if wanted is not None and (type(value) not in wanted):
            raise InputError(f"{what}: {name} is {value!r:.60}, not {wanted[-1].__name__}")
        for number in value if isinstance(value, (list, tuple)) else (value,):
            if type(number) is int and not 0 <= number <= LARGEST:
                raise InputError(f"{what}: {name} holds {number}, outside 0 .. {LARGEST}")
            if type(number) is float and not math.isfinite(number):
                raise InputError(f"{what}: {name} holds {number}")


def built_network(
    config: Mapping[str, Any], source: str, trusted_packages: Sequence[str] = TRUSTED_PACKAGES
) -> Any:
    """Build a network, without memory for its weights where it is one of this package.

    A lying configuration then costs nothing: the weights of the file are put into place only when
    all of them fit.

    Returns:
        The network; on the ``meta`` device if ``class_path`` is one of ``OWN_PARTS``.
    """
    if not is_own(str(config.get("class_path"))):
        return build(config, source, trusted_packages)
    with torch.device("meta"), _WithoutValues():
        return build(config, source, trusted_packages)


class _WithoutValues(TorchFunctionMode):
    """Leave initial values out: to divide on ``meta``, PyTorch imports its compiler (1 s)."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.Tensor.__truediv__, torch.Tensor.div) and args[0].is_meta:
            return args[0]
        return (torch.empty if func in (torch.randn, torch.zeros) else func)(
            *args, **(kwargs or {})
        )
