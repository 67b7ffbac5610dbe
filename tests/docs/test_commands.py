"""Every command in the documentation names commands, options and files that exist."""

import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest

from sdm_lightning.cli.main import COMMANDS, TRAINER_COMMANDS, main

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "experiments").rglob("*.md")),
]
BLOCK = re.compile(r"^```bash.*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:sdm|make) [^`]+)`")
FILE = re.compile(r"\b(?:configs|experiments|benchmarks)/[\w./-]+\.(?:yaml|sh|py|sbatch)\b")


def commands(page):
    """Return the words of each ``sdm`` and ``make`` command of a page."""
    text = page.read_text()
    lines = list(INLINE.findall(text))
    for block in BLOCK.findall(text):
        lines += block.replace("\\\n", " ").splitlines()
    found = [
        shlex.split(line, comments=True) for line in lines if re.match(r"\s*(sdm|make) ", line)
    ]
    assert all(found)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_files_exist(page):
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for program, command, *words in commands(page):
        if program == "make":
            goals = [word for word in (command, *words) if "=" not in word]
            assert set(goals) <= set(targets), goals
            continue
        options = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
        if command in TRAINER_COMMANDS or not command.isalpha() or command.isupper():
            continue  # keys of a config; a page whose examples are run tests them
        module, function = COMMANDS[command].split(":")
        known = set(
            inspect.signature(getattr(importlib.import_module(module), function)).parameters
        )
        assert options <= known, f"sdm {command}: {options - known}"
    for name in FILE.findall(page.read_text()):
        if "mine" not in name and not name.isupper():
            assert (ROOT / name).is_file(), name


def trainer_commands():
    """Return the documented commands of the trainer that use shipped configs only."""
    found = {
        tuple(words[1:])
        for page in PAGES
        for words in commands(page)
        if page.parent.name != "extend"  # run by test_examples.py
        and words[1] in TRAINER_COMMANDS
        and "..." not in words
        and any(word.startswith("configs/") for word in words)
    }
    return sorted(words for words in found if not any(word.startswith("runs/") for word in words))


@pytest.mark.slow
@pytest.mark.parametrize("words", trainer_commands(), ids=" ".join)
def test_keys_of_the_trainer_exist(words, workdir):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--print_config"])
    assert ended.value.code in (0, None)
