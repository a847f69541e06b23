"""A report for each point of a grid: `contrastive sweep GRID --reports`."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from ..evaluation import measuring_version
from ..settings import RunError, Settings, UserError, as_text, digest
from ..storage.cache import memo
from ..storage.files import BROKEN, DamagedError, printable, read_json, tell
from ..training import FITTED
from .command import checked
from .grids import Grid, Point, grid_points

NOTEBOOKS = ("01_pretrain", "02_linear_eval")
DONE_BEFORE = "done before"


def report_grid(grid: Grid, jobs: int, folder: Path) -> int:
    """Run the notebooks for each point of a grid, each in a process of its own, into a folder of its own below
    `folder`. What is there and whole, of the same data and settings, is not made again. Returns the exit code."""
    grid, points = checked(grid, reports=True)
    runner = _ReportRunner(max(1, torch.get_num_threads() // jobs))
    failed = 0
    with ThreadPoolExecutor(jobs) as pool:  # of threads that wait for processes
        futures = {}
        for i, (name, point) in enumerate(points.items(), 1):
            own = folder / _slug(name)
            if [_slug(other) for other in points].count(own.name) > 1:
                own = folder / f"{own.name}-{i}"
            command = report_command(_given(grid, point), own)
            futures[pool.submit(runner.report, point.settings.replace(n_seeds=grid.seeds), own, command)] = name
        try:
            for i, future in enumerate(as_completed(futures), 1):
                why = future.result()
                failed += bool(why and why != DONE_BEFORE)
                tell(printable(f"{i}/{len(futures)}  {futures[future]}  {why or 'ok'}"))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.stop()
            raise
    print(folder)
    return int(failed > 0)


def check_nulls(grid: Grid) -> None:
    """Raises: UserError for a null that a report would not have, since in a notebook null is the preset's value."""
    for point in grid_points(grid, reports=True).values():
        given = {**grid.base, **point.varied}
        usual = Settings(preset=point.settings.preset)
        for name, value in given.items():
            if value is None and usual.flat().get(name) is not None:
                raise UserError(
                    f"grid {grid.name}: {name} is null, which in a report stands for the preset's value, and "
                    f"{usual.preset} has {usual.flat()[name]}. Take another preset, or leave out --reports."
                )


def _slug(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9.]+", "-", name).strip("-")[:80]


def report_key(settings: Settings) -> str:
    """All that decides what a report says: settings, data, and the versions of what trains and measures."""
    decisive = {
        "settings": settings.as_json(),
        "run": digest(settings.identity),
        "evaluation": measuring_version(),
    }
    return json.dumps(decisive, sort_keys=True)


class ReportFolder:
    """A report's folder, for `memo`: its results say of what it is."""

    def read(self, path: Path, key: str) -> dict[str, Any]:
        """The results of a whole report of that key. Raises: FileNotFoundError; DamagedError."""
        try:
            results = read_json(path / "results.json")
            asked = json.loads(key)
            same = results["status"] == "ok" and results["provenance"]["run"] == asked["run"]
            same &= results["provenance"]["evaluation_version"] == asked["evaluation"]
            same &= all(results["settings"].get(name) == value for name, value in asked["settings"].items())
        except (FileNotFoundError, DamagedError):
            raise
        except BROKEN as error:
            raise DamagedError(f"{path / 'results.json'} holds no report ({type(error).__name__}).") from None
        if not same:
            raise FileNotFoundError(path)
        return results

    def write(self, path: Path, key: str, value: dict[str, Any]) -> None:
        """Nothing: the report's own process wrote it."""


class _ReportRunner:
    """Makes reports, each in a process of its own with its share of the threads."""

    def __init__(self, threads: int) -> None:
        self.threads, self.running = threads, list[subprocess.Popen[str]]()

    def report(self, settings: Settings, folder: Path, command: list[str]) -> str:
        """Make a report, unless it is there. Returns what went wrong, DONE_BEFORE, or nothing."""
        made = False

        def compute() -> dict[str, Any]:
            nonlocal made
            made = True
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
                env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
            )  # fmt: skip
            self.running.append(process)
            _, said = process.communicate()
            if process.returncode:
                raise RunError(f"failed: {' '.join(said.strip().splitlines()[-1:])}")
            return read_json(folder / "results.json")

        try:
            memo(folder, report_key(settings), compute, ReportFolder(), "making a report there")
        except UserError as failure:
            return str(failure)
        return "" if made else DONE_BEFORE

    def stop(self) -> None:
        """Ask what still runs to stop; it writes what it has."""
        for process in self.running:  # those that have ended do not mind
            process.terminate()


def _given(grid: Grid, point: Point) -> dict[str, Any]:
    """The parameters of a point's report: what the grid alone says, as it came to be with these images."""
    given, came_to_be = {**grid.base, **point.varied, "n_seeds": grid.seeds}, point.settings.as_json()
    shrunk = [name for name in FITTED if name in given and name not in {*grid.asked, *point.varied}]
    return given | {name: came_to_be[name] for name in shrunk}


def report_command(given: Mapping[str, Any], folder: Path) -> list[str]:
    """What makes a report with these parameters in that folder, without ablations of its own."""
    words = [word for key, value in given.items() if value is not None for word in ("-p", f"{key}={as_text(value)}")]
    only = [word for notebook in NOTEBOOKS for word in ("--only", notebook)]
    return [sys.executable, "-m", "contrastive", "report", "--out", str(folder), *only, *words]
