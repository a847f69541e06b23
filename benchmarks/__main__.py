"""`python -m benchmarks`: measure everything, write the numbers as JSON and the report as HTML.

Whatever is compared runs in turn, A B A B, each in a process of its own; a figure is the median over the rounds, with
the smallest and largest beside it, and ratios are of figures of the same run. Times of other runs, on another machine
or day, are not comparable.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

from contrastive.data.images import load_images, resolve
from contrastive.storage.files import atomic_write
from contrastive.report.execute import execute_notebook
from contrastive.report.provenance import provenance
from contrastive.report.render import render
from contrastive.report.runner import writable_folder
from contrastive.settings.model import Settings, UserError, make_settings, nearest

from . import worker
from .arms import ARMS, AUGMENTATIONS, LOSSES
from .worker import Worker

HERE = Path(__file__).parent
PUBLISHED = HERE.parent / "reports" / "published"
PEERS = ("lightly", "kornia", "pytorch-metric-learning")
SCOPES: dict[str, dict[str, Any]] = {
    "full": dict(
        rounds=3, seconds=1.0, seeds=5, peer_seeds=2, goal=98.6, n_labels=30_000, epochs=(1, 10),
        equal_epochs=10, sizes=(256, 1024, 4096, 16384), many=60_000,
        settings=dict(dataset="mnist", batch_size=256, temperature=0.5, lr=3e-3),
        goal_settings=dict(dataset="mnist", batch_size=128, temperature=0.5, lr=5e-3),
    ),
    # Seconds, on bundled data and small networks: shows that everything works, not how fast.
    "smoke": dict(
        rounds=1, seconds=0.01, seeds=1, peer_seeds=1, goal=40.0, n_labels=300, epochs=(1, 2),
        equal_epochs=1, sizes=(64,), many=1024,
        settings=dict(preset="smoke", width=4), goal_settings=dict(preset="smoke", width=4, batch_size=64),
    ),
}  # fmt: skip


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Median, smallest and largest of some measurements, and all of them."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


def in_turn(workers: dict[str, Worker], rounds: int, call: Callable[[str, Worker], float]) -> dict[str, dict[str, Any]]:
    """Each arm's measurements over the rounds: A B C A B C."""
    values: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, process in workers.items():
            values[name].append(call(name, process))
    return {name: spread(measured) for name, measured in values.items()}


