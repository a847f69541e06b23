"""Many runs, each cached by its settings: those of a grid, in several processes, with failures kept apart."""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from tqdm import tqdm

from ..data.images import load_images, split
from ..storage.files import DamagedError, locked, printable, read_json, say, tell, write_json
from .grids import Grid, GridResult, Point, finding, grid_points, load_grid, untrained_sentence
from ..training.runs import TRAINING_CODE, Run, code_hash, load_encoder, load_method, pretrain
from ..evaluation.probes import validation_accuracy, weights_hash
from ..settings.model import RunError, Settings, UserError, make_settings, runs_root
from ..storage.signals import Stop, terminate
from ..training.loop import initial_method, start

Job = tuple[str, Settings]
TIMED = 8  # configurations whose speed a dry run measures


def run_grid(grid: Grid, jobs: int = 1, progress: bool = True, lines: bool = False) -> GridResult:
    """Train and judge every point of a grid with every seed, or load what was done before.

    jobs: how many processes at once; each has its share of the threads. lines: print a line for each run that ended, in
    place of a bar. A run that fails is told of in the result, and does not stop the others. Raises: UserError, before
    anything starts.
    """
    points = grid_points(grid)
    started = time.perf_counter()
    first = next(iter(points.values())).settings
    images = load_images(first)
    result = GridResult(grid, points, len(split(images, first.n_images or 0, first.seed).validation))
    result.values = {kind: {name: {} for name in points} for kind in grid.features}
    todo = grid_jobs(grid, points)
    bar = tqdm(total=len(todo), desc=f"grid {grid.name}", disable=lines or not progress, mininterval=1, file=sys.stdout)
    with bar:
        for ended, ((name, settings), (values, changed, why, seconds)) in enumerate(_run_all(todo, grid, jobs), 1):
            for kind, value in values.items():
                result.values[kind][name][settings.seed] = value
            result.code_changed |= changed
            if why:
                result.failures.append((name, settings.seed, why))
            bar.set_postfix_str(f"{name}, seed {settings.seed}"[:60], False)
            bar.update()
            if lines:
                shown = "  ".join(f"{value:.2f} %" for value in values.values()) or "failed"
                tell(printable(f"{ended}/{len(todo)}  {name}  seed {settings.seed}  {shown}  {seconds:.1f} s"))
    for name, settings in tqdm(
        todo, desc="not pretrained", disable=lines or not progress, mininterval=1, file=sys.stdout
    ):
        if settings.seed in result.values.get("h", {}).get(name, {}):
            result.untrained.setdefault(name, {})[settings.seed] = untrained_accuracy(settings, grid.labels)
    result.seconds = time.perf_counter() - started
    return result


def grid_jobs(grid: Grid, points: Mapping[str, Point]) -> list[Job]:
    """Every run of a grid: all points with the first seed, then all with the second, and so on, so that an interrupted
    grid has something of every point."""
    return [
        (name, point.settings.but(seed=point.settings.seed + i))
        for i in range(grid.seeds)
        for name, point in points.items()
    ]


Outcome = tuple[dict[str, float], bool, str, float]


def _run_all(todo: list[Job], grid: Grid, jobs: int) -> Iterator[tuple[Job, Outcome]]:
    if jobs == 1:
        for job in todo:
            yield job, measure_one(job[1], grid.labels, grid.features)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    threads = max(1, torch.get_num_threads() // jobs)
    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=2 * jobs)
    tasks = [
        delayed(_in_worker)(i, settings, grid.labels, grid.features, threads) for i, (_, settings) in enumerate(todo)
    ]
    left = set(range(len(todo)))
    try:
        for i, outcome in parallel(tasks):
            left.remove(i)
            yield todo[i], outcome
    except TerminatedWorkerError:  # all workers have gone with it, and nothing tells which run it was
        say("a process was killed, likely for want of memory: the runs that are left go one at a time")
        for i in sorted(left):
            try:
                yield todo[i], Parallel(n_jobs=2)([tasks[i]])[0][1]  # 2, for with 1 it would be this very process
            except TerminatedWorkerError:
                yield todo[i], ({}, False, "its process was killed, likely for want of memory", 0.0)


def _in_worker(i: int, settings: Settings, labels: int, features: tuple[str, ...], threads: int) -> tuple[int, Outcome]:
    import signal

    # A worker that is told to stop writes its checkpoint first; one that has nothing to do just ends.
    taken = [number for number in Stop.SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, terminate)
    torch.set_num_threads(threads)
    try:
        return i, measure_one(settings, labels, features)
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def measure_one(settings: Settings, labels: int, features: tuple[str, ...]) -> Outcome:
    """Validation accuracy of one run, trained if need be, on each kind of features; whether its code has changed since;
    why it failed, or nothing; and the seconds that all of it took."""
    began, values, changed, why = time.perf_counter(), {}, False, ""
    try:
        run = pretrain(settings, progress=False)
        values, changed = {kind: _cached_accuracy(run, labels, kind) for kind in features}, run.code_changed
    except UserError as failure:
        why = str(failure)
    except Exception as failure:  # whatever it is, the other runs are to go on
        why = f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}"
    return values, changed, why, time.perf_counter() - began


def _cached_accuracy(run: Run, n_labels: int, kind: str) -> float:
    path = run.folder / "validation.json"
    key = code_hash((*TRAINING_CODE, "probes")) + f" {weights_hash(load_encoder(run))} {n_labels} {kind}"
    with locked(run.folder, "evaluating it"):
        saved: dict[str, float] = {}
        try:
            saved = read_json(path)
        except FileNotFoundError:
            pass
        except DamagedError as damage:
            say(f"{damage} The run is evaluated again.")
        if key not in saved:
            encoder, head = load_encoder(run), load_method(run).head if kind == "z" else None
            saved = {name: value for name, value in saved.items() if name.split()[0] == key.split()[0]}
            saved[key] = validation_accuracy(run.settings, encoder, n_labels, head)
            write_json(path, saved)
    return saved[key]


