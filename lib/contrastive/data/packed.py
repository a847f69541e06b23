"""Pictures decoded once: kept as uint8 in a file that is mapped into memory, and made again when a file changed."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..settings import UserError, runs_root
from ..storage.files import DamagedError, locked, read_json, say, write_failure, write_json
from .picture import Undecodable
from .pictures import DEEP, NeedsError, Part, Pictures, Plan, Reading, prepare_from
from .preparation import Preparation

VERSION = 1  # of what decoding and preparing give
FLUSH_SECONDS = 2.0  # of work that an interruption may lose
TRIED_AGAIN = 20  # damaged pictures, of those that were prepared before
BAR_FROM = 5.0  # seconds of work after which a bar is shown


@dataclass
class Packed:
    """Pictures of one shape.

    pixels: uint8 N x C x H x W, mapped from a file; zeros where a picture is damaged. damaged: place -> what is wrong
    with it. remarks: what was done to how many. reason: why they have this size. digest: of the pixels, or what is
    another one whenever they were prepared anew.
    """

    pixels: np.ndarray
    preparation: Preparation
    damaged: dict[int, str] = field(default_factory=dict)
    remarks: Counter[str] = field(default_factory=Counter)
    reason: str = ""
    digest: str = ""


def pack(pictures: Pictures, reading: Reading) -> Packed:
    """Decode and prepare pictures, by all cores; or load what was prepared before, if no file changed.

    Interrupted, the same call goes on. A second process waits for the first.

    Args:
        pictures: with a stamp that tells when one changed; without one, all is kept in memory.
        reading: what was asked for.

    Raises:
        UserError: when none can be decoded. RunError: when the disk is full.
    """
    if not pictures.stamp:
        return _in_memory(pictures, reading)
    key = json.dumps([VERSION, pictures.stamp, asdict(reading)])
    folder = runs_root() / "cache" / f"images-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if (kept := _load(folder, key)) is not None and not _mended(pictures, kept.damaged):
        return kept
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}. Set CONTRASTIVE_RUNS.") from None
    with locked(folder, "decoding the images"):
        if (kept := _load(folder, key)) is None or _mended(pictures, kept.damaged):
            if kept is None and (folder / "pack.json").exists():
                say(f"the decoded images in {folder} are damaged. They are made again.")
            _make(folder, key, pictures, reading)
            kept = _load(folder, key)
    if kept is None:
        raise UserError(f"what was written to {folder} was changed at once by something else. Start again.")
    return kept


def _load(folder: Path, key: str) -> Packed | None:
    """What was prepared; None if it was not, or something else wrote into its files."""
    try:
        facts = read_json(folder / "pack.json")
        path = folder / facts["file"]
        if facts["key"] != key or facts["state"] != _state(path):
            return None
        # Copied where it is written to, so that no caller changes the file
        pixels = np.memmap(path, np.uint8, "c", shape=tuple(facts["shape"]))
    except (OSError, DamagedError, KeyError):
        return None
    damaged = {int(i): why for i, why in facts["damaged"].items()}
    preparation, remarks = Preparation.from_json(facts["preparation"]), Counter(facts["remarks"])
    digest = hashlib.sha256(f"{key} {path.name}".encode()).hexdigest()
    return Packed(pixels, preparation, damaged, remarks, facts["reason"], digest)


def _mended(pictures: Pictures, damaged: Iterable[int]) -> bool:
    """Whether one of the first few pictures that could not be read can be now: memory may have been short, a disk
    busy, or a package missing."""
    for i in itertools.islice(damaged, TRIED_AGAIN):
        try:
            pictures.picture(i)
        except Undecodable:
            continue
        return True
    return False


def _state(path: Path) -> list[int]:
    """Size and time of a file, which change when it is written to."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _in_memory(pictures: Pictures, reading: Reading) -> Packed:
    plan = Plan(pictures, reading)
    while True:
        try:
            parts = list(prepare_from(pictures, plan))
            break
        except NeedsError as need:
            plan.learn(need)
    remarks = sum((part.remarks for part in parts), Counter[str]())
    preparation = _without_idle_window(plan.preparation, remarks)
    packed = Packed(np.concatenate([part.pixels for part in parts]), preparation, reason=plan.reason)
    packed.digest = hashlib.sha256(repr(packed.pixels.shape).encode() + packed.pixels.data).hexdigest()
    for part in parts:
        packed.damaged |= part.damaged
        packed.remarks.update(part.remarks)
    return packed


