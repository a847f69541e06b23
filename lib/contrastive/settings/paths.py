"""Where the checkout, data sets, runs and grids lie."""

import os
from pathlib import Path

from .errors import UserError


def checkout() -> Path | None:
    """The root of the source checkout that this package is used from, or None when it is installed elsewhere."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "notebooks").is_dir() and (root / "pyproject.toml").is_file() else None


def grids_folder() -> Path:
    """Where the grids lie that come with the project. Raises: UserError when it is used without its checkout."""
    root = checkout()
    if root is None:
        raise UserError("the grids are not installed with the package: run this from a checkout of the project.")
    return root / "notebooks" / "grids"


def grid_names() -> list[str]:
    """The names of these grids; none without a checkout."""
    return sorted(path.stem for path in grids_folder().glob("*.yaml")) if checkout() else []


def folder_from_environment(variable: str, default: str) -> Path:
    """The folder that an environment variable names, else `default` in the checkout (or the current folder).

    A relative path counts from the current folder and, if there is nothing there, from the checkout, so that a
    notebook's kernel, which starts inside `notebooks/`, finds the same folder as the command line.
    """
    path = Path(os.path.expanduser(os.environ.get(variable) or default))
    root = checkout()
    if path.is_absolute() or root is None or (os.environ.get(variable) and path.exists()):
        return path.absolute()
    return root / path


def data_root() -> Path:
    """Where data sets lie and are downloaded to: `$CONTRASTIVE_DATA`, else `data/`."""
    return folder_from_environment("CONTRASTIVE_DATA", "data")


def runs_root() -> Path:
    """Where runs are kept: `$CONTRASTIVE_RUNS`, else `runs/`."""
    return folder_from_environment("CONTRASTIVE_RUNS", "runs")


def absolute(path: str) -> str:
    """A path that means the same wherever a notebook's kernel starts."""
    return str(Path(os.path.expanduser(path)).resolve())
