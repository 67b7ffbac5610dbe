"""Where the YAML files of ``configs/`` are: in a checkout, or inside an installed package."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def configs_folder() -> Path:
    """``configs/`` of the checkout that this package lies in, else the copy in the package."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "configs").is_dir():
        return checkout / "configs"
    return PACKAGE / "configs"


def find_config(name: str) -> str:
    """A config file as it is found from here.

    ``configs/model/demo.yaml`` works from any folder: a file of that name in the working directory
    comes first, then the one that is shipped. Every other name is returned as it is.
    """
    path = Path(name)
    if path.exists() or path.is_absolute() or path.parts[:1] != ("configs",):
        return name
    shipped = configs_folder().joinpath(*path.parts[1:])
    return str(shipped) if shipped.is_file() else name
