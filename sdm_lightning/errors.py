"""Exceptions whose message is meant for the user: one line, without a traceback."""

import json
import pickle
import textwrap
from typing import Any


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


def one_line(error: BaseException, most: int = 160) -> str:
    """Shorten another library's message to one line, to quote it in a message of our own.

    Args:
        error: The exception.
        most: Longest result, in characters.

    Returns:
        The exception's class and message, such as ``RuntimeError: size mismatch ...``.
    """
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return textwrap.shorten(text, most, placeholder=" ...")


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
