"""MNIST's four IDX files: reading, checking and downloading them."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from .readers import data_file, fit_memory
from ..settings.model import UserError

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
# MD5 of the uncompressed files of the original MNIST, to notice when something else bears its names.
ORIGINAL_MD5 = dict(
    zip(
        IDX_FILES,
        (
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
        strict=True,
    )
)
PROBE_SECONDS = 8  # for finding out whether any mirror answers
STALL_SECONDS = 15  # without a byte, after which a mirror counts as dead


# --- IDX files ------------------------------------------------------------------------------------------------


def _idx_shape(path: Path) -> tuple[int, ...]:
    """Sizes that the header of an IDX file of bytes tells. Raises: UserError when file and header disagree."""
    n_sizes = 3 if "idx3" in path.name else 1
    fit_memory(path.stat().st_size, path)
    with path.open("rb") as file:
        header = file.read(4 + 4 * n_sizes)
    if len(header) < 4 or header[:3] != b"\0\0\x08" or header[3] not in (1, 3):
        raise UserError(f"{path} is not an IDX file of bytes. Replace it with the original file.")
    if header[3] != n_sizes:
        kinds = {1: "labels", 3: "images"}
        raise UserError(
            f"{path} holds {kinds[header[3]]}, not {kinds[n_sizes]}: files were swapped. Put each under its own name."
        )
    sizes = tuple(int.from_bytes(header[4 * i : 4 * i + 4], "big") for i in range(1, n_sizes + 1))
    told, found = 4 + 4 * n_sizes + int(np.prod(sizes, dtype=object)), path.stat().st_size
    if len(header) < 4 + 4 * n_sizes or told != found:
        state = "truncated" if found < told else "too long"
        raise UserError(
            f"{path} is {state}: its header tells {told:,} bytes, it has {found:,}. Replace it with the original file."
        )
    if 0 in sizes:
        raise UserError(f"{path} holds no data. Replace it with the original file.")
    return sizes


def check_idx(folder: Path, root: Path) -> None:
    """Check the four IDX files of a folder, by name, size and content, and that none leads out of `root` as a link.

    Raises: UserError naming the file.
    """
    shapes = {}
    for name in IDX_FILES:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name} is missing. A data folder holds {', '.join(IDX_FILES)}; or images in train/<class>/ "
                "and test/<class>/."
            )
        try:
            shapes[name] = _idx_shape(data_file(folder / name, root))
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read: {error.strerror}.") from None
    for images, labels in (IDX_FILES[:2], IDX_FILES[2:]):
        if shapes[images][0] != shapes[labels][0]:
            raise UserError(
                f"{folder / labels} has {shapes[labels][0]:,} labels for the {shapes[images][0]:,} images of {images}: "
                "files were swapped or are of different data sets. Put each under its own name."
            )
    if shapes[IDX_FILES[0]][1:] != shapes[IDX_FILES[2]][1:]:
        raise UserError(f"{folder / IDX_FILES[2]} has images of another size than {IDX_FILES[0]}.")
    originals = {md5: name for name, md5 in ORIGINAL_MD5.items()}
    for name in IDX_FILES:
        true_name = originals.get(_md5(folder / name), name)
        if true_name != name:
            raise UserError(f"{folder / name} holds what belongs in {true_name}. Put each file under its own name.")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def is_original(raw: Path) -> bool:
    """Whether the four files are those of the original MNIST."""
    return all(_md5(raw / name) == md5 for name, md5 in ORIGINAL_MD5.items())


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an IDX file. Raises: UserError."""
    shape = _idx_shape(path)
    return np.fromfile(path, dtype=np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


# --- Download -------------------------------------------------------------------------------------------------


class NoNetworkError(Exception):
    """Why MNIST could not be downloaded."""


def ensure_mnist(root: Path) -> None:
    """Have the four MNIST files under `root`, by torchvision's own download if need be. Raises: NoNetworkError."""
    raw = root / "MNIST" / "raw"
    if any((raw / name).exists() for name in IDX_FILES):
        return  # never download over what somebody put there: check_idx names what is missing or damaged
    have_archives = all((raw / f"{name}.gz").is_file() for name in IDX_FILES)
    from torchvision import datasets  # takes seconds to import, so only where it is needed

    mirrors = list(datasets.MNIST.mirrors)
    if not have_archives:
        if why := os.environ.get("CONTRASTIVE_OFFLINE"):
            raise NoNetworkError("CONTRASTIVE_OFFLINE is set" if why == "1" else why)
        mirrors = _mirrors_that_answer(mirrors, datasets.MNIST.resources[0][0])
    downloader = type("MNIST", (datasets.MNIST,), {"mirrors": mirrors})  # the class's name is the folder's name
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        print(f"Fetching MNIST into {raw}", file=sys.stderr)
        downloader(root, download=True)
    except BaseException as error:
        for name in IDX_FILES:  # what was only half unpacked must not pass for the data next time
            (raw / name).unlink(missing_ok=True)
        if isinstance(error, PermissionError):
            raise UserError(f"cannot write to {raw}: {error.strerror}. Set CONTRASTIVE_DATA to a folder.") from None
        if isinstance(error, (RuntimeError, OSError, EOFError)):
            why = str(error).strip().partition("\n")[0].rstrip(":")
            raise NoNetworkError(f"its download failed ({why})") from None
        raise
    finally:
        socket.setdefaulttimeout(before)


def _mirrors_that_answer(mirrors: list[str], file: str) -> list[str]:
    """Those mirrors, in their order, that answer for `file` within PROBE_SECONDS. Raises: NoNetworkError.

    A network that swallows packets would hold a download up for minutes per address, so all mirrors are asked at once.
    """
    answers: dict[str, str] = {}

    def ask(mirror: str) -> None:
        request = urllib.request.Request(mirror + file, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
            answers[mirror] = ""
        except urllib.error.HTTPError as error:
            answers[mirror] = "" if error.code in (403, 405, 501) else f"HTTP {error.code}"  # HEAD may be unwelcome
        except (OSError, ValueError) as error:
            answers[mirror] = str(getattr(error, "reason", error))

    threads = [threading.Thread(target=ask, args=(mirror,), daemon=True) for mirror in mirrors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PROBE_SECONDS / len(threads) + 1)
    alive = [mirror for mirror in mirrors if answers.get(mirror) == ""]
    if not alive:
        why = next((answers[mirror] for mirror in mirrors if mirror in answers), f"no answer in {PROBE_SECONDS} s")
        raise NoNetworkError(f"no mirror can be reached ({why})")
    return alive
