"""Disks that are full at random points of a run or a report."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contrastive.report.runner import RESERVE_BYTES
from contrastive.storage.files import read_json

from .rows import TINY, Row, finish, reference, report, start


@contextmanager
def small_disk(row: Row, folder: Path, megabytes: int) -> Iterator[Path | None]:
    """A file system of its own below `folder`; None, and a remark, where it cannot be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        row.remark = "not done: to mount a disk needs root, or `unshare -rm make stress`"
        yield None
        return
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    row.remark = f"the disk was too full in {row.hits}"


def fill(disk: Path, free: int) -> Path:
    """Leave that many bytes free. Returns the file that takes the others."""
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - free))
    return disk / "filler"


def full_in_runs(row: Row, count: int, dice: random.Random, folder: Path) -> None:
    """The disk is full at random points of a run; then it gets space, and the run goes on."""
    said = folder / "said"
    with small_disk(row, folder, 4) as disk:
        if disk is None:
            return
        expected, _ = reference(folder)
        needed = sum(path.stat().st_size for path in (folder / "whole").rglob("*"))
        for i in range(count):
            runs = disk / f"run{i}"
            filler = fill(disk, dice.randrange(0, 8 * needed, 4096))
            process = start(runs, TINY, said)
            process.join()
            line, problem = said.read_text(), ""
            if process.exitcode:
                row.hits += 1
                problem = "" if line.count("\n") == 1 and "the disk that holds" in line and str(runs) in line else line
            filler.unlink()
            row.case(problem or ("" if finish(runs) == expected else "other bits"))
            shutil.rmtree(runs)


def full_in_reports(row: Row, count: int, dice: random.Random, folder: Path) -> None:
    """The disk is full before a report, or at a random point of its writing; then it gets space."""
    with small_disk(row, folder, 40) as disk:
        if disk is None:
            return
        words = ["report", "--preset", "smoke", "--only", "02_linear_eval", "-p", "epochs=8", "-p", "budgets=50,200"]
        words += ["-p", "base_channels=4", "-p", "supervised_steps=10", "-p", "general=none", "--out", str(disk / "r")]
        environment = {**os.environ, "CONTRASTIVE_RUNS": str(folder / "runs")}
        for _ in range(count):
            filler = fill(disk, RESERVE_BYTES + dice.randrange(-100_000, 600_000))
            done = report(words, environment)
            results = read_json(disk / "r" / "results.json") if done.returncode != 2 else {"status": "failed"}
            page = (disk / "r" / "02_linear_eval.html").read_text() if done.returncode != 2 else ""
            row.hits += done.returncode != 0
            problem = "Traceback" in done.stderr or (done.returncode == 0) != (results["status"] == "ok")
            if done.returncode == 1:
                problem |= "the disk that holds" not in done.stderr or "the disk that holds" not in page
            elif done.returncode == 2:
                problem |= done.stderr.count("\n") != 1 or "Free some space" not in done.stderr
            filler.unlink()
            again = report(words, environment).returncode
            leftovers = [path.name for path in (disk / "r").glob(".*")]
            row.case(f"{done} {again} {leftovers}" if problem or again or leftovers else "")
            shutil.rmtree(disk / "r")
