"""One line in the terminal for a notebook that runs; plain lines, and few, where there is no terminal."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time

from ..evaluation.first_look import PREFIX
from ..storage.files import printable, tell
from .outlook import Outlook

# What tqdm writes: name, percent, done/total, [elapsed<remaining, ...
STEP = re.compile(r"^(.{0,60}?):? {1,4}\d+%\|[^|]*\| *(\d+)/(\d+) \[[\d:]+<([\d:?]+)")
LONGEST = 500  # characters of a line that are looked at
PLAIN_EVERY = 60.0  # seconds between two lines where there is no terminal


class Progress:
    """Shows how far a notebook is. Use as a context; `write` takes what its cells print."""

    def __init__(self, name: str, cells: int, outlook: Outlook | None = None) -> None:
        self.name, self.cells, self.cell = name, cells, 0
        self.step, self.of_step, self.outlook = "", 0.0, outlook
        self.started = time.perf_counter()
        self.live = sys.stdout.isatty()
        self._over, self._lock = threading.Event(), threading.Lock()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Progress:
        if not self.live:
            tell(f"{self.name} ...")
        self._ticker.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        self._ticker.join()
        self.clear()

    def _tick(self) -> None:
        while not self._over.wait(0.5 if self.live else PLAIN_EVERY):
            if self.live:
                width = shutil.get_terminal_size().columns - 1
                with self._lock:
                    tell(f"\r\x1b[K{self.line()[:width]}", end="")
            else:
                tell(self.line())

    def clear(self) -> None:
        """Take the line away, for others to be written."""
        if self.live:
            with self._lock:
                tell("\r\x1b[K", end="")

    def line(self) -> str:
        """The line as it is now."""
        parts = [f"{self.name:16}", f"{clock(self.elapsed):>5}"]
        left = self.outlook.left(self.name, self.elapsed, self.cell / self.cells) if self.outlook else None
        if left is not None:  # before what a narrow terminal may cut off
            parts.append(f"about {about(left)} left of the report")
        parts += [f"cell {self.cell} of {self.cells}", self.step]
        if left is None and self.of_step:
            parts.append(f"{clock(self.of_step)} left in this step")
        return "  ".join(part for part in parts if part)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def on_cell(self, index: int) -> None:
        """The cell with this index, from 0, begins."""
        self.cell, self.step, self.of_step = index + 1, "", 0.0

    def write(self, text: str) -> None:
        """Look for the progress of a long step in what a cell prints; pass on what is for the terminal as well."""
        if text.startswith(PREFIX):
            self.clear()
            tell(printable(" ".join(text[:LONGEST].split())))
        for line in re.split(r"[\r\n]", text):
            if "%|" not in line or not (found := STEP.match(line[:LONGEST])):
                continue
            name, done, total, left = found.groups()
            self.step = "" if done == total else printable(f"{name.strip()} {done} of {total}")
            self.of_step = 0.0 if done == total or "?" in left else seconds(left)
            if self.outlook is not None:
                self.outlook.learn(self.name, self.elapsed, name.strip(), int(done))

    def flush(self) -> None:
        """Nothing is held back."""


def seconds(shown: str) -> float:
    """What tqdm shows as mm:ss or h:mm:ss, in seconds."""
    total = 0.0
    for part in shown.split(":"):
        total = 60 * total + float(part)
    return total


def about(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{max(round(seconds, -1), 10):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
