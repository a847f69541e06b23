"""Several trainings at once, each in a process with its share of the threads; or one in a process of its own.

Small networks do not keep several cores busy: on two cores, two of them at once take a fifth less time than one after
the other.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

from ..storage.files import say
from ..storage.signals import Stop, terminate

Result = TypeVar("Result")
MOST = 4  # processes, where nobody asked for more: each holds images and PyTorch
PREFIX = "CONTRASTIVE_"  # of variables of the environment, that say where data and runs lie
WORTH = 1000  # steps, below which starting processes takes longer than it saves


def jobs_that_pay(device: str, n_trainings: int, steps: int) -> int:
    """How many trainings to run at once, of so many with so many steps in all: 1 on a GPU, which one keeps busy."""
    if device != "cpu" or steps < WORTH:
        return 1
    return max(min(MOST, n_trainings, torch.get_num_threads()), 1)


def in_workers(
    function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], jobs: int
) -> Iterator[tuple[int, Result | None]]:
    """The results of a function, as they come, each with its task's place.

    Args:
        function: of a module, so that another process finds it.
        tasks: its arguments.
        jobs: processes. With one, it is this one.

    Returns:
        Of a task whose process was killed, None. All other processes go with it, so those that are left go one at a
        time.
    """
    if jobs == 1:
        yield from ((i, function(*task)) for i, task in enumerate(tasks))
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    threads = max(1, torch.get_num_threads() // jobs)
    where = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=2 * jobs)
    calls = [delayed(_in_worker)(i, function, task, threads, where, os.getpid()) for i, task in enumerate(tasks)]
    left = set(range(len(tasks)))
    try:
        for i, result in parallel(calls):
            left.remove(i)
            yield i, result
    except TerminatedWorkerError:  # nothing tells which task it was
        say("a process was killed, likely for want of memory: the runs that are left go one at a time")
        for i in sorted(left):
            try:
                yield Parallel(n_jobs=2)([calls[i]])[0]  # 2, for with 1 it would be this very process
            except TerminatedWorkerError:
                yield i, None


def in_own_process(function: Callable[..., Result], *args: Any) -> Result:
    """The result of a function of a module, run in a process that ends with it: a GPU's memory is given back."""
    with ProcessPoolExecutor(1, get_context("spawn"), _watch, (os.getpid(),)) as pool:
        return pool.submit(function, *args).result()


_idle = threading.Event()  # in a worker: that it has no task
_idle.set()


def _end_with(parent: int) -> None:
    """End this process once its parent has gone, be it by `kill -9`; a run first writes its checkpoint. Does nothing on
    Windows, where a process keeps its parent's number."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    _idle.wait()
    os._exit(1)


@cache
def _watch(parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _in_worker(
    i: int, function: Callable[..., Result], task: tuple[Any, ...], threads: int, where: dict[str, str], parent: int
) -> tuple[int, Result]:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:  # it may have been started for another one
        del os.environ[name]
    os.environ.update(where)
    # A worker that is told to stop writes its checkpoint first; one that has nothing to do just ends.
    taken = [number for number in Stop.SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, terminate)
    try:
        _idle.clear()
        _watch(parent)
        torch.set_num_threads(threads)
        return i, function(*task)
    finally:
        _idle.set()
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
