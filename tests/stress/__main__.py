"""Try to make it lose something, or be silently wrong: `python -m tests.stress --count 100`, or `make stress`.

Each row of the table does as many cases as its factor times the count. All cases follow from `--seed`, but not their
timing.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import disks, names, rows

# name -> rows as functions, and how many of the cases of `--count 100` each does
ROWS: dict[str, tuple[Callable[[rows.Row, int, random.Random, Path], None], float]] = {
    "SIGKILL at a random moment, resumed": (rows.kills, 1),
    "bytes flipped or cut": (rows.damage, 10),
    "fuzzed settings, strings and files": (rows.fuzz, 50),
    "disk full at a random point": (disks.full_in_runs, 1),
    "a report's disk full at a random point": (disks.full_in_reports, 0.1),
    "2 and 8 processes on one run and index": (rows.several_at_once, 0.05),
    "names that attack, in terminal and browser": (names.attack_names, 0.01),
    "share of checkpoints in training below 1 %": (rows.checkpoints, 0.1),
}


def main() -> int:
    """Print the table. Returns 1 when something was lost or silently wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="cases of most rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    args = parser.parse_args()
    failed = False
    for name, (test, factor) in ROWS.items():
        if args.only not in name:
            continue
        row, started = rows.Row(), time.monotonic()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            test(row, max(1, round(args.count * factor)), random.Random(args.seed), Path(folder))
        good = row.cases - len(row.problems)
        print(f"{name:45} {good:5,} of {row.cases:5,}  {time.monotonic() - started:4.0f} s  {row.remark}", flush=True)
        for problem in row.problems[:10]:
            print(f"    {problem}", flush=True)
        failed |= bool(row.problems)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
