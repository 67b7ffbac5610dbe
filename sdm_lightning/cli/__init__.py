"""The command line: ``sdm COMMAND ...``; ``main(args)`` is what the shell calls."""

from sdm_lightning.cli.main import main

__all__ = ["main"]
