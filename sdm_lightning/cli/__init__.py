"""The command line: ``sdm VERB ...``; ``main(args)`` is what the shell calls."""

from sdm_lightning.cli.main import main

__all__ = ["main"]
