"""What is checked before a file from anywhere is read: that it is one, that it lies where it should, and that it fits
into memory."""

import os
import stat
from pathlib import Path

import numpy as np

from ..settings import UserError

Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # images uint8 N x C x H x W, labels int64 N; twice
SHARE = 0.15  # of the memory, for data


def data_file(path: Path, root: Path) -> Path:
    """The path, if it is a regular file that really lies below `root`. Raises: UserError."""
    _inside(path, root)
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path} is no regular file.")
    return path


def _inside(path: Path, root: Path) -> None:
    """Raises: UserError when a path does not exist, or is a link that leads out of `root`."""
    try:
        path.stat()
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # missing, a loop of links, a name that cannot be
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not inside:
        raise UserError(f"{path} is a link that leads out of {root}. Put what it leads to there.")


def fit_memory(n_bytes: int, what: object) -> None:
    """Raises: UserError when data of that size are more than SHARE of this machine's memory: features and views of them
    take several times as much."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not told by this system
        memory = 2**36
    if n_bytes > SHARE * memory:
        raise UserError(
            f"{what} holds {n_bytes / 1e9:,.1f} GB; this machine has {memory / 1e9:,.1f} GB of memory, of which data "
            f"may fill {100 * SHARE:.0f} %. Use fewer or smaller images."
        )
