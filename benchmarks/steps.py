"""`python -m benchmarks.steps`: what a training step of each method takes, in time and memory, beside SimCLR's.

All methods have the same encoder, images and batch, and take their steps in turn. Beside each time stands what its
operations explain: those of all passes forward and backward, counted, as a multiple of SimCLR's; beside each memory,
the views (counted by their area) whose passes are kept for the gradient.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from contrastive import Settings, resolve
from contrastive.data import split
from contrastive.report.origins import cpu_model
from contrastive.settings import METHODS
from contrastive.storage.files import atomic_write
from contrastive.training import begin_epoch, start
from contrastive.training.footprint import step_memory
from contrastive.training.loop import Training, take_step

from .made_up import write_made_up

BASE, SIDE = "simclr", 32
ROUNDS = 7


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args(argv)
    names = [BASE, *(name for name in METHODS if name != BASE)]
    with tempfile.TemporaryDirectory() as folder:
        path = write_made_up(Path(folder), 50 + 4 * args.batch, 20, SIDE)
        begun = {
            f"{name}{', 2 views' if views == 0 else ''}": _begin(str(path), name, args.encoder, args.batch, views)
            for name in names
            for views in ((None, 0) if METHODS[name].LOCAL_VIEWS else (None,))
        }
    rows = measure(begun)
    for row in rows:
        print("  ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    settings = begun[BASE].settings
    facts = {
        "encoder": args.encoder, "batch_size": args.batch, "side": SIDE, "cpu": cpu_model(),
        "threads": torch.get_num_threads(), "precision": settings.runtime.precision,
        "device": settings.runtime.device,
    }  # fmt: skip
    if args.out:
        atomic_write(args.out, (json.dumps({**facts, "methods": rows}, indent=1) + "\n").encode())
    return 0


def _begin(dataset: str, method: str, encoder: str, batch: int, local_views: int | None) -> Training:
    own = {} if local_views is None else {"local_views": local_views}
    asked = Settings(dataset=dataset, method=method, encoder=encoder, batch_size=batch, n_images=4 * batch, **own)
    settings, images = resolve(asked)
    index = split(images, settings.data.n_images or 0, 0).pretrain
    return start(settings, images.format, images.train[index], images.train_labels[index])


def measure(begun: dict[str, Training]) -> list[dict[str, Any]]:
    """A row for each method; the first one is what the others are compared with."""
    found = {name: _counted(training) for name, training in begun.items()}
    seconds: dict[str, list[float]] = {name: [] for name in begun}
    for _ in range(ROUNDS):
        for name, training in begun.items():
            seconds[name].append(_timed(training))
    base = next(iter(begun))
    rows = []
    for name, own in found.items():
        ratios = [mine / first for mine, first in zip(seconds[name], seconds[base], strict=True)]
        rows.append({
            "method": name,
            "milliseconds": 1e3 * statistics.median(seconds[name]),
            "time": statistics.median(ratios),
            "explained_time": own["operations"] / found[base]["operations"],
            "MiB": own["bytes"] / 2**20,
            "memory": own["bytes"] / found[base]["bytes"],
            "explained_memory": own["views"] / found[base]["views"],
        })  # fmt: skip
    return rows


def _counted(training: Training) -> dict[str, float]:
    """Operations and memory of a step, and the views whose passes are kept, in images of full size."""
    take_step(training, begin_epoch(training, 0))  # what the optimiser remembers comes to be
    with FlopCounterMode(display=False) as counter:
        take_step(training, begin_epoch(training, 0))
    kept = sum(view.count * ((view.size or SIDE) / SIDE) ** 2 for view in training.method.views())
    taken = step_memory(training, begin_epoch(training, 0))
    return {"operations": counter.get_total_flops(), "bytes": taken, "views": _views_with_gradient(training, kept)}


def _views_with_gradient(training: Training, views: float) -> float:
    """MoCo v2's keys are made of one of the two large views, without a gradient."""
    return views - 1 if training.settings.method.name == "mocov2" else views


def _timed(training: Training) -> float:
    state = begin_epoch(training, 0)
    began = time.perf_counter()
    take_step(training, state)
    state.first_bad_step()  # waits for the device
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
