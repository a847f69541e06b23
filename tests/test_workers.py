"""Processes that train beside each other: none is left when the one that started them has gone."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from contrastive.sweeps import workers

PROGRAM = """
    import os, time
    from contrastive.storage.signals import Terminated
    from contrastive.sweeps import workers

    def write(folder, name):
        open(os.path.join(folder, name), "x").close()

    def work(folder):
        write(folder, str(os.getpid()))
        try:
            while True:
                time.sleep(0.05)
        except Terminated:
            time.sleep(0.5)  # a checkpoint is written
            write(folder, f"{os.getpid()}.kept")
            raise

    def busy(folder):
        list(workers.in_workers(work, [(folder,)] * 2, 2))

    def own(folder):
        workers.in_own_process(work, folder)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there a process does not learn that its parent has gone")
@pytest.mark.parametrize(("start", "n", "kept"), [("busy", 2, 2), ("own", 1, 0)])
def test_no_process_is_left_when_its_parent_is_killed(tmp_path, start, n, kept):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    (said := tmp_path / "said").mkdir()
    command = [sys.executable, "-c", f"import program; program.{start}({str(said)!r})"]
    places = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])  # the code that is tested here, too
    parent = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": places})
    try:
        wait_for(lambda: len(list(said.iterdir())) == n)
    finally:
        parent.kill()
        parent.wait()
    workers = [int(path.name) for path in said.iterdir()]
    try:
        wait_for(lambda: not any(lives(worker) for worker in workers))
    finally:
        for worker in filter(lives, workers):
            os.kill(worker, signal.SIGKILL)
    assert len(list(said.glob("*.kept"))) == kept


def test_a_worker_whose_parent_had_gone_before_its_first_task_ends(monkeypatch):
    ended = []
    monkeypatch.setattr(workers.os, "getppid", lambda: 1)
    monkeypatch.setattr(workers.os, "kill", lambda process, number: ended.append((process, number)))
    monkeypatch.setattr(workers.os, "_exit", ended.append)
    workers._end_with(parent=4321)
    assert ended == [(os.getpid(), signal.SIGTERM), 1]


def lives(process):
    """Whether there is such a process, and it has not ended."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(done, most=60.0):
    """Wait until something is so; not for ever."""
    started = time.perf_counter()
    while not done():
        assert time.perf_counter() - started < most
        time.sleep(0.1)
