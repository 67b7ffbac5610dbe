"""What the command line says when something is wrong: one line, with the nearest right word.

jsonargparse finds every mistake, but tells it in several lines, one per way in which a value could
have been read. Here the line that matters is picked out of them.
"""

import argparse
import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from sdm_lightning.errors import InputError


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn bad input into one line on stderr and its exit status.

    Raises:
        SystemExit: Instead of ``InputError`` (its ``exit_status``) and ``KeyboardInterrupt`` (130),
            and where nobody reads the output any more, as in ``sdm table table1 | head`` (141, as
            from the signal). With ``SDM_DEBUG=1`` in the environment the first two are not caught.
    """
    try:
        yield
        sys.stdout.flush()
    except InputError as error:
        if os.environ.get("SDM_DEBUG"):
            raise
        print(f"error: {last_told(str(error))}", file=sys.stderr)
        raise SystemExit(error.exit_status) from error
    except KeyboardInterrupt:
        if os.environ.get("SDM_DEBUG"):
            raise
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # Else Python would try to write the rest once more when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(141) from None


def last_told(message: str) -> str:
    """The user's line of a message; a data worker hands its own over inside a traceback."""
    _, found, told = message.rpartition("InputError: ")
    return " ".join((told if found else message).split())


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word most probably meant, or None where none is near.

    Dotted keys are compared by their last part first, siblings before others: for
    ``model.num_iteration`` that is ``model.diffusion.num_iterations``, not any longer key that
    shares more letters.
    """
    scored = [(_nearness(word, candidate), candidate) for candidate in words]
    score, found = max(scored, default=(0.0, ""))
    return found if score >= 0.65 else None


def _nearness(word: str, candidate: str) -> float:
    leaf, other = word.rpartition(".")[2], candidate.rpartition(".")[2]
    if len(leaf) >= 3 and other.startswith(leaf):
        likeness = 0.9
    else:
        likeness = difflib.SequenceMatcher(None, leaf, other).ratio()
    parents = difflib.SequenceMatcher(None, word.rpartition(".")[0], candidate.rpartition(".")[0])
    return 0.9 * likeness + 0.1 * parents.ratio() if likeness >= 0.6 else 0.0


def parse_clearly(
    parser: ArgumentParser, words: list[str], files: Mapping[str, Any] | None = None
) -> Namespace:
    """Parses command line words.

    Args:
        parser: Made with ``exit_on_error=False``.
        words: What the user wrote.
        files: Content of the config files among them, by name: to say which one is wrong.

    Raises:
        InputError: One line that names the key and what would be right.
    """
    try:
        return parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise InputError(explain(str(error), parser, files)) from error


def explain(
    message: str, parser: ArgumentParser | None = None, files: Mapping[str, Any] | None = None
) -> str:
    """The one line that matters of a jsonargparse message."""
    message = message.removeprefix("error: ").strip()
    keys = option_keys(parser) if parser is not None else []
    keys += [key for content in (files or {}).values() for key in class_keys(content)]
    if match := re.match(r"unrecognized arguments: (.*)", message, re.S):
        word = match[1].split()[0]
        if not word.startswith("-"):
            return f"unexpected word '{word}'; options start with --"
        return _unknown(word.lstrip("-").partition("=")[0], keys, files)
    if match := re.match(
        r"(?:Subcommand '\S+' does not accept option|Option) '([^']*)'(?: is not accepted)?$",
        message,
    ):
        return _unknown(match[1], keys, files)
    if match := re.match(r"Group '(.*?)' does not accept option '(.*?)'", message):
        return _unknown(f"{match[1]}.{match[2]}", keys, files)
    if match := re.match(r"the following arguments are required: (.*)", message, re.S):
        missing = re.sub(r"\b(fit|validate|test|predict)\.", "", match[1])
        configs = "model." in missing or "data." in missing
        return f"missing: {missing}" + ("; a --config FILE can hold them" if configs else "")
    if match := re.match(r'Parser key "config": (?:File|Path) does not exist: \'(.*)\'', message):
        return f"config file '{match[1]}' does not exist"
    return _explain_value(message, files)


def option_keys(parser: ArgumentParser) -> list[str]:
    """Every key that a parser, or the chosen verb's parser below it, takes."""
    keys: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in set(action.choices.values()):
                keys += option_keys(below)
        elif action.dest not in (argparse.SUPPRESS, "help", "print_config", "print_shtab"):
            keys.append(action.dest)
    return keys


def class_keys(content: Any, prefix: str = "") -> Iterator[str]:
    """Keys of the arguments of every class that a config file names by ``class_path``."""
    if not isinstance(content, Mapping):
        return
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from class_keys(value, f"{prefix}{key}.")
            if isinstance(value.get("class_path"), str):
                names = _parameters(value["class_path"])
                yield from (f"{prefix}{key}.init_args.{name}" for name in names)