class Bench:
    """One run of the benchmark: its scope, which arms take part, and what was measured."""

    def __init__(self, scope: str, without: set[str]):
        self.scope = SCOPES[scope]
        self.without = without
        self.settings = resolve(make_settings(augment="simclr", device="cpu", **self.scope["settings"]))
        self.results: dict[str, Any] = {}

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Those of some arms whose library takes part."""
        return [name for name in names if name.partition(",")[0] not in self.without]

    def measure(self, partial: Path, commit: str) -> dict[str, Any]:
        """Everything, part by part, each with the commit that it was measured at. What there is so far is in the file
        `partial`, and an interrupted run goes on from there: only figures of one part are compared with each other.
        """
        if partial.exists():
            self.results = json.loads(partial.read_text())
        parts = (self.throughput, self.parts, self.augmentation, self.losses, self.scaling, self.notebook, self.goal)
        for part in parts:
            if part.__name__ in self.results:
                continue
            started = time.perf_counter()
            print(f"{part.__name__} ...", flush=True)
            self.results[part.__name__] = part()
            self.results.setdefault("commits", {})[part.__name__] = commit
            atomic_write(partial, json.dumps(self.results, indent=1).encode())
            print(f"{part.__name__}: {time.perf_counter() - started:.0f} s", flush=True)
        return self.results

    def throughput(self) -> dict[str, Any]:
        """Images per second of each arm, over epochs of 5 s or more a round; the first is not counted."""
        with ExitStack() as stack:
            workers = {name: stack.enter_context(Worker()) for name in self.chosen(ARMS)}
            for name, process in workers.items():
                process(worker.prepare, name, self.settings)
                process(worker.epoch)

            def images_per_second(name: str, process: Worker) -> float:
                images, seconds = 0.0, 0.0
                while seconds < 5 * self.scope["seconds"]:
                    done = process(worker.epoch)
                    images, seconds = images + done["images"], seconds + done["seconds"]
                return images / seconds

            return in_turn(workers, self.scope["rounds"], images_per_second)

    def parts(self) -> dict[str, Any]:
        """Our step and its parts, in turn, in ms; and the machine's matrix products, in operations per second."""
        with Worker() as process:
            names = process(worker.prepare_parts, self.settings)
            values: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(3 * self.scope["rounds"]):
                for name in names:
                    values[name].append(1000 * process(worker.timed, name, self.scope["seconds"] / 3))
            product = names[-1]
            size = int(product.split()[-1])
            rates = [2 * size**3 / (ms / 1000) for ms in values.pop(product)]
            return {
                "milliseconds": {name: spread(measured) for name, measured in values.items()},
                "operations": process(worker.operations, self.settings),
                "matrix_product": {"size": size, "per_second": spread(rates)},
            }

    def augmentation(self) -> dict[str, Any]:
        """Augmenting one batch, two views of each image, in ms."""
        with ExitStack() as stack:
            workers = {name: stack.enter_context(Worker()) for name in self.chosen(AUGMENTATIONS)}
            for name, process in workers.items():
                process(worker.prepare_augmentation, name, self.settings)
                process(worker.timed, name, 0)
            return in_turn(
                workers,
                self.scope["rounds"],
                lambda name, process: 1000 * process(worker.timed, name, self.scope["seconds"]),
            )

    def losses(self) -> dict[str, Any]:
        """Forward and backward of NT-Xent in ms, and what the first call takes of memory, by number of images."""
        results: dict[str, Any] = {}
        for n in self.scope["sizes"]:
            with ExitStack() as stack:
                names = self.chosen(LOSSES)
                if n > 256:  # it holds all triples of anchor, positive and negative
                    names = [name for name in names if name != "pytorch-metric-learning"]
                if n > 4096:  # a matrix of this size takes gigabytes
                    names = ["ours"]
                workers = {name: stack.enter_context(Worker()) for name in names}
                first = {
                    name: process(worker.prepare_loss, name, n, self.settings.projection_dim, self.settings.temperature)
                    for name, process in workers.items()
                }
                for what in ("value", "gradient"):
                    off = max(abs(f[what] / first["ours"][what] - 1) for f in first.values())
                    if off > 1e-3:
                        raise AssertionError(f"the losses do not agree at N={n}: {first}")
                times = in_turn(
                    workers,
                    self.scope["rounds"],
                    lambda name, process: 1000 * process(worker.timed, name, self.scope["seconds"]),
                )
                results[str(n)] = {
                    name: {"milliseconds": times[name], "extra_MiB": round(first[name]["MiB"], 1)} for name in names
                }
        return results

    def scaling(self) -> dict[str, Any]:
        """Microseconds per image of our epochs on few and on many images, and the memory that the latter take."""
        images = load_images(self.settings)
        many = min(self.scope["many"], len(images.train))
        sizes = {str(n): self.settings.but(n_images=n) for n in (self.settings.n_images, many)}
        with ExitStack() as stack:
            workers = {name: stack.enter_context(Worker()) for name in sizes}
            for name, process in workers.items():
                process(worker.prepare, "ours", sizes[name])
                process(worker.epoch)

            def per_image(name: str, process: Worker) -> float:
                done = process(worker.epoch)
                return 1e6 * done["seconds"] / done["images"]

            times = in_turn(workers, self.scope["rounds"], per_image)
            return {"microseconds": times, "peak_MiB": {n: w(worker.peak) / 2**20 for n, w in workers.items()}}

    def notebook(self) -> dict[str, Any]:
        """Seconds that a notebook takes beside its cells: starting a kernel, executing, rendering the page."""
        source = HERE.parent / "notebooks" / "01_pretrain.ipynb"
        beside, imports = [], []
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, CONTRASTIVE_RUNS=folder):
            for _ in range(1 + self.scope["rounds"]):
                started = time.perf_counter()
                done, error, _ = execute_notebook(source, {"preset": "smoke"})
                if error:
                    raise RuntimeError(f"a notebook failed: {error}")
                render("01_pretrain", done, {}, [], [])
                cells = [c.metadata["papermill"]["duration"] for c in done.cells if c.cell_type == "code"]
                beside.append(time.perf_counter() - started - sum(cells))
                imports.append(max(cells[:3]))  # parameters, those of this run, set-up
        return {"beside_cells": spread(beside[1:]), "imports": spread(imports[1:])}  # the first one trained

    def goal(self) -> dict[str, Any]:
        """Test accuracy of a linear probe after runs of several lengths, until the goal is reached: ours and lightly's.

        Each length is a run of its own, with its own schedule of learning rates, from the first step on.
        """
        scope = self.scope
        lightly = self.chosen(["lightly, 0 workers"])
        base = resolve(make_settings(device="cpu", **scope["goal_settings"]))
        found: dict[str, Any] = {
            "goal": scope["goal"], "n_labels": scope["n_labels"], "settings": json.loads(base.canonical_json()),
            "lengths": [str(n) for n in scope["epochs"]], "runs": {}, "reached": {},
        }  # fmt: skip
        for name in ["ours", *lightly]:
            seeds = scope["seeds" if name == "ours" else "peer_seeds"]
            runs = found["runs"][name] = {}
            for epochs in scope["epochs"]:
                settings = base.but(epochs=epochs, warmup_epochs=min(1, epochs / 4))
                run = runs[str(epochs)] = self._runs(name, settings, seeds)
                print(f"  {name}: {epochs} epochs, {run['accuracy']['mean']:.2f} %", flush=True)
                if run["accuracy"]["mean"] >= scope["goal"]:
                    found["reached"][name] = epochs
                    break
        # Is speed bought with quality? Our code with the recipe as written, for as many epochs as lightly's runs.
        epochs = scope["equal_epochs"]
        equal = base.but(augment="simclr", epochs=epochs)
        found["equal_epochs"] = {"epochs": epochs, "ours": self._runs("ours", equal, scope["peer_seeds"])}
        for name in lightly:
            found["equal_epochs"][name] = found["runs"][name].get(str(epochs)) or self._runs(
                name, equal, scope["peer_seeds"]
            )
        return found

    def _runs(self, name: str, settings: Settings, seeds: int) -> dict[str, Any]:
        seconds, accuracy = [], []
        for seed in range(settings.seed, settings.seed + seeds):
            with Worker() as process:
                process(worker.prepare, name, settings.but(seed=seed), True)
                seconds.append(sum(process(worker.epoch)["seconds"] for _ in range(settings.epochs)))
                accuracy.append(process(worker.accuracy, settings.but(seed=seed), self.scope["n_labels"]))
        return {
            "seconds": {"mean": statistics.fmean(seconds), "values": seconds},
            "accuracy": {
                "mean": statistics.fmean(accuracy),
                "std": statistics.stdev(accuracy) if seeds > 1 else 0.0,
                "values": accuracy,
            },
        }


