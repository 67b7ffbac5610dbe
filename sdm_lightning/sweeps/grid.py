"""A W&B sweep file, read without W&B: its cells and the command line of each.

One file serves both ways of running: ``wandb sweep FILE`` with agents, and ``sdm sweep FILE``
without a server. Commands are built by the rules of wandb's agent (a test holds them to wandb's
own functions), with two additions for local runs: ``runs/paper/`` at the start of a value follows
the chosen scale, and a config file ``G.yaml`` is followed by ``G.SCALE.yaml`` if there is one.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdm_lightning.errors import InputError, parse_yaml
from sdm_lightning.shipped import find_config, shipped_folder

ENVIRONMENT_MACRO = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
PAPER_RUNS = "runs/paper/"
"""Where sweep files expect the runs of other sweeps."""


@dataclass(frozen=True)
class Cell:
    """One cell of a grid.

    Attributes:
        name: Unique in its sweep, fit for a folder name: ``A-seed0``.
        argv: What follows ``sdm``: the command and its arguments.
    """

    name: str
    argv: tuple[str, ...]

    @property
    def command(self) -> str:
        """``fit``, ``test``, ..."""
        return self.argv[0]

    def fingerprint(self, extra: Sequence[str] = ()) -> str:
        """Hash the command line, what its config files say and its checkpoint's state.

        A cell whose recipe was edited is another cell, and so is one whose checkpoint was trained
        again. The run's folder does not count, nor do comments in a config.

        Args:
            extra: More arguments of the command line.
        """
        words = [*self.argv, *extra]
        digest = hashlib.sha256(json.dumps(words).encode())
        for file in _config_files(words):
            path = Path(find_config(file))
            content = path.read_bytes() if path.is_file() else b"missing"
            with contextlib.suppress(OSError, InputError, TypeError):  # no config: its run says so
                content = json.dumps(_read_yaml(file), sort_keys=True, default=str).encode()
            digest.update(content)
        for file in _values_of(words, "--ckpt_path"):
            if os.path.isfile(file):  # too large to be read for each cell
                state = os.stat(file)
                digest.update(f"{state.st_size} {state.st_mtime_ns}".encode())
        return digest.hexdigest()[:16]


def _values_of(words: Sequence[str], flag: str) -> list[str]:
    """List the values of a flag, in order."""
    values = [word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")]
    return values + [value for word, value in itertools.pairwise(words) if word == flag]


def _is_inline(config: str) -> bool:
    """Return whether the value of ``--config`` is YAML itself, not a file."""
    return config.lstrip().startswith("{")


def _config_files(words: Sequence[str]) -> list[str]:
    """List the config files that a command line names."""
    return [config for config in _values_of(words, "--config") if not _is_inline(config)]


def _missing_configs(words: Sequence[str]) -> list[str]:
    """List the config files of a command line that do not exist."""
    return [name for name in _config_files(words) if not Path(find_config(name)).is_file()]


def setting(words: Sequence[str], key: str) -> Any:
    """Return the value of a key, such as ``trainer.devices``, as config files and flags set it.

    Args:
        words: A command line; what comes later in it wins.
        key: Names of nested keys, joined by dots.

    Returns:
        The value; None if the key is not set.

    Raises:
        InputError: If a config or the flag's value is not YAML.
    """
    found = None
    for word, following in itertools.pairwise([*words, ""]):
        flag, equals, text = word.partition("=")
        text = text if equals else following
        if flag == f"--{key}":
            try:
                found = parse_yaml(text)
            except ValueError as error:
                raise InputError(f"{flag} {text}: not valid YAML: {error}") from None
        elif flag == "--config":
            value = _read_yaml(text)
            for name in key.split("."):
                value = value.get(name) if isinstance(value, dict) else None
            found = found if value is None else value
    return found


def _read_yaml(config: str) -> Any:
    """Read a config file, or YAML in its place."""
    try:
        inline = _is_inline(config)
        return _parsed(config if inline else Path(find_config(config)).read_bytes().decode())
    except ValueError as error:
        raise InputError(f"{config}: not valid YAML: {error}") from None


@functools.cache
def _parsed(text: str) -> Any:
    """Parse YAML once, however many cells name the file; the result is only read."""
    return parse_yaml(text)


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Attributes:
        path: The file.
        name: Its ``name``, or the file's.
        method: ``grid``, ``random`` or ``bayes``.
        command: Words with macros; what follows ``${program}`` is the command and its arguments.
        values: Flag -> the values that it takes; only what has a list or a single value.
        searched: Flags with a distribution, which only a search can fill.
    """

    path: Path
    name: str
    method: str
    command: tuple[str, ...]
    values: dict[str, list[Any]]
    searched: dict[str, dict[str, Any]] = field(default_factory=dict)

    def cells(self, scale: str = "paper") -> list[Cell]:
        """List the cells of the grid, the last parameter varying fastest.

        Args:
            scale: Value of the macro ``${envvar:SDM_SCALE}``.

        Raises:
            InputError: If this is not a grid, or two cells would have one name.
        """
        if self.method != "grid" or self.searched:
            raise InputError(
                f"{self.path}: method is {self.method}; a local run needs method: grid with values "
                f"only (start the search with: wandb sweep {self.path})"
            )
        cells = []
        for combination in itertools.product(*self.values.values()):
            parameters = {
                key: _at_scale(value, scale)
                for key, value in zip(self.values, combination, strict=True)
            }
            name = cell_name(parameters, {k for k, v in self.values.items() if len(v) > 1})
            cells.append(Cell(name, tuple(self.argv(parameters, scale))))
        names = [cell.name for cell in cells]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{self.path}: two cells have the name {name!r}")
        return cells

    def argv(self, parameters: Mapping[str, Any], scale: str = "paper") -> list[str]:
        """Build the words that follow ``sdm`` for these parameters.

        Raises:
            InputError: If the command does not run ``sdm``.
        """
        if "${program}" not in self.command[:-1]:
            raise InputError(
                f"{self.path}: command lacks the program followed by one of its commands, as in "
                "['${env}', 'sh', '${program}', 'fit', ..., '${args}']"
            )
        known = {**os.environ, "SDM_SCALE": scale}
        given = [f"--{key}={value}" for key, value in parameters.items()]
        words = []
        for word in self.command[self.command.index("${program}") + 1 :]:
            # An unknown variable's name stands for itself, as with wandb.
            word = ENVIRONMENT_MACRO.sub(lambda macro: known.get(macro[1], macro[1]), word)
            words += given if word == "${args}" else [word]
        return with_scaled_files(words, scale)

    def refuse_missing_configs(
        self, cells: Sequence[Cell], scale: str, extra: Sequence[str] = ()
    ) -> None:
        """Refuse cells, or further arguments, that name a config file which does not exist.

        Raises:
            InputError: The message names the file, and the scales at which every cell has its own.
        """
        for name in _missing_configs(extra):
            raise InputError(f"extra: config file {name}: no such file")
        missing = [name for cell in cells for name in _missing_configs(cell.argv)]
        if not missing:
            return
        folders = (Path("configs"), shipped_folder("configs"))
        names = sorted({file.stem for top in folders for file in top.glob("scale/*.yaml")})
        scales = [s for s in names if not any(_missing_configs(c.argv) for c in self.cells(s))]
        raise InputError(
            f"{missing[0]}: no such file, but {self.path} needs it at scale {scale}"
            + (f"; it can run at the scales {', '.join(scales)}" if scales else "")
        )


