"""The container file: a linter, and whether what it names exists in this version."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sdm_lightning.app.serve import serve_app
from sdm_lightning.cli.main import COMMANDS, spell_out

ROOT = Path(__file__).parents[1]
FILE = ROOT / "containers" / "Containerfile"
HADOLINT = shutil.which("hadolint") or shutil.which(
    "hadolint", path=str(Path(sys.executable).parent)
)


def test_linted() -> None:
    if HADOLINT is None:
        pytest.skip("hadolint is not installed")
    # DL3013: the wheel's own bounds hold; an image pins what it is built of by its digest.
    done = subprocess.run(
        [HADOLINT, "--no-color", "--ignore", "DL3013", str(FILE)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_starts_a_command_that_exists(tmp_path: Path) -> None:
    parse = pytest.importorskip("dockerfile_parse", reason="dockerfile-parse is not installed")
    parser = parse.DockerfileParser(str(tmp_path))
    parser.content = FILE.read_text(encoding="utf-8")
    last = {part["instruction"]: part["value"] for part in parser.structure}
    assert json.loads(last["ENTRYPOINT"]) == ["sdm"]
    assert last["USER"] == "1000"
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", parser.baseimage)
    command, *words = json.loads(last["CMD"])
    assert command in COMMANDS
    assert spell_out(serve_app, words) == words
    options = {word.removeprefix("--") for word in words[::2]}
    assert options <= set(inspect.signature(serve_app).parameters)
    port = words[words.index("--port") + 1]
    assert last["EXPOSE"] == port
    assert f"127.0.0.1:{port}" in last["HEALTHCHECK"]
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r"\.whl\)\[(\w+)\]", parser.content):
        assert re.search(rf"^{extra} = \[", pyproject, re.MULTILINE)


def test_the_build_context_is_the_wheel_alone() -> None:
    kept = [x for x in (ROOT / ".dockerignore").read_text().splitlines() if not x.startswith("#")]
    assert kept == ["*", "!dist/*.whl"]