def publish(results: dict[str, Any], folder: Path) -> Path:
    """Write `benchmarks.json` and `benchmarks.html` into a folder. Returns the page's path."""
    atomic_write(folder / "benchmarks.json", (json.dumps(results, indent=1) + "\n").encode())
    numbers = os.path.relpath(folder / "benchmarks.json", HERE)  # the page should not tell where files lay
    notebook, error, _ = execute_notebook(HERE / "benchmarks.ipynb", {"numbers": numbers})
    page = render("benchmarks", notebook, {}, [error] if error else [], [], results.get("note", ""))
    atomic_write(folder / "benchmarks.html", page.encode())
    if error:
        raise RuntimeError(f"the report's notebook failed: {error}")
    return folder / "benchmarks.html"


def complain(message: str) -> int:
    """Say in one line what was wrong. Returns the exit code of a wrong request."""
    print(f"error: {message}", file=sys.stderr)
    return 2


def main(argv: list[str] | None = None) -> int:
    """Measure and publish. Returns the exit code: 0, or 2 when the request was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--scope", choices=SCOPES, default="full", help="full (half an hour) or smoke (some minutes)")
    parser.add_argument("--without", default="", help=f"libraries to leave out, of {', '.join(PEERS)}")
    parser.add_argument("--out", type=Path, help="folder (default: reports/published; reports/benchmarks for smoke)")
    parser.add_argument("--render-only", action="store_true", help="render the numbers that are in the folder")
    args = parser.parse_args(argv)
    without = {name.strip() for name in args.without.split(",") if name.strip()}
    out = args.out or (PUBLISHED if args.scope == "full" else PUBLISHED.parent / "benchmarks")
    try:
        for name in without:
            if name not in PEERS:
                return complain(nearest(name, PEERS, "library"))
        if args.render_only:
            try:
                measured = json.loads((out / "benchmarks.json").read_text())
            except (OSError, ValueError) as error:
                return complain(f"{out / 'benchmarks.json'} cannot be read ({type(error).__name__}): run `make bench`.")
            print(publish(measured, out))
            return 0
        if sys.platform != "linux":
            return complain("memory is measured by Linux's /proc, which this system lacks.")
        versions = {}
        for name in PEERS:
            if name not in without:
                try:
                    versions[name] = metadata.version(name)
                except metadata.PackageNotFoundError:
                    return complain(f"{name} is not installed: use `make bench`, or --without {name}.")
        bench = Bench(args.scope, without)
        out = writable_folder(out)
    except UserError as mistake:
        return complain(str(mistake))
    made, images = provenance(bench.settings), load_images(bench.settings)  # of the code that is measured
    with Worker() as process:
        machine = process(worker.machine)
    partial = out / "benchmarks.partial.json"
    results = {
        "scope": args.scope,
        "machine": machine,
        "dataset": {"name": images.name, "sha256": images.sha256},
        "settings": json.loads(bench.settings.canonical_json()),
        "rounds": bench.scope["rounds"],
        "packages": made["packages"] | versions,
        "dirty": made["dirty"],
        "start": made["start"],
        "note": images.note,
        **bench.measure(partial, made["commit"]),
    }
    results["end"] = provenance(bench.settings)["end"]
    print(publish(results, out))
    partial.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
