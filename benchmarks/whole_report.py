"""What a whole `contrastive report` takes, as a new user sees it: wall-clock time, and memory of all its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import PartError
from .memory import Memory

PROGRAM = [sys.executable, "-m", "contrastive"]


def time_report(words: tuple[str, ...]) -> dict[str, float]:
    """Make a report from nothing: no run is there yet, and it goes into an empty folder.

    Args:
        words: of the command, after `contrastive report`.

    Returns: seconds from start to end, and the most memory in MiB that its processes took together.
    Raises: PartError when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [*PROGRAM, "report", *words, "--out", str(Path(folder, "report"))]
        environment = {**os.environ, "CONTRASTIVE_RUNS": str(Path(folder, "runs"))}
        started = time.perf_counter()
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            memory = Memory(process.pid, seldom=True)
            memory.start()
            _, said = process.communicate()
            memory.ended.set()
            memory.join()
        if process.returncode:
            raise PartError(f"a report failed: {said.strip().splitlines()[-1:]}")
        return {"seconds": time.perf_counter() - started, "MiB": memory.most / 2**20}