def _make(folder: Path, key: str, pictures: Pictures, reading: Reading) -> None:
    """Decode all pictures into a folder's files. Raises: UserError; RunError."""
    (folder / "pack.json").unlink(missing_ok=True)
    plan, journal = Plan(pictures, reading), _Journal(folder, key)
    journal.recall(plan)
    while True:
        try:
            with (
                journal.writing(plan),
                tqdm(total=len(pictures.names), initial=journal.done, desc="decoding images", unit="image",
                     delay=BAR_FROM, mininterval=1, file=sys.stderr, dynamic_ncols=True) as bar,
            ):  # fmt: skip
                for part in journal.told(prepare_from(pictures, plan, journal.done, journal.taker)):
                    journal.add(part)
                    bar.update(part.n)
            break
        except NeedsError as need:
            plan.learn(need)
            journal.restart()
    p = _without_idle_window(plan.preparation, journal.remarks)
    facts = {
        "key": key, "shape": (len(pictures.names), p.channels, p.height, p.width), "preparation": p.as_json(),
        "damaged": journal.damaged, "remarks": journal.remarks, "reason": plan.reason,
        "file": journal.file, "state": _state(folder / journal.file), "source": _source(pictures, reading),
    }  # fmt: skip
    write_json(folder / "pack.json", facts)
    (folder / "journal").unlink(missing_ok=True)
    _remove_older(folder, _source(pictures, reading))


def _without_idle_window(preparation: Preparation, remarks: Counter[str]) -> Preparation:
    """The preparation as it was used: without a window where no picture had more than 8 bits."""
    return preparation if remarks[DEEP] else replace(preparation, window=None)


def _source(pictures: Pictures, reading: Reading) -> str:
    """What stays the same when files change."""
    return hashlib.sha256(f"{pictures.where} {asdict(reading)}".encode("utf-8", "surrogateescape")).hexdigest()


def _remove_older(folder: Path, source: str) -> None:
    """Remove what was prepared of the same source before its files changed: it would never be read again. Who has it
    mapped into memory keeps it."""
    for other in folder.parent.glob("images-*"):
        with suppress(OSError, DamagedError, KeyError):
            if other != folder and read_json(other / "pack.json")["source"] == source:
                shutil.rmtree(other, ignore_errors=True)


class _Writer:
    """Takes pixels, and writes them to where they belong in a file."""

    def __init__(self, path: Path, n_bytes: int) -> None:
        self.path, self.n_bytes = path, n_bytes  # of a picture

    def __call__(self, pixels: np.ndarray, start: int) -> None:
        rest = pixels.data.cast("B")
        with self.path.open("r+b", buffering=0) as file:
            file.seek(start * self.n_bytes)
            while rest:  # a disk that fills takes only some of it
                rest = rest[file.write(rest) :]


class _Journal:
    """What was decoded so far, and how: a file of pixels, and beside it what is known of those in it.

    The file has a name of its own, so that what a process may write whose parent was killed, under another plan, does
    not come into it.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.path, self.key = folder, folder / "journal", key
        self.restart()

    def restart(self) -> None:
        """Forget what was decoded."""
        self.done, self.damaged, self.remarks = 0, dict[int, str](), Counter[str]()
        self.file = f"pixels-{secrets.token_hex(8)}"

    def recall(self, plan: Plan) -> None:
        """Go on where an interrupted process was, if it left a journal for these pictures."""
        try:
            kept = read_json(self.path)
            if kept["key"] != self.key or (self.folder / kept["file"]).stat().st_size < kept["bytes"]:
                return
        except (OSError, DamagedError, KeyError):
            return
        plan.restore(kept["plan"])
        self.file, self.done, self.remarks = kept["file"], kept["done"], Counter(kept["remarks"])
        self.damaged = {int(i): why for i, why in kept["damaged"].items()}

    @contextmanager
    def writing(self, plan: Plan) -> Iterator[None]:
        """Have the file of pixels open; what was added is kept when it is left. Raises: RunError."""
        path, p = self.folder / self.file, plan.preparation
        self.taker = _Writer(path, p.channels * p.height * p.width)
        with self._told():
            if self.done == 0:
                self.path.unlink(missing_ok=True)
            for other in self.folder.glob("pixels*"):
                if other != path:
                    with suppress(PermissionError):  # of one that is mapped by another process, on Windows
                        other.unlink(missing_ok=True)
            self._open = path.open("ab")
        self._plan, self._flushed = plan.as_json(), time.monotonic()
        try:
            try:
                yield
            except KeyboardInterrupt:
                self._flush()
                raise
            self._flush()
        finally:
            self._open.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_failure(self.folder / self.file, error) from None

    def told(self, parts: Iterator[Part]) -> Iterator[Part]:
        """The same parts. Raises: RunError when one could not be written."""
        with self._told():
            yield from parts

    def add(self, part: Part) -> None:
        """Take note of some more pictures, whose pixels are in the file. Raises: RunError."""
        self.done += part.n
        self.damaged |= part.damaged
        self.remarks.update(part.remarks)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        with self._told():
            os.fsync(self._open.fileno())
        kept = {
            "key": self.key, "plan": self._plan, "file": self.file, "bytes": self.done * self.taker.n_bytes,
            "done": self.done, "damaged": self.damaged, "remarks": self.remarks,
        }  # fmt: skip
        write_json(self.path, kept)
        self._flushed = time.monotonic()
