"""Modules of one's own, in the folder where a command is started."""

import os
import sys


def import_from_working_directory() -> None:
    """Let Python find modules in the working directory, after all others."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
