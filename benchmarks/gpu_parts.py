"""What is measured on a GPU, part by part. Each part gives rows, one after the other, as they are measured.

Nothing here needs more than PyTorch, torchvision and what this project's training and evaluation import, so it runs on
a machine where neither notebooks nor other libraries are installed. The tests run it on the CPU, with small sizes.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Generator, Tensor

from contrastive.data import Images
from contrastive.evaluation import evaluate
from contrastive.settings import METHODS, Settings
from contrastive.training import begin_epoch, pretrain, resolve, train
from contrastive.training.graph import StepGraph
from contrastive.training.loop import Training

from .arms import CORES, Epoch, lightly, our_training, run_steps, synchronize, torchvision
from .losses import LOSSES
from .made_up import made_up
from .views import our_batch

DIM = 128  # of the projections that the loss is timed on


@dataclass(frozen=True)
class Sizes:
    """How much is measured: images to pretrain on, the batch, epochs of a whole training and of a short one, steps that
    are timed, epochs of the others, sizes of the loss and of images, workers of a DataLoader, rounds of timings."""

    n_images: int = 5000
    batch_size: int = 256
    epochs: int = 500
    short_epochs: int = 5
    steps: int = 300
    peer_epochs: int = 6
    losses: tuple[int, ...] = (256, 4096, 16384)
    sides: tuple[int, ...] = (32, 64, 128, 224)
    workers: int = CORES
    calls: int = 20
    rounds: int = 5


@dataclass(frozen=True)
class Setup:
    """Where and on what it is measured. grey: 28 pixels, one channel. colour: 32 pixels, three. own: settings for all
    trainings."""

    device: str
    sizes: Sizes
    grey: Images
    colour: Images
    own: dict[str, Any]

    def settings(self, images: Images, **own: Any) -> Settings:
        """Resolved settings of a training on these images."""
        given = dict(device=self.device, n_images=self.sizes.n_images, batch_size=self.sizes.batch_size)
        return resolve(Settings(**{**given, **self.own, **own}), images)[0]

    def training(self, images: Images, settings: Settings) -> Training:
        """Ours at its start, on the first images."""
        return our_training(settings, images, torch.arange(self.sizes.n_images))


@dataclass(frozen=True)
class Row:
    """A figure: what it is of, its value (None: it does not fit into the memory), its unit, and a remark."""

    what: str
    value: float | str | None
    unit: str = ""
    note: str = ""


Part = Callable[[Setup], Iterator[Row]]


# --- Timing -------------------------------------------------------------------------------------------------------


@contextmanager
def fresh_runs() -> Iterator[None]:
    """Keep runs in a folder of their own, which is deleted in the end."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, CONTRASTIVE_RUNS=folder):
        yield


def milliseconds(call: Callable[[], object], setup: Setup) -> float:
    """Of a call: the median over rounds of many calls, after some that are not counted."""
    for _ in range(5):
        call()
    found = []
    for _ in range(setup.sizes.rounds):
        synchronize(setup.device)
        started = time.perf_counter()
        for _ in range(setup.sizes.calls):
            call()
        synchronize(setup.device)
        found.append(1000 * (time.perf_counter() - started) / setup.sizes.calls)
    return statistics.median(found)


