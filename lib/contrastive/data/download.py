"""Files from the internet: checked before they bear their name, and never half there."""

import hashlib
import os
import stat
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.error import HTTPError

from tqdm import tqdm

from ..settings import RunError, UserError
from ..storage.files import locked, say, sync_folder, write_failure

Value = TypeVar("Value")

STALL_SECONDS = 8  # without a byte, after which a mirror counts as dead
CHUNK = 2**20  # bytes that are read at most at once
NETWORK_ERRORS = (OSError, HTTPException, ValueError)  # ValueError: addresses that a mirror leads on to


class NoNetworkError(UserError):
    """A data set is not at hand and cannot be downloaded.

    Args:
        message: the whole line for the user; or, from what knows one file only, just the reason.
        reason: why there was no download, as the end of a sentence that starts with the data set's name.
    """

    def __init__(self, message: str, reason: str = ""):
        super().__init__(message)
        self.reason = reason or message


def refuse_offline() -> None:
    """Raises: NoNetworkError when the user, or an attempt that failed before, rules downloads out."""
    if why := os.environ.get("CONTRASTIVE_OFFLINE"):
        raise NoNetworkError("CONTRASTIVE_OFFLINE is set" if why == "1" else why)


def answering(bases: Sequence[str], file: str) -> list[str]:
    """Those of the mirrors that have the file, found out before a folder is made for it.

    Raises: NoNetworkError, with what the last one said.
    """
    refuse_offline()
    good: list[str] = []
    why: object = "there is none"
    for base in bases:
        try:
            with _open(base + file):
                good.append(base)
        except NETWORK_ERRORS as error:
            why = getattr(error, "reason", error)
    if not good:
        raise _failure(file, why)
    return good


@contextmanager
def sole_writer(path: Path, doing: str) -> Iterator[None]:
    """Be the only process that puts the file or folder `path` there, in a folder that is made if need be.

    Raises: UserError when it cannot be written there.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path, doing))
        except OSError as error:
            raise unwritable(RunError(f"cannot write to {path.parent}: {error.strerror}.")) from None
        except RunError as problem:
            raise unwritable(problem) from None
        yield


def unwritable(problem: RunError) -> UserError:
    """The line about a file that could not be written among the data, with what to do about it."""
    return UserError(f"{problem} Set CONTRASTIVE_DATA to a folder that can be written.")


def fetch(
    bases: Sequence[str], file: str, path: Path, check: Callable[[Path], Value], largest: int, title: str = ""
) -> Value:
    """Download a file from the first mirror that has the right one. For one process at a time: see `sole_writer`.

    It gets its name when all of it is there and has passed the check. Until then it lies beside it under another name,
    where a later call finds what has arrived and asks for the rest.

    Args:
        bases: the mirrors, as beginnings of addresses.
        file: the rest of the address.
        path: where to put it.
        check: raises ValueError, OSError or EOFError when the file is another one, with what is wrong in a few words.
        largest: bytes that it has at most.
        title: what it is, for a line to the user; without it, there is none.

    Returns: what `check` gave.
    Raises: NoNetworkError, with what the last mirror said; RunError when it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    why: object = "there is none"
    for base in bases:
        for _ in range(2):  # once more where what an earlier call left behind belongs to another file
            try:
                went_on = _receive(base + file, part, largest, title)
            except RunError:
                raise
            except NETWORK_ERRORS as error:
                why = getattr(error, "reason", error)
                break
            try:
                value = check(part)
            except (ValueError, OSError, EOFError) as error:
                why = error
                with _writing(part):
                    part.unlink()
                if went_on:
                    continue
                break
            with _writing(path):
                part.replace(path)
                sync_folder(path.parent)
            return value
    raise _failure(file, why)


def md5_of(path: Path) -> str:
    """MD5 of a file, in hexadecimal. It tells accidents, and is what the publishers of data sets give."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_md5(md5: str) -> Callable[[Path], None]:
    """A check for `fetch`: that the file has this checksum."""

    def check(path: Path) -> None:
        if md5_of(path) != md5:
            raise ValueError("its checksum is another")

    return check


def _failure(file: str, why: object) -> NoNetworkError:
    name = file.partition("?")[0]
    return NoNetworkError(f"its download failed: no mirror can be reached, or none has {name} ({_one_line(why)})")


def _one_line(why: object) -> str:
    """What a server or the network said, as part of one line."""
    said = " ".join(str(why).split())[:200] or type(why).__name__
    return "".join(c if c.isprintable() else "?" for c in said)


def _open(url: str, start: int = 0) -> HTTPResponse:
    headers = {"User-Agent": "contrastive", **({"Range": f"bytes={start}-"} if start else {})}
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=STALL_SECONDS)


def _receive(url: str, part: Path, largest: int, title: str) -> bool:
    """Download into `part`, going on where it ends if the server can; whether it did.

    Raises: NETWORK_ERRORS when the mirror fails; RunError when the file cannot be written.
    """
    start = _begun(part)
    try:
        response = _open(url, start)
    except HTTPError as error:
        if error.code != 416 or not start:  # 416: the server has no bytes from there on
            raise
        start, response = 0, _open(url)
    with response:
        went_on = start > 0 and response.status == 206
        if went_on and not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            raise OSError("it answered with another part of the file")
        done = start if went_on else 0
        told = response.headers.get("Content-Length") or ""
        total = done + int(told) if told.isdecimal() else None
        if (total or 0) > largest:
            raise OSError(f"it has {total:,} bytes, far more than the right file")
        if title:
            say(f"fetching {title} into {part.parent}" + (f" ({total / 1e6:,.1f} MB)" if total else ""))
        with _opened(part, went_on) as file, _bar(part, done, total) as bar:
            while chunk := response.read1(CHUNK):  # what is there: kept, should the rest not come
                done += len(chunk)
                if done > largest:
                    raise OSError("it has far more bytes than the right file")
                _write(file, chunk, part)
                bar.update(len(chunk))
            with _writing(part):
                os.fsync(file.fileno())
    if total is not None and done != total:
        raise OSError(f"it broke off after {done:,} of {total:,} bytes")
    return went_on


def _begun(part: Path) -> int:
    """Bytes of a download that an earlier process began."""
    with _writing(part):
        try:
            status = part.lstat()
        except FileNotFoundError:
            return 0
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            return status.st_size
        part.unlink()  # it may be a link, by a stranger's hand, to whatever we can write
    return 0


def _opened(part: Path, append: bool) -> BinaryIO:
    """The file to write to, unbuffered, so that closing it writes nothing that could fail."""
    with _writing(part):
        if not append:
            part.unlink(missing_ok=True)
        return part.open("ab" if append else "xb", buffering=0)  # type: ignore[return-value]


def _write(file: BinaryIO, chunk: bytes, part: Path) -> None:
    rest = memoryview(chunk)
    with _writing(part):
        while rest:
            rest = rest[file.write(rest) :]


def _bar(part: Path, done: int, total: int | None) -> tqdm:
    """A bar that tells how far a download is; only where somebody watches it move."""
    name = part.name.removeprefix(".").removesuffix(".part")
    return tqdm(
        desc=name, initial=done, total=total, unit="B", unit_scale=True, leave=False, disable=not sys.stderr.isatty()
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tells failures to write from those of the network, which are OSErrors, too. Raises: RunError."""
    try:
        yield
    except OSError as error:
        raise write_failure(path, error) from None
