"""Many runs, each cached by its settings: those of a grid, in several processes, with failures kept apart."""

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from tqdm import tqdm

from ..data import Images, read_images, split
from ..encoders import Encoder
from ..evaluation.probes import validation_accuracy
from ..methods import Method
from ..settings import EvaluationSettings, Settings, UserError
from ..storage.cache import memo_record
from ..storage.files import printable, tell
from ..storage.tensors import hash_tensors
from ..training import initial_method, load_encoder, load_method, pretrain, run_folder
from .grids import Grid, Point, grid_points, load_grid
from .verdicts import GridResult
from .workers import in_workers, jobs_that_pay

Job = tuple[str, Settings]


def run_grid(grid: Grid, jobs: int | None = 1, progress: bool = True, lines: bool = False) -> GridResult:
    """Train and judge every point of a grid with every seed, or load what was done before.

    jobs: how many processes at once; each has its share of the threads; None for as many as pay. lines: print a line
    for each run that ended, in place of a bar. A run that fails is told of in the result, and does not stop the others.
    Raises: UserError, before anything starts.
    """
    points = grid_points(grid)
    started = time.perf_counter()
    first = next(iter(points.values())).settings
    images = read_images(first.data)
    validation = split(images, first.data.n_images or 0, first.runtime.seed).validation
    result = GridResult(grid, points, len(validation))
    result.values = {kind: {name: {} for name in points} for kind in grid.features}
    todo = grid_jobs(grid, points)
    jobs = jobs or _jobs_that_pay(todo)
    shown_as: dict[str, Any] = {"disable": lines or not progress, "mininterval": 1, "file": sys.stdout}
    with tqdm(total=len(todo), desc=f"grid {grid.name}", **shown_as) as bar:
        for ended, ((name, settings), (values, why, seconds)) in enumerate(_run_all(todo, grid, jobs), 1):
            for kind, value in values.items():
                result.values[kind][name][settings.runtime.seed] = value
            if why:
                result.failures.append((name, settings.runtime.seed, why))
            bar.set_postfix_str(f"{name}, seed {settings.runtime.seed}"[:60], False)
            bar.update()
            if lines:
                shown = "  ".join(f"{value:.2f} %" for value in values.values()) or "failed"
                tell(printable(f"{ended}/{len(todo)}  {name}  seed {settings.runtime.seed}  {shown}  {seconds:.1f} s"))
    for name, settings in tqdm(todo, desc="not pretrained", **shown_as):
        if settings.runtime.seed in result.values.get("h", {}).get(name, {}):
            result.untrained.setdefault(name, {})[settings.runtime.seed] = untrained_accuracy(settings, grid.labels)
    result.seconds = time.perf_counter() - started
    return result


def grid_jobs(grid: Grid, points: Mapping[str, Point]) -> list[Job]:
    """Every run of a grid: all points with the first seed, then all with the second, and so on, so that an interrupted
    grid has something of every point."""
    return [
        (name, point.settings.replace(seed=point.settings.runtime.seed + i))
        for i in range(grid.seeds)
        for name, point in points.items()
    ]


def _jobs_that_pay(todo: list[Job]) -> int:
    if all((run_folder(own) / "encoder.safetensors").exists() for _, own in todo):
        return 1
    # Of the whole grid, or one that was stopped would go on with other numbers of threads, and so with other bits
    steps = sum(own.optimiser.epochs * ((own.data.n_images or 0) // own.optimiser.batch_size) for _, own in todo)
    return jobs_that_pay(todo[0][1].runtime.device, len(todo), steps)


Outcome = tuple[dict[str, float], str, float]


def _run_all(todo: list[Job], grid: Grid, jobs: int) -> Iterator[tuple[Job, Outcome]]:
    tasks = [(settings, grid.labels, grid.features) for _, settings in todo]
    for i, outcome in in_workers(measure_one, tasks, jobs):
        yield todo[i], outcome or ({}, "its process was killed, likely for want of memory", 0.0)


def measure_one(settings: Settings, labels: int, features: tuple[str, ...]) -> Outcome:
    """Validation accuracy of one run, trained if need be, on each kind of features; why it failed, or nothing; and the
    seconds that all of it took."""
    began, values, why = time.perf_counter(), {}, ""
    try:
        run = pretrain(settings, progress=False)
        encoder, images = load_encoder(run), read_images(run.settings.data)
        for kind in features:
            values[kind] = judge(run.settings, images, encoder, labels, load_method(run) if kind == "z" else None)
    except UserError as failure:
        why = str(failure)
    except Exception as failure:  # whatever it is, the other runs are to go on
        why = f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}"
    return values, why, time.perf_counter() - began


def untrained_accuracy(settings: Settings, n_labels: int) -> float:
    """Validation accuracy of a run's encoder with its random first weights, judged as the pretrained one is."""
    images = read_images(settings.data)
    return judge(settings, images, initial_method(settings, images.format).encoder, n_labels)


def judge(settings: Settings, images: Images, encoder: Encoder, n_labels: int, method: Method | None = None) -> float:
    """`validation_accuracy` on features h or, given the method, on its projections z; or what was measured before of
    the very same weights. Raises: UserError when the method has no projections."""
    if method is not None and "z" not in method.representations(torch.zeros(2, encoder.out_dim)):
        raise UserError(f"method {settings.method.name} has no projections z to judge: leave z out of features.")
    decisive = {
        "version": EvaluationSettings.VERSION,
        "weights": hash_tensors(encoder.state_dict()),
        # the same weights give other features, whole or averaged
        "encoder": [settings.encoder.VERSION, settings.encoder.decisive()],
        "projections": method and [settings.method.VERSION, hash_tensors(method.state_dict())],
        "images": [images.sha256, settings.data.n_images, settings.runtime.seed],
        "device": settings.runtime.device.partition(":")[0],
        "labels": n_labels,
    }

    def compute() -> dict[str, float]:
        return {"accuracy": validation_accuracy(settings, images, encoder, n_labels, method)}

    return float(memo_record("validation", decisive, compute, "evaluating a run")["accuracy"])


def ablation_overrides(name: str, settings: Settings) -> dict[str, Any]:
    """What 03_ablations changes of a grid: data, seeds and labels, and the size of each run where the grid leaves it
    alone."""
    grid = load_grid(name)
    own = settings.ablations
    changes: dict[str, Any] = {
        **settings.data.model_dump(),
        "encoder": settings.encoder.name,
        "method": settings.method.name,
        "epochs": own.ablation_epochs,
        "seed": settings.runtime.seed,
        "precision": settings.runtime.precision,
        "device": settings.runtime.device,
        "view_size": settings.views.view_size,
    }
    if hasattr(settings.encoder, "base_channels"):
        changes["base_channels"] = own.ablation_base_channels
    changes = {key: value for key, value in changes.items() if key not in grid.varied}
    return {**changes, "seeds": own.ablation_seeds, "labels": own.ablation_labels}