def _unknown(key: str, keys: Iterable[str], files: Mapping[str, Any] | None) -> str:
    guess = nearest(key, keys)
    hint = f"; did you mean '{guess}'?" if guess else ""
    return f"unknown key '{key}'{_where(key, files)}{hint}"


def _where(key: str, files: Mapping[str, Any] | None) -> str:
    """`` in FILE`` for the last config file that holds the key."""
    for name, content in reversed(list((files or {}).items())):
        value = content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return f" in {name}"
    return ""


def _explain_value(message: str, files: Mapping[str, Any] | None) -> str:
    """One line for a value that does not fit its type; follows nested class paths inwards."""
    key, class_path = "", ""
    expected: list[str] = []
    given, depth = "", 0
    for raw in message.splitlines():
        line = raw.strip().removeprefix("- ")
        indent = len(raw) - len(raw.lstrip())
        if expected and indent < depth:
            # What follows belongs to the union around this value, but for the value itself.
            if line.startswith("Given value type"):
                continue
            if not given and line.startswith("Given value: "):
                given = line.removeprefix("Given value: ")
            break
        if match := re.match(r'Parser key "(.*?)":?\s*(.*)', line):
            key = f"{key}.init_args.{match[1]}" if class_path and key else match[1]
            if match[2]:
                return f"{key}: {match[2]}"
        elif match := re.match(r"Problem with given class_path '(.*?)':", line):
            class_path = match[1]
            expected.clear()  # of the other branches of a union around it
        elif match := re.match(r"Option '(.*?)' is not accepted", line):
            name = f"{key}.init_args.{match[1]}" if key else match[1]
            return _unknown_argument(name, match[1], class_path, files)
        elif match := re.match(r"module '(.*?)' has no attribute '(.*?)'", line):
            return f"{_prefix(key)}{_unknown_class(match[1], match[2])}"
        elif line.startswith(("No module named", "Import path")):
            return (
                f"{_prefix(key)}class_path '{class_path}': {line}"
                if class_path
                else (f"{_prefix(key)}{line}")
            )
        elif match := re.match(r"Expected a dot import path string: (.*)", line):
            return (
                f"{_prefix(key)}'{match[1]}' is no class path; write package.module.Class in full"
            )
        elif match := re.match(r"Expected an? (.*?)(?:\. Got value: (.*))?$", line):
            if not line.startswith("Expected a path but"):
                expected.append(_type_name(match[1]))
                depth = indent
            if match[2] is not None and not given:
                given = match[2]
        elif line and not line.startswith(
            ("Does not validate against", "Subtypes:", "Errors:", "Given value")
        ):
            return f"{_prefix(key)}{line}"
    if expected:
        wanted = " or ".join(sorted(dict.fromkeys(expected), key=lambda name: name == "null"))
        return f"{_prefix(key)}{given!r} is not {wanted}"
    return " ".join(message.split())


def _prefix(key: str) -> str:
    return f"{key}: " if key else ""


def _type_name(printed: str) -> str:
    """``<class 'int'>`` as people say it."""
    names = {
        "NoneType": "null",
        "str": "text",
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
    }
    if match := re.match(r"<class '(.*?)'>", printed):
        return names.get(match[1].rpartition(".")[2], match[1])
    if match := re.match(r"typing\.Literal\[(.*)\]", printed):
        return "one of " + match[1].replace("'", "")
    return printed


def _unknown_argument(key: str, name: str, class_path: str, files: Mapping[str, Any] | None) -> str:
    guess = nearest(name, _parameters(class_path))
    hint = f"; did you mean '{guess}'?" if guess else ""
    return f"unknown key '{key}'{_where(key, files)}, not an argument of {class_path}{hint}"


def _unknown_class(module: str, name: str) -> str:
    try:
        names = [n for n in dir(importlib.import_module(module)) if not n.startswith("_")]
    except ImportError:
        names = []
    guess = nearest(name, names)
    hint = f"; did you mean '{module}.{guess}'?" if guess else ""
    return f"class_path '{module}.{name}' does not exist{hint}"


def _parameters(class_path: str) -> list[str]:
    """Names of a class's constructor arguments, base classes' included."""
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    classes = inspect.getmro(found) if inspect.isclass(found) else (found,)
    names: dict[str, None] = {}
    for one in classes:
        try:
            names.update(dict.fromkeys(inspect.signature(one).parameters))
        except (TypeError, ValueError):
            continue
    return [n for n in names if n not in ("self", "args", "kwargs")]
