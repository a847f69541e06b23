"""What runs in an arm's own process, and how it is measured there.

Each arm has a process of its own, so that neither memory that one keeps nor settings of its allocator serve another.
The processes wait in turn: only one computes at a time.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from contrastive.data import load_images, split
from contrastive.encoders import Encoder
from contrastive.evaluation.probes import embed, fit_probe
from contrastive.settings import Settings

from .arms import ARMS, cnn, n_images, our_training, stock_encoder
from .losses import LOSSES
from .made_up import made_up
from .memory import peak, reset_peak
from .parts import step_parts
from .views import AUGMENTATIONS

_made: dict[str, Any] = {}  # what this process keeps between calls


class Worker:
    """A process of its own that runs functions when it is told to."""

    def __init__(self) -> None:
        # Forking would hand on the parent's memory and threads.
        self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function there, and wait for it."""
        return self.pool.submit(function, *args).result()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: Any) -> None:
        self.pool.shutdown()


# --- Functions that run in a worker ---------------------------------------------------------------------------------


def prepare(arm: str, settings: Settings, pretraining_split: bool = False) -> None:
    """Set an arm up, on the first `n_images` training images, or on those that the settings' seed draws."""
    images = load_images(settings.data.dataset)
    n, seed = n_images(settings), settings.runtime.seed
    index = split(images, n, seed).pretrain if pretraining_split else torch.arange(n)
    for set_seed in (random.seed, np.random.seed, torch.manual_seed):  # lightly draws from all of them
        set_seed(seed)
    _made["epoch"], _made["encoder"] = ARMS[arm](settings, images, index)
    _made["number"] = 0


def epoch() -> dict[str, float]:
    """Train one more epoch."""
    images, seconds = _made["epoch"](_made["number"])
    _made["number"] += 1
    return {"images": images, "seconds": seconds}


def accuracy(settings: Settings, n_labels: int) -> float:
    """Test accuracy in percent of a linear probe with `n_labels` labels on the arm's encoder."""
    images = load_images(settings.data.dataset)
    encoder: Encoder = _made["encoder"]
    train, test = embed(encoder, images.train), embed(encoder, images.test)
    labels = images.train_labels
    own, val = split(images, n_images(settings), settings.runtime.seed).budget(n_labels)
    probe = fit_probe((train[own], labels[own]), (train[val], labels[val]), len(images.classes))
    return probe.accuracy(test, images.test_labels)


def prepare_parts(settings: Settings) -> list[str]:
    """Set up our training step and its parts. Returns their names."""
    images = load_images(settings.data.dataset)
    _made["calls"] = step_parts(settings, images, torch.arange(n_images(settings)))
    size = 4096 if cnn(settings).base_channels > 8 else 256
    dtype = torch.bfloat16 if settings.runtime.precision == "bfloat16" else torch.float32
    a, b = torch.randn(2, size, size, dtype=dtype).unbind()
    _made["calls"][f"matrix product of {size}"] = lambda: a @ b
    return list(_made["calls"])


def prepare_augmentation(arm: str, side: int, n: int) -> float:
    """Set up an arm's augmentation of n images, by one thread. Returns the memory that the first call takes beyond the
    views that it gives, as a multiple of theirs."""
    torch.set_num_threads(1)
    images, _ = made_up(n, side)
    one = AUGMENTATIONS[arm](images[:1])
    for _ in range(30):  # so that whatever an operation loads once is there, though each is drawn by chance
        one()
    call, views = AUGMENTATIONS[arm](images), 2 * 4 * images.numel()  # bytes: two views in float32
    before = reset_peak()
    call()
    extra = (peak() - before - views) / views
    _made["calls"] = {arm: call}
    return extra


def prepare_loss(name: str, n: int, dim: int, temperature: float) -> dict[str, float]:
    """Set up a loss on n images. Returns its value, the norm of its gradient, and the memory in MiB that the first call
    takes beyond the projections and their gradients."""
    loss = LOSSES[name](temperature)
    generator = torch.Generator().manual_seed(n)
    z1, z2 = (torch.randn(n, dim, generator=generator).requires_grad_() for _ in range(2))

    def call() -> torch.Tensor:
        z1.grad = z2.grad = None
        value = loss(z1, z2)
        value.backward()
        return value

    loss(z1[:8], z2[:8]).backward()  # whatever is loaded once
    z1.grad, z2.grad = torch.empty_like(z1).zero_(), torch.empty_like(z2).zero_()
    before = reset_peak()
    value = call()
    memory = (peak() - before) / 2**20
    _made["calls"] = {name: call}
    gradient = torch.cat([z.grad for z in (z1, z2) if z.grad is not None]).double().norm().item()
    return {"value": value.item(), "gradient": gradient, "MiB": memory}


def timed(name: str, seconds: float) -> float:
    """Seconds of one call, as the mean of as many calls as fit into `seconds`, at least one; after one not counted,
    since whatever ran before has left the caches and the heap to its own liking."""
    call, calls = _made["calls"][name], 0
    call()
    gc.collect()
    started = time.perf_counter()
    while calls == 0 or time.perf_counter() - started < seconds:
        call()
        calls += 1
    return (time.perf_counter() - started) / calls


def operations(settings: Settings) -> dict[str, float]:
    """Floating-point operations of the encoder in a training step, there and back: of the stock layers, and of ours."""
    images = load_images(settings.data.dataset)
    ours = our_training(settings, images, torch.arange(n_images(settings))).method.encoder
    views = torch.zeros(2 * settings.optimiser.batch_size, *images.format.shape)
    counts = {}
    for name, encoder in {"stock": stock_encoder(settings, images), "ours": ours}.items():
        with FlopCounterMode(display=False) as counter:
            encoder(views).sum().backward()
        counts[name] = float(counter.get_total_flops())
    return counts


def machine() -> dict[str, Any]:
    """The machine, in words and numbers."""
    from contrastive.report.origins import cpu_model  # with all that draws figures, which no arm should have to hold

    memory = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    return {
        "processor": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_GiB": round(memory / 2**20, 1),
    }
