"""A report for each point of a grid: `contrastive sweep GRID --reports`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from ..data.images import load_images
from ..storage.files import BROKEN, DamagedError, printable, read_json, tell
from .grids import Grid, grid_points
from ..settings.model import Settings, UserError, make_settings
from .runner import tell_note
from ..report.provenance import measuring_code

NOTEBOOKS = ("01_pretrain", "02_linear_eval")


def report_grid(grid: Grid, jobs: int, folder: Path) -> int:
    """Run the notebooks for each point of a grid, each in a process of its own, into a folder of its own below
    `folder`. What is there and whole, of the same data and code, is not made again. Returns the exit code."""
    points = grid_points(grid, reports=True)
    tell_note(grid, points)
    threads = max(1, torch.get_num_threads() // jobs)
    todo: dict[str, list[str]] = {}
    for i, (name, point) in enumerate(points.items(), 1):
        own = folder / _slug(name)
        if [_slug(other) for other in points].count(own.name) > 1:
            own = folder / f"{own.name}-{i}"
        if _is_whole(own, point.settings.but(n_seeds=grid.seeds)):
            tell(printable(f"done before  {name}"))
        else:
            todo[name] = report_command({**grid.base, **point.varied, "n_seeds": grid.seeds}, own)
    failed, running = 0, list[subprocess.Popen[str]]()
    with ThreadPoolExecutor(jobs) as pool:  # of threads that wait for processes
        futures = {pool.submit(_report, command, threads, running): name for name, command in todo.items()}
        try:
            for i, future in enumerate(as_completed(futures), 1):
                code, said = future.result()
                failed += code != 0
                tell(printable(f"{i}/{len(todo)}  {futures[future]}  {'failed: ' + said if code else 'ok'}"))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:  # those that have ended do not mind; the others write what they have
                process.terminate()
            raise
    print(folder)
    return int(failed > 0)


def check_nulls(grid: Grid) -> None:
    """Raises: UserError for a null that a report would not have, since in a notebook null is the preset's value."""
    for point in grid_points(grid, reports=True).values():
        given = {**grid.base, **point.varied}
        usual = make_settings(preset=point.settings.preset)
        for name, value in given.items():
            if value is None and getattr(usual, name) is not None:
                raise UserError(
                    f"grid {grid.name}: {name} is null, which in a report stands for the preset's value, and "
                    f"{usual.preset} has {getattr(usual, name)}. Take another preset, or leave out --reports."
                )


def _slug(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9.]+", "-", name).strip("-")[:80]


def _is_whole(folder: Path, settings: Settings) -> bool:
    try:
        results = read_json(folder / "results.json")
        same = all(results["settings"].get(name) == value for name, value in settings.model_dump(mode="json").items())
        same &= results["dataset"]["sha256"] == load_images(settings).sha256
        same &= results["provenance"]["code"] == measuring_code()
        return results["status"] == "ok" and same
    except (*BROKEN, DamagedError):
        return False


def report_command(given: Mapping[str, Any], folder: Path) -> list[str]:
    """What makes a report with these parameters in that folder, without ablations of its own."""
    words = [word for key, value in given.items() if value is not None for word in ("-p", f"{key}={_plain(value)}")]
    only = [word for notebook in NOTEBOOKS for word in ("--only", notebook)]
    return [sys.executable, "-m", "contrastive", "report", "--out", str(folder), *only, *words]


def _report(command: list[str], threads: int, running: list[subprocess.Popen[str]]) -> tuple[int, str]:
    """Run it; its exit code and the last thing that it said on standard error."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    running.append(process)
    _, said = process.communicate()
    return process.returncode, " ".join(said.strip().splitlines()[-1:])


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
