"""Work on many pictures, shared among processes, with results that come in order."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from ..settings import RunError

Result = TypeVar("Result")


class _Work(Dataset[Any]):
    """A function as DataLoader wants it."""

    def __init__(self, function: Callable[[range], Any]) -> None:
        self.function = function

    def __getitem__(self, places: range) -> Any:
        return self.function(places)


def in_processes(function: Callable[[range], Result], places: range, chunk: int, many: bool) -> Iterator[Result]:
    """The results of a function on one chunk of places after another, in order.

    Args:
        function: what to do with some places. It is handed to other processes.
        places: all of them, by ones.
        chunk: how many a process takes at a time.
        many: whether it is worth starting a process for each core.

    Raises:
        RunError: when one of the processes is killed.
    """
    chunks = [places[i : i + chunk] for i in range(0, len(places), chunk)]
    n_workers = min(cores(), len(chunks))
    if not many or n_workers < 2 or multiprocessing.current_process().daemon:  # a daemon may start none
        yield from map(function, chunks)
        return
    # With a generator of its own, for it draws a seed: what is drawn later must not depend on what was decoded
    loader = DataLoader(
        _Work(function), batch_size=None, sampler=chunks, num_workers=n_workers, collate_fn=_as_it_is,
        generator=torch.Generator(), worker_init_fn=_begin,
    )  # fmt: skip
    results = iter(loader)
    while True:
        try:
            result = next(results)
        except StopIteration:
            return
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            raise RunError(
                "a process that decodes images was killed, as systems do when memory runs out. Close other programs, "
                "or ask for a smaller image_size; the same command then continues."
            ) from None
        yield result


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin(_: int) -> None:
    """What a process does first."""
    if multiprocessing.get_start_method() == "fork":
        gc.freeze()  # what it shares with its parent is not looked through for garbage, which would copy all of it


def _as_it_is(item: Any) -> Any:
    return item
