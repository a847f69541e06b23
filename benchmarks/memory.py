"""Memory as Linux tells it: the peak of one process, and of a process with all that it starts."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from pathlib import Path

OFTEN = 0.05  # seconds


class Memory(threading.Thread):
    """The most memory in bytes that a process and its children took at once, what they share counted once.

    It looks every 50 ms, which keeps a core busy for some of them. seldom: only every fiftieth part of the time that
    has gone by, every 2 s at least, so that a long measurement of time is not disturbed.
    """

    def __init__(self, process: int, seldom: bool = False) -> None:
        super().__init__(daemon=True)
        self.process, self.seldom, self.most, self.ended = process, seldom, 0, threading.Event()

    def run(self) -> None:
        """Look, until it is ended."""
        started, pause = time.monotonic(), OFTEN
        while not self.ended.wait(pause):
            self.most = max(self.most, sum(map(self._of, [self.process, *children(self.process)])))
            if self.seldom:
                pause = min(max(OFTEN, (time.monotonic() - started) / 50), 2.0)

    @staticmethod
    def _of(process: int) -> int:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            return 0
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def children(process: int) -> list[int]:
    """Processes that a process has started, and theirs."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        found = [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return []
    return found + [below for child in found for below in children(child)]


def reset_peak() -> int:
    """Forget the largest resident memory so far. Returns the present one, in bytes.

    What was freed is handed back to the system first, or it would not count when it is taken again.
    """
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # of glibc
        libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """The largest resident memory of this process so far (since `reset_peak`), in bytes."""
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