def untrained_accuracy(settings: Settings, n_labels: int) -> float:
    """Validation accuracy of a run's encoder with its random first weights, judged as the pretrained one is; or what
    was measured of the very same before, which is kept in `$CONTRASTIVE_RUNS/untrained/`."""
    encoder = initial_method(settings).encoder
    code, data = code_hash((*TRAINING_CODE, "probes")), load_images(settings).sha256
    # The same weights give other features, whole or averaged
    decisive = [code, data, weights_hash(encoder), settings.encoder, settings.features, settings.seed, n_labels]
    path = runs_root() / "untrained" / f"{hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]}.json"
    try:
        return read_json(path)["accuracy"]
    except FileNotFoundError:
        pass
    except DamagedError as damage:
        say(f"{damage} It is measured again.")
    accuracy = validation_accuracy(settings, encoder, n_labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"accuracy": accuracy})
    return accuracy


def ablation_overrides(name: str, settings: Settings) -> dict[str, Any]:
    """What 03_ablations changes of a grid: data, seeds and labels, and the size of each run where the grid leaves it
    alone."""
    grid = load_grid(name)
    varied = {*grid.vary, *(key for point in grid.points for key in point)}
    changes: dict[str, Any] = {
        "dataset": settings.dataset,
        "n_images": settings.n_images,
        "epochs": settings.ablation_epochs,
        "width": settings.ablation_width,
        "seed": settings.seed,
        "precision": settings.precision,
        "device": settings.device,
        "batch_size": min(int(grid.base.get("batch_size", 128) or 128), settings.n_images or 128),
    }
    changes = {key: value for key, value in changes.items() if key not in varied}
    return {**changes, "seeds": settings.ablation_seeds, "labels": settings.ablation_labels}


# --- The command `sweep` ---------------------------------------------------------------------------------------------


def state_of(settings: Settings) -> str:
    """Whether a run is done, partly done or to do, by its folder."""
    folder = runs_root() / settings.run_name
    if (folder / "encoder.safetensors").exists():
        return "done"
    return "partly" if (folder / "state.pt").exists() else "to do"


def dry_run(grid: Grid, jobs: int, reports: bool = False) -> None:
    """Print a grid's runs and how long they would take, by the time of a few training steps; nothing is started."""
    points = grid_points(grid, reports)
    tell_note(grid, points)
    runs: dict[str, Job] = {}
    for job in grid_jobs(grid, points):
        runs.setdefault(job[1].run_name, job)  # reports may share one
    todo = list(runs.values())
    costs: dict[tuple, float] = {}
    seconds = 0.0
    for name, settings in todo:
        state = state_of(settings)
        tell(printable(f"{state:7} {settings.run_name}  {name}, seed {settings.seed}"))
        if state != "done":
            seconds += settings.epochs * _seconds_of_epoch(settings, costs) + 2
    n = sum(state_of(settings) != "done" for _, settings in todo)
    tell(f"{len(todo)} runs, {n} to do: about {_clock(seconds)} with one job")
    if reports:
        tell(f"That is pretraining alone: the evaluations of {len(points)} reports come on top.")
    if jobs > 1:
        tell(f"with {jobs} jobs at best {_clock(seconds / max(min(jobs, n), 1))}, on as many cores")


def tell_note(grid: Grid, points: Mapping[str, Point]) -> None:
    """Say what a reader must know of the data, such as that they are not MNIST's."""
    asked = make_settings(**{**grid.base, **next(iter(points.values())).varied})  # not yet resolved, so maybe auto
    if note := load_images(asked).note:
        say(note)


def _seconds_of_epoch(settings: Settings, costs: dict[tuple, float]) -> float:
    """By timing four steps, after one that is not counted, of at most TIMED configurations; of others by that with the
    nearest width and batch."""
    views = settings.view_size or 0, settings.augment, settings.second_augment
    kind = (settings.width, settings.batch_size, *views, settings.features, settings.encoder, settings.precision)
    if kind not in costs and len(costs) >= TIMED:
        kind = min(costs, key=lambda k: (abs(k[0] - settings.width), abs(k[1] - settings.batch_size)))
    if kind not in costs:
        images = load_images(settings)
        indices = split(images, settings.n_images or 0, settings.seed).pretrain
        training = start(settings, images.train[indices])
        training.advance(training.begin(0))
        position, steps = training.begin(0), min(4, training.steps)
        began = time.perf_counter()
        for _ in range(steps):
            training.advance(position)
        with suppress(RunError):  # that it will fail does not change how long a step takes
            training.check(position)
        costs[kind] = (time.perf_counter() - began) / (steps * settings.batch_size)
    n = (settings.n_images or 0) // settings.batch_size * settings.batch_size
    return costs[kind] * n


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
    tell_note(grid, grid_points(grid))  # after a check of the whole grid: a mistake is to leave no folder behind
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
    if result.code_changed:
        say("some of these runs were trained by older code: to compare like with like, move their folders away")
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
                "runs": [point.settings.but(seed=point.settings.seed + i).run_name for i in range(result.grid.seeds)],
            }
            for name, point in result.points.items()
        ],
        "failures": [{"point": name, "seed": seed, "why": why} for name, seed, why in result.failures],
        "code_changed": result.code_changed,
    }
