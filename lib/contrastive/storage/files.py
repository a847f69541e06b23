"""Files that outlive crashes, that tell when they are damaged, and that one process at a time writes."""

import errno
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, SoftFileLock, Timeout

from ..settings import RunError, UserError

MAX_JSON_BYTES = 50_000_000  # far above what a report holds; what is larger was not written here
NOTICE = "NOTE: "  # starts a line on a notebook's standard error that is for the user, too
# What files of whatever content make the parsing of JSON, and a look at what came out, raise.
BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class DamagedError(UserError):
    """A file is not as it was written."""


def printable(text: str) -> str:
    r"""The text with everything that is not plainly visible, such as line breaks, terminal codes and marks that turn
    the direction of writing, as a Python escape: `"a\x1b[31m"` becomes `"a\\x1b[31m"`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def say(message: str) -> None:
    """Tell the user something on standard error, as one line; the runner passes it on to the terminal."""
    tell(NOTICE + printable(message), sys.stderr)


def tell(text: str, stream: TextIO | None = None, end: str = "\n") -> None:
    """Print a line at once. When nobody reads the stream (standard output) any more, that is no reason to stop; what a
    terminal cannot show is written as a Python escape."""
    stream = stream or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, end=end, flush=True)
    except OSError:
        mute(stream.fileno())


def mute(descriptor: int) -> None:
    """Have what is written there from now on go nowhere, rather than fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


# --- Writing ----------------------------------------------------------------------------------------------------


def write_failure(path: Path, error: OSError | ValueError) -> RunError:
    """What to tell when a file could not be written, or not be read back."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free / 1e6 if path.parent.is_dir() else 0
        return RunError(
            f"the disk that holds {path.parent} is full ({free:,.1f} MB free), so {path.name} could not be written. "
            "What was there before is unharmed. Free some space; the same command then continues."
        )
    why = getattr(error, "strerror", None) or error
    return RunError(f"cannot write {path}: {why}. What was there before is unharmed.")


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens, either the old or the new content is there, whole and on the disk.

    For one writer at a time: see `locked`. What a killed one leaves behind, the next one replaces.
    Raises: RunError when it cannot be written; then the old content is still there.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        try:
            temporary.unlink(missing_ok=True)  # it may be a link, by a stranger's hand, to whatever we can write
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise write_failure(path, error) from None


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a file that was renamed is found under its new name after a power cut."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a dict as JSON with a checksum of its own, under `sha256`, that `read_json` checks. Raises: RunError."""
    atomic_write(path, (json.dumps(_sealed(data), indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote there, without the checksum. Raises: DamagedError, naming the file; FileNotFoundError."""
    try:
        return _unsealed(_content(path))
    except FileNotFoundError:
        raise
    except BROKEN as error:
        raise DamagedError(f"{path} is damaged ({type(error).__name__}).") from None


def write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    """Write dicts as JSON, one a line, each with its checksum under `sha256`. Raises: RunError."""
    atomic_write(path, "".join(json.dumps(_sealed(entry)) + "\n" for entry in entries).encode())


def read_lines(path: Path, count: int) -> list[dict[str, Any]]:
    """The `count` dicts that `write_lines` wrote there. Raises: DamagedError, naming the file; FileNotFoundError."""
    try:
        entries = [_unsealed(line) for line in _content(path).splitlines()]
        if len(entries) != count:
            raise ValueError("another number of lines")
    except FileNotFoundError:
        raise
    except BROKEN as error:
        raise DamagedError(f"{path} is damaged ({type(error).__name__}).") from None
    return entries


def _content(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_JSON_BYTES:
        raise ValueError("no regular file of a sane size")
    return path.read_bytes()


def _sealed(data: dict[str, Any]) -> dict[str, Any]:
    data = json.loads(json.dumps(data, allow_nan=False))
    return {**data, "sha256": _digest(data)}


def _unsealed(content: bytes) -> dict[str, Any]:
    data = json.loads(content)
    if data.pop("sha256") != _digest(data):
        raise ValueError("the checksum is wrong")
    return data


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- One writer -------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path, doing: str, note: Path | None = None) -> Iterator[None]:
    """Be the only process to write the file or folder `path`; wait, and say for whom, while another one is.

    doing: what the holder does, for those who wait. note: the lock's file, left behind; by default beside `path`. The
    operating system drops the lock of a process that has died. Raises: RunError when no lock can be had there.
    """
    note = note or path.with_name(f".{path.name}.lock")
    lock = FileLock(note)
    try:
        try:
            lock.acquire(timeout=2)  # most are held for less, which is not worth a word
        except Timeout:
            say(f"waiting until {_holder(note)} is done with {path}")
            lock.acquire()
        if not isinstance(lock, SoftFileLock):  # which it becomes where files cannot be locked, with notes of its own
            # Left behind on release, as is the lock's file: only those who wait for a living holder read it.
            since = datetime.now(timezone.utc).isoformat(sep=" ", timespec="seconds")
            note.write_text(f"process {os.getpid()} on {platform.node()}, {doing} since {since}", encoding="utf-8")
    except OSError as error:
        lock.release()
        raise write_failure(note, error) from None
    try:
        yield
    finally:
        lock.release()


def _holder(note: Path) -> str:
    try:
        return printable(note.read_text(encoding="utf-8")[:200]) or "another process"
    except (OSError, ValueError):
        return "another process"
