"""Errors on the command line: one line each, with the nearest known word and the file's name.

jsonargparse reports every mistake, but a value of a union or of a nested class takes it several
lines. Here the key is put together and the lines about it are joined into one.
"""

import argparse
import difflib
import importlib
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from sdm_lightning.cli.configs import LINKED, holds_key, parsed_as_utf8
from sdm_lightning.cli.faults import explain_fault
from sdm_lightning.errors import InputError


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn bad input and known faults of the machine into one line on stderr and an exit status.

    Raises:
        SystemExit: Instead of ``InputError`` (its ``exit_status``), a fault that
            ``explain_fault`` knows (1) and ``KeyboardInterrupt`` (130), and where nothing reads
            the output any more, as in ``sdm table table1 | head`` (141, as from the signal). With
            ``SDM_DEBUG=1`` in the environment all but the last are not caught.
    """
    try:
        yield
        if sys.stdout is not None:  # it was closed before we started
            sys.stdout.flush()
    except InputError as error:
        if os.environ.get("SDM_DEBUG"):
            raise
        print(f"error: {final_message(error)}", file=sys.stderr)
        raise SystemExit(error.exit_status) from error
    except KeyboardInterrupt:
        if os.environ.get("SDM_DEBUG"):
            raise
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # Otherwise Python would try to write the rest when it exits, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(141) from None
    except Exception as error:
        line = explain_fault(error)
        if line is None or os.environ.get("SDM_DEBUG"):
            raise
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(1) from error


def final_message(error: InputError) -> str:
    """Return an error's own message; torch puts a data worker's at the end of a traceback."""
    return " ".join(str(error).rpartition(f"{type(error).__name__}: ")[2].split())


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the word most probably meant, or None if none is similar.

    Dotted keys are compared by their last part first, siblings before others: for
    ``model.num_iteration`` that is ``model.diffusion.num_iterations``, not any longer key that
    shares more letters.
    """
    scored = [(_similarity(word, candidate), candidate) for candidate in words]
    score, found = max(scored, default=(0.0, ""))
    return found if score >= 0.65 else None


