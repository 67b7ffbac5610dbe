"""The dependency rules of docs/architecture.md, read from the import statements."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import sdm_lightning

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sdm_lightning"
FILES = sorted(PACKAGE.rglob("*.py"))

# What each package may import beside itself; a package that is not named may import everything
# but the command line and the demo.
ALLOWED: dict[str, set[str]] = {
    "diffusion": set(),
    "models": {"features"},
    "features": set(),
    "losses": {"features"},
    "metrics": {"features"},
    "data": set(),
    "evaluation": {"data", "features", "metrics"},
    "inference": {"data", "diffusion", "features", "metrics"},
    "app": {"data", "inference"},
    "training": {"data", "diffusion", "evaluation", "features", "inference", "losses", "metrics"},
    "reports": set(),
    "sweeps": {"data", "reports"},
}
PLAIN_TORCH = {"diffusion", "models", "losses", "metrics", "features"}
ENTRY_POINTS = {"cli", "demo", "finetuning"}


def imported(path: Path) -> Iterator[str]:
    """Names of the modules that a file imports, wherever in it, type checking included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(path: Path) -> str:
    """``models`` for ``sdm_lightning/models/generator.py``; the stem for files at the top."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def packages_used(path: Path) -> set[str]:
    """Packages inside ``sdm_lightning`` that a file imports from."""
    found = {n.split(".")[1] for n in imported(path) if n.startswith("sdm_lightning.")}
    return {name for name in found if (PACKAGE / name).is_dir()}


def libraries_used(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def forbidden_imports(path: Path) -> set[str]:
    """Packages and libraries that a file imports and may not."""
    here = package_of(path)
    used = packages_used(path) - {here}
    libraries = libraries_used(path)
    found = libraries & {"experiments", "benchmarks", "tests"}
    if here in ALLOWED:
        found |= used - ALLOWED[here]
    if here in PLAIN_TORCH:
        found |= libraries & {"pytorch_lightning", "wandb"}
        if here != "metrics":
            found |= libraries & {"torchmetrics"}
    if here not in ("training", "cli") and path.name != "datamodule.py":
        found |= libraries & {"lightning"}
    if here not in (*ENTRY_POINTS, "__main__"):
        found |= used & ENTRY_POINTS
    return found


def test_dependency_rules() -> None:
    found = {str(path.relative_to(PACKAGE)): forbidden_imports(path) for path in FILES}
    assert not {path: names for path, names in found.items() if names}


def test_a_forbidden_import_inside_a_function_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from sdm_lightning.training.module import SDMModule\n")
    assert packages_used(path) == {"training"}


def test_files_have_one_subject() -> None:
    """A longer file holds more than one subject, and packages are two levels deep at most."""
    assert [p for p in FILES if len(p.read_text(encoding="utf-8").splitlines()) > 400] == []
    assert [p for p in FILES if len(p.relative_to(PACKAGE).parts) > 3] == []


def test_public_names_exist_and_cost_nothing_until_used() -> None:
    for name in sdm_lightning.__all__:
        assert getattr(sdm_lightning, name).__module__.startswith("sdm_lightning.")
    code = "import sys, sdm_lightning; print({'torch', 'lightning', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
