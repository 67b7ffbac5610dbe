"""Help texts kept on disk: to print one anew, torch and Lightning are imported for seconds."""

import contextlib
import hashlib
import io
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import sdm_lightning
from sdm_lightning.files import write_atomically

# Beside this package, what the texts are made by.
_LIBRARIES = ("jsonargparse", "lightning", "torch")


def print_help(command: str, show: Callable[[], None]) -> None:
    """Print a command's help: the kept text where it is still valid, else that of ``show``.

    Args:
        command: Name of the command.
        show: Prints the help on stdout; it may end with ``SystemExit``, as argparse does.
    """
    columns = shutil.get_terminal_size().columns
    file, state = _folder() / f"{command}-{columns}.txt", _state()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        kept, _, text = file.read_text(encoding="utf-8").partition("\n")
        if kept == state:
            print(text, end="")
            return
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            show()
    except SystemExit as end:
        if end.code:
            raise
    print(printed.getvalue(), end="")
    with contextlib.suppress(OSError):  # a home that cannot be written to only costs time
        write_atomically(file, f"{state}\n{printed.getvalue()}")


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "sdm_lightning" / "help"


def _state() -> str:
    """Hash everything that a help text depends on: sources, libraries, interpreter."""
    root = Path(sdm_lightning.__file__).parent
    digest = hashlib.sha256(f"{sys.version} {root}".encode())
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            digest.update(f"{name} {version(name)}".encode())
    for path in sorted(root.rglob("*.py")):
        found = path.stat()
        digest.update(f"{path} {found.st_mtime_ns} {found.st_size}".encode())
    return digest.hexdigest()
