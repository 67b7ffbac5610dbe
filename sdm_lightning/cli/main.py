"""The command line ``sdm COMMAND ...``, and ``main(args)`` to call it from Python.

``fit``, ``validate``, ``test`` and ``predict`` are Lightning's command line over the training
module and the data module (``cli.trainer``). Every other command is a typed function in its own
package: its parser is built from the signature and its help from the docstring. A command's module
is imported only when that command is called, so that ``sdm shards -h`` does not wait for Lightning.
"""

import ast
import importlib
import inspect
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdm_lightning import __version__
from sdm_lightning.cli.errors import did_you_mean, user_errors
from sdm_lightning.cli.help_cache import print_help
from sdm_lightning.errors import InputError
from sdm_lightning.memory import reuse_freed_memory
from sdm_lightning.working_directory import import_from_working_directory

TRAINER_COMMANDS = {
    "fit": "Train a model",
    "validate": "Score a checkpoint on the validation images",
    "test": "Score a checkpoint on the test images, by the frozen protocol",
    "predict": "Run a checkpoint over a data set and write the images",
}

COMMANDS = {
    "demo": "sdm_lightning.demo.run:run_demo",
    "finetune": "sdm_lightning.finetuning.run:finetune",
    "shards": "sdm_lightning.data.shards.packing:pack_shards",
    "index": "sdm_lightning.data.shards.indexing:index_shards",
    "masks": "sdm_lightning.evaluation.mask_sets:write_mask_set",
    "evaluate": "sdm_lightning.evaluation.evaluate:evaluate_folders",
    "inpaint": "sdm_lightning.inference.inpaint:inpaint_files",
    "calibrate": "sdm_lightning.inference.calibrate:calibrate",
    "app": "sdm_lightning.app.serve:serve_app",
    "baseline": "sdm_lightning.inference.baseline:run_baseline",
    "export": "sdm_lightning.inference.export:export_model",
    "push": "sdm_lightning.inference.publishing:push_weights",
    "table": "sdm_lightning.reports.tables:print_table",
    "figure": "sdm_lightning.cli.figures:draw_figure",
    "sweep": "sdm_lightning.sweeps.runner:run_sweep",
    "replay": "sdm_lightning.training.replay:replay_step",
}
"""Every command beside Lightning's four: name -> ``module:function``."""

BARE_WORDS = {"inpaint": ("mask",)}
"""Options that may also be given without their name, after the required words."""


def main(args: Sequence[str] | None = None) -> None:
    """Run one command, as the user's shell does.

    Args:
        args: What follows ``sdm`` on the command line; ``sys.argv[1:]`` if None.

    Raises:
        SystemExit: With status 2 after one ``error: ...`` line for bad input, 130 when interrupted.
            The environment variable ``SDM_DEBUG=1`` lets the exception itself through instead.
    """
    words = list(sys.argv[1:] if args is None else args)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A file name that the terminal cannot show must not end the work on it; stderr does so.
        sys.stdout.reconfigure(errors="backslashreplace")
    with user_errors():
        if not words or words[0] in ("-h", "--help"):
            print(overview())
        elif words[0] == "--version":
            print(f"sdm-lightning {__version__}")
        elif words[0] not in {**TRAINER_COMMANDS, **COMMANDS}:
            raise InputError(unknown_command(words[0]))
        elif words[1:] in (["-h"], ["--help"]):
            print_help(words[0], lambda: run(words))
        else:
            run(words)


def run(words: list[str]) -> None:
    """Run a known command with its options."""
    reuse_freed_memory()
    if words[0] in TRAINER_COMMANDS:
        from sdm_lightning.cli.trainer import run_trainer

        run_trainer(words, TRAINER_COMMANDS)
    else:
        run_command(words[0], words[1:])


