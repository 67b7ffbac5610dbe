"""The floors of the house, read from the import statements."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sdm_lightning"
GROUND_FLOOR = ("diffusion", "models", "losses", "metrics")
SHARED = ("sdm_lightning.errors", "sdm_lightning.seeding", "sdm_lightning")
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Names of the modules that a file imports, wherever in it, but not for typing alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    """``models`` for ``sdm_lightning/models/generator.py``; the stem for files at the top."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def rooms_used(path: Path) -> set[str]:
    """Rooms of this package that a file imports from."""
    found = {n.split(".")[1] for n in imported(path) if n.startswith("sdm_lightning.")}
    return {name for name in found if (PACKAGE / name).is_dir()}


def libraries_used(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_floors(path: Path) -> None:
    here = room(path)
    used = rooms_used(path) - {here}
    libraries = libraries_used(path)
    if here in GROUND_FLOOR:
        assert not used, f"ground floor: {here} may not import {sorted(used)}"
        assert not libraries & {"lightning", "pytorch_lightning", "wandb"}
        if here != "metrics":
            assert "torchmetrics" not in libraries
    if here == "data":
        assert not used, f"data stands beside the ground floor, yet imports {sorted(used)}"
    if here == "inference":
        assert "training" not in used, "inference may not need the training code"
    if "lightning" in libraries:
        allowed = here == "training" or here.startswith("cli") or path.name == "datamodule.py"
        assert allowed, "Lightning belongs into training/, data/datamodule.py and cli*.py"
    if not here.startswith("cli") and here != "__main__":
        doors = {n for n in imported(path) if n.startswith("sdm_lightning.cli")}
        assert not doors, f"nothing imports the command line, yet {sorted(doors)}"
    assert not libraries & {"experiments", "benchmarks", "tests"}


def test_reports_read_results_only() -> None:
    for path in (PACKAGE / "reports").glob("*.py"):
        assert not rooms_used(path) & {"training", "models", "losses", "diffusion"}, path


def test_the_reader_sees_a_forbidden_import(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from sdm_lightning.training.module import SDMModule\n")
    assert rooms_used(path) == {"training"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_have_one_subject(path: Path) -> None:
    """A file that grows beyond this tells two stories."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450
