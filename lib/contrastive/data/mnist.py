"""MNIST's four files: found, unpacked or downloaded."""

import io
import os
import sys
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from ..settings import RunError, UserError
from ..storage.files import atomic_write
from .idx import BROKEN_ARCHIVE, IDX_FILES, LARGEST, unpack, unpack_originals

STALL_SECONDS = 8  # without a byte, after which a mirror counts as dead


class NoNetworkError(Exception):
    """Why MNIST could not be downloaded."""


def ensure_mnist(root: Path) -> None:
    """Have the four MNIST files under `root`, from torchvision's mirrors if need be.

    Raises: NoNetworkError; UserError when what lies there is something else, or cannot be written.
    """
    raw = root / "MNIST" / "raw"
    unpack_originals(raw)
    if any((raw / name).exists() for name in IDX_FILES):
        return  # never download over what somebody put there: check_idx names what is missing or damaged
    if why := os.environ.get("CONTRASTIVE_OFFLINE"):
        raise NoNetworkError("CONTRASTIVE_OFFLINE is set" if why == "1" else why)
    from torchvision.datasets import MNIST  # takes seconds to import, so only where it is needed

    print(f"Fetching MNIST into {raw}", file=sys.stderr)
    files = {name: _fetch(list(MNIST.mirrors), name) for name in IDX_FILES}
    try:
        raw.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            atomic_write(raw / name, content)
    except BaseException as error:
        for name in files:  # some of them alone would pass for what somebody put there
            with suppress(OSError):
                (raw / name).unlink()
        if not isinstance(error, (OSError, RunError)):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to {raw}: {reason}. Set CONTRASTIVE_DATA to a folder.") from None


def _fetch(mirrors: list[str], name: str) -> bytes:
    """A file of MNIST, unpacked, from the first mirror that has it. Raises: NoNetworkError, with what the last one
    said."""
    why: object = "there is none"
    for mirror in mirrors:
        try:
            with urllib.request.urlopen(f"{mirror}{name}.gz", timeout=STALL_SECONDS) as response:
                return unpack(io.BytesIO(response.read(LARGEST)), name)
        except (*BROKEN_ARCHIVE, HTTPException) as error:
            why = getattr(error, "reason", error)
    raise NoNetworkError(f"its download failed: no mirror can be reached, or none has {name} ({why})")