def overview() -> str:
    """Return the text of ``sdm -h``: every command with one line of help."""
    lines = ["usage: sdm COMMAND [options]     (sdm COMMAND -h shows its options)", ""]
    lines += ["Train and test; options also from YAML files, --config FILE [--config FILE ...]:"]
    lines += [f"  {name:<10} {text}" for name, text in TRAINER_COMMANDS.items()]
    lines += ["", "Data, results and models:"]
    lines += [f"  {name:<10} {first_line(target)}" for name, target in COMMANDS.items()]
    lines += ["", "SDM_DEBUG=1 shows the traceback of an error instead of one line."]
    return "\n".join(lines)


def unknown_command(word: str) -> str:
    """Return the message for a first word that is not a command."""
    if word.startswith("-"):
        return (
            f"'{word}' comes before the command; write: sdm COMMAND {word} ... (commands: sdm -h)"
        )
    hint = did_you_mean(word, [*TRAINER_COMMANDS, *COMMANDS])
    return f"unknown command '{word}'{hint or '; sdm -h lists the commands'}"


def first_line(target: str) -> str:
    """Return the first line of a command's docstring, without importing its module."""
    module, function = target.split(":")
    path = Path(__file__).parents[1].joinpath(*module.split(".")[1:]).with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    node = next(n for n in body if isinstance(n, ast.FunctionDef) and n.name == function)
    return (ast.get_docstring(node) or "").partition("\n")[0].rstrip(".")


def run_command(name: str, words: list[str]) -> Any:
    """Parse ``words`` by the signature of the command's function, and call it."""
    from jsonargparse import ArgumentParser

    from sdm_lightning.cli.errors import parse_clearly

    if name == "evaluate":
        import_from_working_directory()  # so that --extra_scores my_file.MyScore is found
    module, function_name = COMMANDS[name].split(":")
    function = getattr(importlib.import_module(module), function_name)
    parser = ArgumentParser(
        prog=f"sdm {name}",
        description=_long_help(function),
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_function_arguments(function, as_group=False, as_positional=True, sub_configs=True)
    settings = parse_clearly(parser, spell_out(function, words, BARE_WORDS.get(name, ())))
    return function(**parser.instantiate(settings).as_dict())


def spell_out(function: Any, words: list[str], bare: Sequence[str] = ()) -> list[str]:
    """Write words as jsonargparse takes them.

    ``--overwrite`` alone becomes ``--overwrite=true`` where the argument is a bool; an option that
    takes a list may be given several times; a value may begin with a minus; words
    beyond the required ones become the options named in ``bare``.
    """
    parameters = inspect.signature(function).parameters
    switches, lists, required = set(), set(), 0
    for name, parameter in parameters.items():
        if parameter.annotation in (bool, "bool"):
            switches.add(f"--{name}")
        elif "list[" in str(parameter.annotation):
            lists.add(f"--{name}")
        required += parameter.default is inspect.Parameter.empty
    spelled: list[str] = []
    others = iter(bare)
    takes_value = False
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        option, equals, value = word.partition("=")
        if word in switches and following.lower() not in ("true", "false", "yes", "no"):
            word = f"{word}=true"
        elif option in lists and not takes_value:
            word = f"{option}+{equals}{value}"
        elif not word.startswith("-") and not takes_value:
            required -= 1
            name = next(others, "") if required < 0 else ""
            if name and any(other.partition("=")[0] == f"--{name}" for other in words):
                raise InputError(f"'{word}' and --{name}: give one of them")
            word = f"--{name}={word}" if name else word
        elif re.match(r"-[^-\d.][^=]*$", word) and (os.path.exists(word) or Path(word).suffix):
            raise InputError(f"'{word}' looks like an option; write {os.path.join('.', word)}")
        if takes_value and re.match(r"-\d", word):  # argparse takes -5,-5,20,20 for an option
            word = f"{spelled.pop()}={word}"
        takes_value = word.startswith("-") and "=" not in word and word not in ("-h", "--help")
        spelled.append(word)
    return spelled


def _long_help(function: Any) -> str:
    """Return a function's docstring up to its ``Args:`` section."""
    text = inspect.getdoc(function) or ""
    for section in ("Args:", "Returns:", "Raises:"):
        text = text.split(f"\n{section}\n")[0]
    return text.strip()
