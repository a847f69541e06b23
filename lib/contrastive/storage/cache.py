"""The one cache: what was computed before for the same key is loaded, checked, and not computed again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from ..settings import UserError, runs_root
from .files import DamagedError, locked, say
from .tensors import read_tensors, write_tensors

Value = TypeVar("Value")


class Codec(Protocol[Value]):
    """How a value lies on the disk. `read` raises FileNotFoundError where there is none, and DamagedError."""

    def read(self, path: Path, key: str) -> Value:
        """The value at `path`, if it is whole and of that key."""

    def write(self, path: Path, key: str, value: Value) -> None:
        """Keep the value, so that it is there whole or not at all."""


def memo(path: Path, key: str, compute: Callable[[], Value], codec: Codec[Value], doing: str) -> Value:
    """What `compute` gave before for this key; or what it gives now, which is then kept.

    One process computes; others that want the same wait for it.

    Args:
        path: file or folder of the value.
        key: text that says all that decides the value.
        compute: makes the value.
        codec: reads and writes it, with a checksum.
        doing: what computing it is, for those who wait.

    Raises:
        UserError: when the place cannot be written, or holds something else.
    """
    try:
        return codec.read(path, key)  # without a lock, since files are replaced whole
    except (FileNotFoundError, DamagedError):
        pass
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}. Set CONTRASTIVE_RUNS.") from None
    with locked(path, doing):
        try:
            return codec.read(path, key)  # by the process that was waited for
        except FileNotFoundError:
            pass
        except DamagedError as damage:
            say(f"{damage} It is made again.")
        codec.write(path, key, compute())
        return codec.read(path, key)  # what everybody will get from now on


class Record:
    """A dict of JSON values and tensors, as one file."""

    def read(self, path: Path, key: str) -> dict[str, Any]:
        """The dict. Raises: DamagedError; FileNotFoundError, also for one of another key."""
        metadata, tensors = read_tensors(path)
        if metadata.get("key") != key:
            raise FileNotFoundError(path)
        return {**metadata["values"], **tensors}

    def write(self, path: Path, key: str, value: dict[str, Any]) -> None:
        """Keep the dict. Raises: RunError."""
        tensors = {name: item for name, item in value.items() if isinstance(item, Tensor)}
        values = {name: item for name, item in value.items() if name not in tensors}
        write_tensors(path, {"key": key, "values": values}, tensors)


def memo_record(kind: str, decisive: Mapping[str, Any], compute: Callable[[], dict[str, Any]], doing: str) -> dict:
    """`memo` of a dict in `$CONTRASTIVE_RUNS/cache/<kind>-<digest>.safetensors`, by the values that decide it."""
    key = json.dumps({"kind": kind, **decisive}, sort_keys=True)
    name = f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    return memo(runs_root() / "cache" / name, key, compute, Record(), doing)
