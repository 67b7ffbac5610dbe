"""Exceptions whose message is meant for the user: one line, without a traceback."""

import json
import pickle
import textwrap
from typing import Any

PREEMPTED = 75
"""Exit status of what a signal stopped, for a launch script to start it again (EX_TEMPFAIL)."""


class InputError(ValueError):
    """Bad input, reported in one line.

    The message names the file or key, what is wrong with it, and what would be right.
    The command line prints it as ``error: ...`` and exits with ``exit_status``.
    """

    exit_status = 2


class DivergedError(InputError):
    """Training produced NaN or infinity; the command line exits with a status of its own."""

    exit_status = 3


def load_failure(error: BaseException) -> str:
    """Summarise on one line why ``torch.load`` refused a file.

    PyTorch's own message about foreign classes advises loading without restriction, which runs
    whatever code the file carries; it is not passed on.
    """
    if isinstance(error, pickle.UnpicklingError):
        return "not a PyTorch file, or it holds objects other than tensors and plain values"
    return one_line(error)


def one_line(error: BaseException) -> str:
    """Shorten another library's message to one line, to quote it in a message of our own.

    Args:
        error: The exception.

    Returns:
        The exception's class and message in at most 160 characters, such as
        ``RuntimeError: size mismatch ...``.
    """
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return textwrap.shorten(text, 160, placeholder=" ...")


def described(value: Any) -> str:
    """Return the kind and shape of what an extension returned, for messages about it."""
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {', '.join(map(described, value)) or 'nothing'}"
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"a tensor {tuple(shape)}"


def require_one_per_image(value: Any, num_images: int | None, source: str) -> None:
    """Refuse what an extension returned unless it is one number per image, of any number if None.

    Raises:
        InputError: Naming the source.
    """
    shape = getattr(value, "shape", ())
    if len(shape) != 1 or num_images not in (None, *shape):
        raise InputError(
            f"{source} returned {described(value)}; it must return one number per image, "
            f"({num_images or 'B'},)"
        )


def parse_json(text: str | bytes) -> Any:
    """Parse JSON from outside.

    Raises:
        ValueError: It is no JSON, in whichever way; the parser's own errors for deep nesting
            (``RecursionError``) and other encodings become this one.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_yaml(text: str | bytes) -> Any:
    """Parse YAML of plain values: no tag that builds an object.

    Raises:
        ValueError: It is no YAML, with the line where it ends being one.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or one_line(error)
        raise ValueError(f"{where}{problem}") from error
    except Exception as error:  # values such as 2020-99-99 raise what their constructors raise
        raise ValueError(one_line(error)) from error