def with_scaled_files(words: Sequence[str], scale: str) -> list[str]:
    """Put ``--config=X.SCALE.yaml`` behind each ``--config=X.yaml`` that has such a sibling.

    For rows that name a size in pixels, which is another setting at another scale.
    """
    found: list[str] = []
    for word in words:
        found.append(word)
        for name in _config_files([word]):
            path = Path(name)
            sibling = path.with_name(f"{path.stem}.{scale}{path.suffix}")
            if Path(find_config(str(sibling))).is_file():
                found.append(f"--config={sibling}")
    return found


def read_sweep(path: str | Path) -> Sweep:
    """Read a W&B sweep file.

    Raises:
        InputError: If the file is missing, not a mapping, or has a parameter of unknown form.
    """
    file = Path(find_config(str(path)))
    try:
        content = _read_yaml(str(file))
    except FileNotFoundError:
        raise InputError(
            f"{file}: no such file; give a sweep file of experiments/sweeps/"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise InputError(f"{file}: not a W&B sweep file (method, command and parameters)")
    values: dict[str, list[Any]] = {}
    searched: dict[str, dict[str, Any]] = {}
    for key, spec in content["parameters"].items():
        if isinstance(spec, dict) and isinstance(spec.get("values"), list):
            values[key] = spec["values"]
        elif isinstance(spec, dict) and "value" in spec:
            values[key] = [spec["value"]]
        elif isinstance(spec, dict) and ("distribution" in spec or "min" in spec):
            searched[key] = spec
        else:
            raise InputError(f"{file}: parameter {key} has neither value, values nor distribution")
    return Sweep(
        path=file,
        name=str(content.get("name", file.stem)),
        method=str(content.get("method", "grid")),
        command=tuple(str(word) for word in content.get("command") or ()),
        values=values,
        searched=searched,
    )


def cell_name(parameters: Mapping[str, Any], varied: set[str]) -> str:
    """Name a cell: ``A-seed0`` for ``{"config": ".../A.yaml", "model.seed": 0}``.

    A file is named by its stem, except that a checkpoint is named by its run's folder; a number by
    the last part of its flag.
    """
    parts = []
    for key, value in sorted(parameters.items(), key=lambda item: item[0] == "seed_everything"):
        if key not in varied:
            continue
        text = str(value)
        if text.endswith(".ckpt"):
            parents = [p for p in Path(text).parts[:-1] if p != "checkpoints"]
            parts.append(parents[-1] if parents else Path(text).stem)
        elif "/" in text:
            parts.append(Path(text).stem)
        else:
            short = {"seed_everything": "seed", "model.test_iterations": "t"}
            parts.append(short.get(key, key.rsplit(".", 1)[-1]) + text)
    name = re.sub(r"[^A-Za-z0-9._+-]+", "_", "-".join(parts)) or "run"
    return name if len(name) <= 120 else hashlib.sha256(name.encode()).hexdigest()[:16]


def _at_scale(value: Any, scale: str) -> Any:
    if isinstance(value, str) and value.startswith(PAPER_RUNS):
        return f"runs/{scale}/{value.removeprefix(PAPER_RUNS)}"
    return value
