"""MNIST's four files: found, unpacked or downloaded."""

from __future__ import annotations

import os
import socket
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

from ..settings import UserError
from .idx import IDX_FILES, unpack_originals

PROBE_SECONDS = 8  # for finding out whether any mirror answers
STALL_SECONDS = 15  # without a byte, after which a mirror counts as dead


class NoNetworkError(Exception):
    """Why MNIST could not be downloaded."""


def ensure_mnist(root: Path) -> None:
    """Have the four MNIST files under `root`, by torchvision's own download if need be.

    Raises: NoNetworkError; UserError when what lies there is something else, or cannot be written.
    """
    raw = root / "MNIST" / "raw"
    unpack_originals(raw)
    if any((raw / name).exists() for name in IDX_FILES):
        return  # never download over what somebody put there: check_idx names what is missing or damaged
    if why := os.environ.get("CONTRASTIVE_OFFLINE"):
        raise NoNetworkError("CONTRASTIVE_OFFLINE is set" if why == "1" else why)
    from torchvision import datasets  # takes seconds to import, so only where it is needed

    mirrors = _mirrors_that_answer(list(datasets.MNIST.mirrors), datasets.MNIST.resources[0][0])
    downloader = type("MNIST", (datasets.MNIST,), {"mirrors": mirrors})  # the class's name is the folder's name
    new = [f"{name}.gz" for name in IDX_FILES if not (raw / f"{name}.gz").exists()]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        print(f"Fetching MNIST into {raw}", file=sys.stderr)
        downloader(root, download=True)
    except BaseException as error:
        for name in (*IDX_FILES, *new):  # what was only half there must not pass for the data next time
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