def step_milliseconds(training: Training, setup: Setup) -> float:
    """Of one of our steps, over `steps` of them after a tenth as many that are not counted."""
    state, steps = begin_epoch(training, 0), setup.sizes.steps
    run_steps(training, state, max(steps // 10, 5))
    synchronize(setup.device)
    started = time.perf_counter()
    run_steps(training, state, steps)
    synchronize(setup.device)
    return 1000 * (time.perf_counter() - started) / steps


def extra_memory(call: Callable[[], object], device: str) -> float | None:
    """MiB on the GPU that a call takes beyond what there is before it; None on the CPU, which does not count it."""
    if not device.startswith("cuda"):
        return None
    gc.collect()
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


class Replayed:
    """Work that is done again and again as a training does its steps: on a GPU captured once, and played again.

    draws: the generator that the work draws from, on its device.
    """

    def __init__(self, work: Callable[[], object], draws: Generator) -> None:
        self.work, self.graph = work, StepGraph()
        runtime = SimpleNamespace(cuda_graph=True)
        self.training = SimpleNamespace(
            data=SimpleNamespace(device=draws.device), settings=SimpleNamespace(runtime=runtime)
        )
        self.state = SimpleNamespace(draws=draws)

    def __call__(self) -> None:
        """Do it once."""
        self.graph.run(lambda *_: self.work(), self.training, self.state)


def how(graph: StepGraph) -> str:
    """How steps were taken."""
    return "as one captured graph" if graph.captured else "operation by operation"


# --- The parts ----------------------------------------------------------------------------------------------------


def whole_pretraining(setup: Setup) -> Iterator[Row]:
    """`contrastive.pretrain` itself, with its progress bar and checkpoints, by the recipe as it is written."""
    settings = setup.settings(setup.grey, augment="simclr", epochs=setup.sizes.epochs, lr=1e-3, temperature=0.5)
    with fresh_runs():
        started = time.perf_counter()
        run = pretrain(settings, images=setup.grey)
        seconds = time.perf_counter() - started
    first, later = run.history[0], run.history[1:]
    n = sum(epoch["images"] for epoch in run.history)
    name = f"pretrain, small CNN, {len(run.history)} epochs"
    yield Row(f"{name}: from start to end", seconds, "s")
    yield Row(f"{name}: the whole", n / seconds, "images/s")
    yield Row(f"{name}: its first epoch", first["seconds"], "s")
    rate = sum(epoch["images"] for epoch in later) / sum(epoch["seconds"] for epoch in later)
    yield Row(f"{name}: after its first epoch", rate, "images/s")


def resnet18(setup: Setup) -> Iterator[Row]:
    """Our steps with a ResNet-18."""
    settings = setup.settings(setup.colour, augment="simclr", encoder="resnet18")
    training = setup.training(setup.colour, settings)
    ms = step_milliseconds(training, setup)
    yield Row("ResNet-18, 32 pixels, ours", 1000 * setup.sizes.batch_size / ms, "images/s", how(training.graph))


def peers(setup: Setup) -> Iterator[Row]:
    """lightly, or torchvision where it is not installed: as usual, and with what a user could tune by hand."""
    name, arm = ("lightly", lightly) if find_spec("lightly") else ("torchvision", torchvision)
    for what, images, encoder in (("small CNN", setup.grey, "cnn"), ("ResNet-18", setup.colour, "resnet18")):
        settings = setup.settings(images, augment="simclr", encoder=encoder)
        for manner, tuned in (("plain", False), ("tuned", True)):
            index = torch.arange(setup.sizes.n_images)
            epoch, _ = arm(settings, images, index, workers=setup.sizes.workers, tuned=tuned)
            yield Row(f"{what}, {name}, {setup.sizes.workers} workers, {manner}", _rate(epoch, setup), "images/s")
            del epoch  # with its workers
            gc.collect()


def _rate(epoch: Epoch, setup: Setup) -> float:
    """Images per second of an arm, over some epochs after the first."""
    epoch(0)
    done = [epoch(number) for number in range(1, 1 + setup.sizes.peer_epochs)]
    return sum(images for images, _ in done) / sum(seconds for _, seconds in done)


def losses(setup: Setup) -> Iterator[Row]:
    """NT-Xent and its gradient: ours, and the plain matrix; called by itself, and as in a training's captured step."""
    for n in setup.sizes.losses:
        z1, z2 = (torch.randn(n, DIM, device=setup.device, requires_grad=True) for _ in range(2))
        for name in ("ours", "plain matrix"):
            loss = LOSSES[name](0.5)

            def call(loss: Any = loss, z1: Tensor = z1, z2: Tensor = z2) -> None:
                z1.grad = z2.grad = None
                loss(z1, z2).backward()

            what = f"NT-Xent, N = {n:,}, {name}"
            try:
                yield Row(what, milliseconds(call, setup), "ms", "by itself")
                if (memory := extra_memory(call, setup.device)) is not None:
                    yield Row(f"{what}: extra memory", memory, "MiB")
                replayed = Replayed(call, Generator(setup.device))
                yield Row(f"{what}, as in a step", milliseconds(replayed, setup), "ms", how(replayed.graph))
            except torch.OutOfMemoryError:
                yield Row(what, None, "ms")


def augmentation(setup: Setup) -> Iterator[Row]:
    """Two views of each image of a batch in colour, by policy simclr; called by itself, and as in a captured step."""
    n = setup.sizes.batch_size
    for side in setup.sizes.sides:
        images, draws = made_up(n, side)[0].to(setup.device), Generator(setup.device).manual_seed(0)
        call = our_batch(images, draws)
        what = f"augmentation, {side} pixels"
        yield Row(what, 2000 * n / milliseconds(call, setup), "views/s", "by itself")
        replayed = Replayed(call, draws)
        rate = 2000 * n / milliseconds(replayed, setup)
        yield Row(f"{what}, as in a step", rate, "views/s", how(replayed.graph))


def evaluation(setup: Setup) -> Iterator[Row]:
    """Everything that a report measures of one run, which was pretrained for a few epochs."""
    settings = setup.settings(setup.grey, epochs=setup.sizes.short_epochs)
    with fresh_runs():
        run = pretrain(settings, progress=False, images=setup.grey)
        started = time.perf_counter()
        found = evaluate(run, setup.grey, progress=False)
        yield Row("evaluation of one run", time.perf_counter() - started, "s", f"{len(found.rows)} numbers")


def methods(setup: Setup) -> Iterator[Row]:
    """A step of every method, with the small CNN."""
    settings = setup.settings(setup.grey, augment="simclr")
    for name in METHODS:
        training = setup.training(setup.grey, settings.replace(method=name))
        yield Row(f"step of {name}, small CNN", step_milliseconds(training, setup), "ms", how(training.graph))


def same_seed(setup: Setup) -> Iterator[Row]:
    """Whether two trainings with one seed give the same weights, to the last bit."""
    settings = setup.settings(setup.grey, augment="simclr", epochs=setup.sizes.short_epochs)
    for precision in ("float32", "bfloat16"):
        weights = []
        for _ in range(2):
            training = setup.training(setup.grey, settings.replace(precision=precision))
            train(training)
            weights.append(training.method.encoder.state_dict())
        first, second = weights
        alike = all(torch.equal(first[name], second[name]) for name in first)
        yield Row(f"same seed twice, {precision}", "equal" if alike else "not equal", "", "bits of the encoder")


# In the order of their weight: the last ones are left out where time runs short. With the seconds that each is expected
# to take at most, on one GPU of a data centre.
PARTS: dict[str, tuple[Part, float]] = {
    "pretrain": (whole_pretraining, 100),
    "resnet18": (resnet18, 30),
    "losses": (losses, 20),
    "augmentation": (augmentation, 20),
    "peers": (peers, 90),
    "methods": (methods, 30),
    "evaluation": (evaluation, 60),
    "same_seed": (same_seed, 20),
}
