"""What is measured, part by part.

Whatever is compared runs in turn, A B A B, each in a process of its own; a figure is the median over the rounds, with
the smallest and largest beside it, and ratios are of figures of the same run.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from contrastive.report.execute import execute_notebook
from contrastive.report.render import render_page
from contrastive.settings import METHODS, Settings, decisive_parameters
from contrastive.storage.files import atomic_write
from contrastive.training import resolve

from . import PartError, worker
from .arms import ARMS, WORKERS, n_images, simclr
from .goal import ratio_to_goal, shortest, summary
from .losses import LOSSES
from .made_up import write_made_up
from .views import AUGMENTATIONS
from .whole_report import time_report
from .worker import Worker

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "01_pretrain.ipynb"  # whose own cost is measured
LIGHTLY = f"lightly, {WORKERS}"
RESNETS = ("ours", "ours, float32", LIGHTLY, f"torchvision, {WORKERS}")
SCOPES: dict[str, dict[str, Any]] = {
    "full": dict(
        rounds=3, seconds=1.0, seeds=5, peer_seeds=3, goal=98.6, n_labels=30_000, most_epochs=64,
        equal_epochs=8, sizes=(256, 1024, 4096, 16384), many=60_000,
        sides={28: 256, 32: 256, 64: 128, 128: 64, 224: 32},
        settings=dict(dataset="mnist", batch_size=256, temperature=0.5, lr=3e-3),
        goal_settings=dict(dataset="mnist", batch_size=128, temperature=0.5, lr=5e-3),
        resnet_settings=dict(n_images=128, batch_size=64, temperature=0.5),
        reports=(("--preset", "quick", "-p", "precision=float32"), ("--preset", "quick")),
    ),
    # Seconds, on bundled data and small networks: shows that everything works, not how fast.
    "smoke": dict(
        rounds=1, seconds=0.01, seeds=1, peer_seeds=1, goal=40.0, n_labels=300, most_epochs=2,
        equal_epochs=1, sizes=(64,), many=1024, sides={16: 16, 24: 8},
        settings=dict(preset="smoke", base_channels=4),
        goal_settings=dict(preset="smoke", base_channels=4, batch_size=64),
        resnet_settings=dict(preset="smoke", n_images=4, batch_size=2),
        reports=(("--preset", "smoke"),),
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


def decisive(settings: Settings) -> dict[str, Any]:
    """The parameters that decide the weights, by their names."""
    deciding = decisive_parameters()
    return {name: value for name, value in settings.as_json().items() if name in deciding}


class Bench:
    """One run of the benchmark: its scope, which arms take part, and what was measured."""

    def __init__(self, scope: str, without: set[str]):
        self.scope = SCOPES[scope]
        self.without = without
        self.settings, self.images = resolve(Settings(augment="simclr", device="cpu", **self.scope["settings"]))
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
        for part in (
            self.throughput, self.parts, self.augmentation, self.losses, self.scaling, self.methods, self.resnet18,
            self.notebook, self.report, self.goal,
        ):  # fmt: skip
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
        return self._rates({name: (name, self.settings) for name in self.chosen(ARMS)})

    def methods(self) -> dict[str, Any]:
        """Images per second of ours, by every method that there is."""
        return self._rates({name: ("ours", self.settings.replace(method=name)) for name in METHODS})

    def resnet18(self) -> dict[str, Any]:
        """Images per second with a ResNet-18 on images of 32 pixels in colour, which are made up."""
        own = self.scope["resnet_settings"]
        with tempfile.TemporaryDirectory() as folder:
            path = write_made_up(Path(folder), 50 + own["n_images"], 20, 32)
            settings, _ = resolve(
                Settings(dataset=str(path), encoder="resnet18", augment="simclr", device="cpu", **own)
            )
            return {
                "batch_size": settings.optimiser.batch_size,
                "arms": self._rates({name: (name, settings) for name in self.chosen(RESNETS)}),
            }

    def _rates(self, arms: dict[str, tuple[str, Settings]]) -> dict[str, Any]:
        """Images per second, by what they are called, of arms with settings of their own."""
        with ExitStack() as stack:
            workers = {name: stack.enter_context(Worker()) for name in arms}
            for name, process in workers.items():
                process(worker.prepare, *arms[name])
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
        """Views a second by one thread, and what the first call takes of memory beyond them, by the images' side."""
        results: dict[str, Any] = {}
        for side, n in self.scope["sides"].items():
            with ExitStack() as stack:
                workers = {name: stack.enter_context(Worker()) for name in self.chosen(AUGMENTATIONS)}
                extra = {name: w(worker.prepare_augmentation, name, side, n) for name, w in workers.items()}
                rates = in_turn(
                    workers,
                    self.scope["rounds"],
                    lambda name, process, n=n: 2 * n / process(worker.timed, name, self.scope["seconds"]),  # type: ignore[misc]
                )
                arms = {name: {"views_per_second": rates[name], "extra_memory": extra[name]} for name in workers}
                results[str(side)] = {"images": n, "arms": arms}
        return results

    def losses(self) -> dict[str, Any]:
        """Forward and backward of NT-Xent in ms, and what the first call takes of memory, by number of images."""
        results: dict[str, Any] = {}
        own = simclr(self.settings)
        for n in self.scope["sizes"]:
            with ExitStack() as stack:
                names = self.chosen(LOSSES)
                if n > 256:  # it holds all triples of anchor, positive and negative
                    names = [name for name in names if name != "pytorch-metric-learning"]
                if n > 4096:  # a matrix of this size takes gigabytes
                    names = ["ours"]
                workers = {name: stack.enter_context(Worker()) for name in names}
                first = {
                    name: process(worker.prepare_loss, name, n, own.projection_dim, own.temperature)
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
        many = min(self.scope["many"], len(self.images.train))
        sizes = {str(n): self.settings.replace(n_images=n) for n in (n_images(self.settings), many)}
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
        beside, imports = [], []
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, CONTRASTIVE_RUNS=folder):
            for _ in range(1 + self.scope["rounds"]):
                started = time.perf_counter()
                done, error, _ = execute_notebook(NOTEBOOK, {"preset": "smoke"})
                if error:
                    raise PartError(f"a notebook failed: {error}")
                render_page("01_pretrain", done, {}, [], [])
                cells = [c.metadata["papermill"]["duration"] for c in done.cells if c.cell_type == "code"]
                beside.append(time.perf_counter() - started - sum(cells))
                imports.append(max(cells[:3]))  # parameters, those of this run, set-up
        return {"beside_cells": spread(beside[1:]), "imports": spread(imports[1:])}  # the first one trained

    def report(self) -> dict[str, Any]:
        """Seconds and memory of a whole report, by its command."""
        return {" ".join(("contrastive report", *words)): time_report(words) for words in self.scope["reports"]}

    def goal(self) -> dict[str, Any]:
        """The shortest runs that reach the goal, by the mean test accuracy of a linear probe: ours and lightly's."""
        scope, goal = self.scope, self.scope["goal"]
        lightly = self.chosen([LIGHTLY])
        base, _ = resolve(Settings(augment="handwriting", device="cpu", **scope["goal_settings"]))
        found: dict[str, Any] = {
            "goal": goal, "n_labels": scope["n_labels"], "settings": decisive(base),
            "most_epochs": scope["most_epochs"], "runs": {}, "reached": {}, "ratios": {},
        }  # fmt: skip
        for name in ["ours", *lightly]:

            def measure(epochs: int, name: str = name) -> dict[str, Any]:
                settings = base.replace(epochs=epochs, warmup_epochs=min(1, epochs / 4))
                run = self._runs(name, settings, scope["seeds" if name == "ours" else "peer_seeds"])
                print(f"  {name}: {epochs} epochs, {run['accuracy']['mean']:.2f} %", flush=True)
                return run

            found["runs"][name], reached = shortest(measure, goal, scope["most_epochs"])
            if reached is not None:
                found["reached"][name] = reached
        for name in lightly:
            if {"ours", name} <= found["reached"].keys():
                lengths = found["reached"]["ours"], found["reached"][name]
                found["ratios"][name] = ratio_to_goal(found["runs"]["ours"], found["runs"][name], lengths, goal)
        # Is speed bought with quality? Our code with the recipe as written, for as many epochs as lightly's runs.
        epochs = scope["equal_epochs"]
        equal = base.replace(augment="simclr", epochs=epochs)
        found["equal_epochs"] = {"epochs": epochs, "ours": self._runs("ours", equal, scope["peer_seeds"])}
        for name in lightly:
            found["equal_epochs"][name] = found["runs"][name].get(str(epochs)) or self._runs(
                name, equal, scope["peer_seeds"]
            )
        return found

    def _runs(self, name: str, settings: Settings, seeds: int) -> dict[str, Any]:
        seconds, accuracy = [], []
        for i in range(seeds):
            own = settings.replace(seed=settings.runtime.seed + i)
            with Worker() as process:
                process(worker.prepare, name, own, True)
                seconds.append(sum(process(worker.epoch)["seconds"] for _ in range(own.optimiser.epochs)))
                accuracy.append(process(worker.accuracy, own, self.scope["n_labels"]))
        return summary(seconds, accuracy)
