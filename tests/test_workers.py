"""Processes that train beside each other: none is left when the one that started them has gone."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

PROGRAM = """
    import os, time
    from contrastive.storage.signals import Terminated
    from contrastive.sweeps.workers import in_workers

    def work(folder):
        open(os.path.join(folder, str(os.getpid())), "x").close()
        try:
            while True:
                time.sleep(0.05)
        except Terminated:
            time.sleep(0.5)  # a checkpoint is written
            open(os.path.join(folder, f"{os.getpid()}.kept"), "x").close()
            raise

    def start(folder):
        list(in_workers(work, [(folder,)] * 2, 2))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there a process does not learn that its parent has gone")
def test_workers_keep_what_they_have_and_end_when_their_parent_is_killed(tmp_path, wait_for):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    (tmp_path / "said").mkdir()
    command = [sys.executable, "-c", f"import program; program.start({str(tmp_path / 'said')!r})"]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}) as parent:
        wait_for(lambda: len(list((tmp_path / "said").iterdir())) == 2)
        workers = [int(path.name) for path in (tmp_path / "said").iterdir()]
        parent.send_signal(signal.SIGKILL)
    try:
        wait_for(lambda: not any(_lives(worker) for worker in workers))
    finally:
        for worker in filter(_lives, workers):
            os.kill(worker, signal.SIGKILL)
    assert {path.name for path in (tmp_path / "said").glob("*.kept")} == {f"{worker}.kept" for worker in workers}


def _lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def wait_for():
    def wait(done, most=60.0):
        started = time.perf_counter()
        while not done():
            assert time.perf_counter() - started < most
            time.sleep(0.1)

    return wait
