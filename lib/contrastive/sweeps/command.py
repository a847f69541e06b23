"""The command `sweep`: what a grid would do, and what it found."""

import statistics
import sys
from typing import Any

from ..settings import Settings, UserError, runs_root
from ..storage.files import printable, say, tell, write_json
from ..training import resolve, run_folder
from ..training.footprint import step_cost
from .grids import Grid, Point, grid_points, settings_of, with_labels_that_are_there
from .runner import Job, grid_jobs, run_grid
from .verdicts import GridResult, finding, untrained_sentence

TIMED = 8  # configurations whose speed a dry run measures


def state_of(settings: Settings) -> str:
    """Whether a run is done, partly done or to do, by its folder."""
    folder = run_folder(settings)
    if (folder / "encoder.safetensors").exists():
        return "done"
    return "partly" if (folder / "state.pt").exists() else "to do"


def dry_run(grid: Grid, jobs: int, reports: bool = False) -> None:
    """Print a grid's runs and how long they would take, by the time of a few training steps; nothing is started."""
    grid, points = checked(grid, reports)
    runs: dict[str, Job] = {}
    for job in grid_jobs(grid, points):
        runs.setdefault(job[1].run_name, job)  # reports may share one
    todo = list(runs.values())
    costs: dict[tuple, float] = {}
    seconds = 0.0
    for name, settings in todo:
        state = state_of(settings)
        tell(printable(f"{state:7} {settings.run_name}  {name}, seed {settings.runtime.seed}"))
        if state != "done":
            seconds += settings.optimiser.epochs * _seconds_of_epoch(settings, costs) + 2
    n = sum(state_of(settings) != "done" for _, settings in todo)
    tell(f"{len(todo)} runs, {n} to do: about {_clock(seconds)} with one job")
    if reports:
        tell(f"That is pretraining alone: the evaluations of {len(points)} reports come on top.")
    if jobs > 1:
        tell(f"with {jobs} jobs at best {_clock(seconds / max(min(jobs, n), 1))}, on as many cores")


def checked(grid: Grid, reports: bool = False) -> tuple[Grid, dict[str, Point]]:
    """The grid, with no more labels than there are, and its points. Says what a reader must know of the data, such as
    that they are not MNIST's, and what is smaller than the grid's own numbers. Raises: UserError."""
    fitting = grid if reports else with_labels_that_are_there(grid)
    points = grid_points(fitting, reports)
    _, images = resolve(settings_of(grid, next(iter(points.values())).varied))
    if images.note:
        say(images.note)
    if fitting.labels != grid.labels:
        say(f"There are few labels, so each probe has labels={fitting.labels}, rather than {grid.labels}.")
    return fitting, points


def _seconds_of_epoch(settings: Settings, costs: dict[tuple, float]) -> float:
    """By timing a few steps, after those that warm up, of at most TIMED configurations; of others by that with the
    nearest width and batch."""
    size, batch = getattr(settings.encoder, "base_channels", 0), settings.optimiser.batch_size
    parts = settings.views, settings.encoder, settings.method, settings.runtime.precision
    kind: tuple = (size, batch, *map(str, parts))
    if kind not in costs and len(costs) >= TIMED:
        kind = min(costs, key=lambda k: (abs(k[0] - size), abs(k[1] - batch)))
    if kind not in costs:
        costs[kind] = step_cost(settings, memory=False).seconds / batch
    return costs[kind] * ((settings.data.n_images or 0) // batch * batch)


def _clock(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def sweep(grid: Grid, jobs: int) -> int:
    """Run a grid, print what came out and write it to `$CONTRASTIVE_RUNS/sweeps/<name>.json`, whose path is the last
    line. Returns the exit code: 1 when a run failed."""
    grid, _ = checked(grid)  # the whole of it, before a folder is made: a mistake is to leave none behind
    path = runs_root() / "sweeps" / f"{grid.name}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}. Set CONTRASTIVE_RUNS.") from None
    result = run_grid(grid, jobs, lines=not sys.stdout.isatty())
    width = max(map(len, result.points))
    for kind in grid.features:
        tell(
            f"\nvalidation accuracy (%) of a linear probe on {kind} with {grid.labels:,} labels: mean, standard "
            "deviation, seeds"
        )
        for name in result.points:
            own = result.of(name, kind)
            std = statistics.stdev(own) if len(own) > 1 else 0.0
            shown = f"{statistics.fmean(own):6.2f}  {std:5.2f}  {len(own)}" if own else "failed"
            tell(printable(f"  {name:{width}}  {shown}"))
    tell("")
    if said := untrained_sentence(result):
        tell(said)
    for claim in grid.claims:
        tell(printable(finding(result, claim)))
    for name, seed, why in result.failures:
        tell(printable(f"FAILED {name}, seed {seed}: {why}"), sys.stderr)
    write_json(path, as_json(result))
    print(path)
    return int(bool(result.failures))


def as_json(result: GridResult) -> dict[str, Any]:
    """A grid and what came out, for a file."""
    return {
        "grid": result.grid.model_dump(mode="json"),
        "points": [
            {
                "name": name,
                "varied": point.varied,
                "values": {kind: {str(s): v for s, v in result.values[kind][name].items()} for kind in result.values},
                "untrained": {str(s): v for s, v in result.untrained.get(name, {}).items()},
                "runs": [settings.run_name for job, settings in grid_jobs(result.grid, result.points) if job == name],
            }
            for name, point in result.points.items()
        ],
        "failures": [{"point": name, "seed": seed, "why": why} for name, seed, why in result.failures],
    }
