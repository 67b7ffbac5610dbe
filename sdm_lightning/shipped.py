"""Where shipped files are: weights in the package, YAML files in a checkout or the package."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ASSETS = PACKAGE / "assets"
"""The packaged weights, and what is known of their training."""
SHIPPED = ("configs", "experiments")


def shipped_folder(name: str) -> Path:
    """Return ``configs`` or ``experiments`` of the checkout, or the copy inside the package."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / name).is_dir():
        return checkout / name
    return PACKAGE / name


def find_config(name: str) -> str:
    """Find a config file from any working directory.

    ``configs/model/demo.yaml`` and ``experiments/table1/A.yaml`` work from any folder: a file of
    that name in the working directory comes first, then the one that is shipped. Every other name
    is returned as it is.
    """
    path = Path(name)
    # YAML in place of a name may be longer than the system lets it look for.
    if path.is_absolute() or path.parts[:1] not in {(top,) for top in SHIPPED} or path.exists():
        return name
    shipped = shipped_folder(path.parts[0]).joinpath(*path.parts[1:])
    return str(shipped) if shipped.is_file() else name
