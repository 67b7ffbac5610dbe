"""Config files on the command line, read once before the command line is parsed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonargparse

from sdm_lightning.errors import InputError, parse_yaml
from sdm_lightning.shipped import find_config

LINKED = {
    "model.discriminator.init_args.resolution": "data.resolution",
    "model.seed": "seed_everything",
    "data.seed": "seed_everything",
}
"""Linked key -> key that sets it."""


def read_config_files(words: list[str]) -> dict[str, Any]:
    """Read every config file that the words name.

    Raises:
        InputError: If one is missing or is not a YAML mapping.
    """
    files: dict[str, Any] = {}
    for name in config_names(words):
        path = Path(name)
        if name.lstrip().startswith("{"):
            continue
        if not path.is_file():
            raise InputError(f"config file '{name}' does not exist")
        try:
            content = parse_yaml(path.read_bytes().decode())
        except ValueError as error:
            raise InputError(f"config file '{name}': not YAML: {error}") from error
        if not isinstance(content, dict):
            raise InputError(f"config file '{name}' holds no keys")
        files[name] = content
    return files


@contextmanager
def parsed_as_utf8() -> Iterator[None]:
    """Let jsonargparse read files as UTF-8, as we do, and not in the encoding of the locale."""
    by_locale = jsonargparse.Path.read_text

    def read_text(self: jsonargparse.Path) -> str:
        path = Path(self.absolute)
        return path.read_text(encoding="utf-8") if path.exists() else by_locale(self)

    jsonargparse.Path.read_text = read_text  # type: ignore[method-assign]
    try:
        yield
    finally:
        jsonargparse.Path.read_text = by_locale  # type: ignore[method-assign]


def config_names(words: list[str]) -> list[str]:
    """List the words that follow ``--config`` or ``-c``."""
    names = []
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word in ("--config", "-c"):
            if following is not None:
                names.append(following)
        elif word.startswith("--config="):
            names.append(word.partition("=")[2])
    return names


def locate_config_files(words: list[str]) -> list[str]:
    """Replace the names of shipped config files by their paths."""
    located: list[str] = []
    for word in words:
        if located and located[-1] in ("--config", "-c"):
            word = find_config(word)
        elif word.startswith("--config="):
            word = f"--config={find_config(word.partition('=')[2])}"
        located.append(word)
    return located


def refuse_linked(words: list[str], files: dict[str, Any]) -> None:
    """Refuse a key that is linked to another, which would overwrite it silently.

    Raises:
        InputError: If one is given; the message names the key that sets it.
    """
    for target, source in LINKED.items():
        short = target.replace(".init_args.", ".")
        flags = [w for w in words if w.partition("=")[0] in (f"--{target}", f"--{short}")]
        holders = [name for name, content in files.items() if holds_key(content, target)]
        if flags or holders:
            where = f" in {holders[-1]}" if holders else ""
            raise InputError(f"key '{target}'{where} is linked to '{source}'; set that instead")


def holds_key(content: Any, key: str) -> bool:
    """Return whether nested mappings hold a dotted key; their own keys may be dotted too."""
    return isinstance(content, dict) and (
        key in content
        or any(
            holds_key(below, key.removeprefix(f"{name}."))
            for name, below in content.items()
            if key.startswith(f"{name}.")
        )
    )


def max_time(minutes: float) -> str:
    """Write minutes as ``--trainer.max_time`` takes them: DD:HH:MM:SS, a second at least."""
    days, rest = divmod(max(1, round(minutes * 60)), 86400)
    return f"{days:02d}:{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