def _similarity(word: str, candidate: str) -> float:
    leaf, other = word.rpartition(".")[2], candidate.rpartition(".")[2]
    if len(leaf) >= 3 and other.startswith(leaf):
        similar = 0.9
    else:
        similar = difflib.SequenceMatcher(None, leaf, other).ratio()
    parents = difflib.SequenceMatcher(None, word.rpartition(".")[0], candidate.rpartition(".")[0])
    return 0.9 * similar + 0.1 * parents.ratio() if similar >= 0.6 else 0.0


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return a hint to append to a message, empty if no word is similar."""
    guess = nearest(word, words)
    return f"; did you mean '{guess}'?" if guess else ""


def parse_clearly(
    parser: ArgumentParser, words: list[str], files: Mapping[str, Any] | None = None
) -> Namespace:
    """Parse command line words.

    Args:
        parser: Made with ``exit_on_error=False``.
        words: What the user wrote.
        files: Content of the config files among them, by name: to say which one is wrong.

    Raises:
        InputError: One line that names the key and what would be right.
    """
    try:
        with parsed_as_utf8():
            return parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise InputError(explain(str(error), parser, files)) from error


def explain(
    message: str, parser: ArgumentParser | None = None, files: Mapping[str, Any] | None = None
) -> str:
    """Put a jsonargparse message into one line.

    Args:
        message: Message of its exception.
        parser: Whose keys a mistyped one is compared with.
        files: Content of the config files, by name.
    """
    if match := re.search(r"unrecognized arguments: ([^-]\S*)", message):
        photos = parser and parser.prog in ("sdm inpaint", "sdm finetune", "sdm calibrate")
        hint = ", and several files are given as their folder" if photos else ""
        return f"unexpected word '{match[1]}'; options start with --{hint}"
    if match := re.search(r"arguments are required: (.*)", message):
        missing = re.sub(r"\b(fit|validate|test|predict)\.", "", match[1])
        if keys := re.findall(r'Parser key "(.*?)"', message):
            prefix = "".join(f"{key}.init_args." for key in keys)
            return f"missing: {prefix}{missing.replace(', ', f', {prefix}')}"
        return f"missing: {missing}" + ("; a --config FILE can hold them" if "." in missing else "")
    if match := re.search(r'"config": (?:File|Path) does not exist: \'(.*)\'', message):
        return f"config file '{match[1]}' does not exist"
    # A key inside a class's arguments comes after that of the class.
    keys = re.findall(r'Parser key "(.*?)"', message)
    option = r"(?:Group '(.*?)' does not accept o|[Oo])ption '(.*?)'"
    if match := re.search(rf"{option}|unrecognized arguments: -+([^\s=]+)", message):
        name = ".".join(part for part in match.groups() if part)
        return _unknown_key(".init_args.".join([*keys, name]), name, message, parser, files)
    key = ".init_args.".join(keys)
    key = LINKED.get(key, key)  # the user gave that one
    return (f"{key}: " if key else "") + _problem(message, keys[-1] if keys else "")


def _problem(message: str, key: str) -> str:
    """Return what is wrong with the value of the innermost key."""
    if match := re.search(r"module '(\S+)' has no attribute '(\S+)'", message):
        names = [f"{match[1]}.{n}" for n in dir(importlib.import_module(match[1])) if n[0] != "_"]
        path = f"{match[1]}.{match[2]}"
        return f"class_path '{path}' does not exist{did_you_mean(path, names)}"
    inner = message.rpartition(f'Parser key "{key}"')[2].lstrip(":")
    if match := re.search(r"sub-config file (\S+\.py): ", inner):
        return f"{match[1]} is a Python file; write module and class: {Path(match[1]).stem}.CLASS"
    if match := re.search(r"is abstract\n(?s:.*)Given value: (?:.*class_path=')?([\w.]+)", inner):
        methods = getattr(pkgutil.resolve_name(match[1]), "__abstractmethods__", ())
        return f"{match[1]} lacks the method {' and '.join(sorted(methods))}"
    lines = [line.strip(" -") for line in inner.splitlines()]
    noise = ("Does not validate", "Subtypes:", "Errors:", "Given value", "Expected a path")
    said = [line for line in lines if line and not line.startswith(noise)]
    for line, following in zip(said, [*said[1:], ""], strict=True):
        if not re.match(r"Expected an? (?!dot)", line):
            text = f"{line} {following}" if line.endswith(":") else line
            return text.removeprefix("Problem with given ")
    # Less indented lines are other branches of a union around the class that the key belongs to.
    expected = re.findall(
        r"^([ -]*)Expected an? (?!path)(.*?)(?:\. Got value: (.*?))?(?:\. Got value: .*)?$",
        inner,
        re.M,
    )
    if not expected:
        return "is invalid"
    indent, _, value = expected[0]
    types = dict.fromkeys(_type_name(kind) for place, kind, _ in expected if place == indent)
    if types.pop("null", 1) is None:  # last, wherever this Python or jsonargparse has it
        types["null"] = None
    given = re.search(r"Given value: (.*)", inner)
    return f"expected {' or '.join(types)}, got {value or (given[1] if given else None)!r}"


def _type_name(printed: str) -> str:
    """Shorten ``<class 'int'>`` to ``int`` and ``typing.Literal['a', 'b']`` to ``a or b``."""
    if match := re.match(r"<class '(?:.*\.)?(\w+)'>", printed):
        return "null" if match[1] == "NoneType" else match[1]
    if match := re.match(r"typing\.Literal\[(.*)\]", printed):
        return match[1].replace("'", "").replace(", ", " or ")
    return printed


def _unknown_key(
    key: str,
    name: str,
    message: str,
    parser: ArgumentParser | None,
    files: Mapping[str, Any] | None,
) -> str:
    known = option_keys(parser) if parser is not None else []
    if key in known:  # an argument without dashes, such as a folder
        return f"unexpected option --{key}; write its value without it"
    known += [known_key for content in (files or {}).values() for known_key in class_keys(content)]
    for class_path in re.findall(r"Problem with given class_path '(.*?)'", message):
        known += [key.removesuffix(name) + argument for argument in _parameters(class_path)]
    holders = [file for file, content in (files or {}).items() if holds_key(content, key)]
    where = f" in {holders[-1]}" if holders else ""
    return f"unknown key '{key}'{where}{did_you_mean(key, known)}"


def option_keys(parser: ArgumentParser) -> list[str]:
    """List every key that a parser, or the chosen command's parser below it, takes."""
    keys: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in set(action.choices.values()):
                keys += option_keys(below)
        elif action.dest not in (argparse.SUPPRESS, "help", "print_config", "print_shtab"):
            keys.append(action.dest)
    return keys


def class_keys(content: Any, prefix: str = "") -> Iterator[str]:
    """Yield the keys of the arguments of every class that a config file names."""
    if not isinstance(content, Mapping):
        return
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from class_keys(value, f"{prefix}{key}.")
            for name in _parameters(value.get("class_path")):
                yield f"{prefix}{key}.init_args.{name}"


def keys_of_class(content: Any, class_type: type, key: str = "") -> Iterator[str]:
    """Yield the keys under which settings name a class."""
    if isinstance(content, list):
        for index, item in enumerate(content):
            yield from keys_of_class(item, class_type, f"{key}[{index}]")
    elif isinstance(content, Mapping):
        path = content.get("class_path")
        if isinstance(path, str) and pkgutil.resolve_name(path) is class_type:
            yield key
        for name, value in content.items():
            yield from keys_of_class(value, class_type, f"{key}.{name}" if key else name)


def _parameters(class_path: Any) -> list[str]:
    """Return the names of a class's constructor arguments, none if it cannot be imported."""
    try:
        return list(inspect.signature(pkgutil.resolve_name(class_path)).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return []
