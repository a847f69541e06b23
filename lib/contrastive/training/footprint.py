"""What a training step takes: time, and memory."""

from __future__ import annotations

import statistics
import time
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ..data import Images, read_images, split
from ..settings import Settings
from .devices import same_bits
from .graph import WARM_UP
from .loop import Training, begin_epoch, start, take_step
from .state import LoopState

VERSION = 1  # raised when the same settings come to give other numbers
TIMED = 5  # steps, of which the middle one counts: others may use the machine, too


@dataclass(frozen=True)
class StepCost:
    """seconds: of a step. bytes: the most that a step's tensors take at once. lasting: bytes that stay from step to
    step: weights, those of second networks, queues, what the optimiser remembers; without the images."""

    seconds: float
    bytes: int
    lasting: int


def step_cost(settings: Settings, images: Images | None = None, memory: bool = True) -> StepCost:
    """Take a few steps of a resolved training, and see what they take.

    memory: whether to look at memory, too, which takes one more step; on a processor it is that of tensors, without the
    working memory of PyTorch's operations.
    """
    images = read_images(settings.data) if images is None else images
    index = split(images, settings.data.n_images or 0, settings.runtime.seed).pretrain
    training = start(settings, images.format, images.train[index], images.train_labels[index])
    state, steps = begin_epoch(training, 0), min(TIMED, training.steps_of_epoch)
    with same_bits(training.data.device):
        for _ in range(WARM_UP + 2 if training.data.device.type == "cuda" else 1):
            begin_epoch(training, 0, state)
            take_step(training, state)
        begin_epoch(training, 0, state)
        seconds = statistics.median(_timed_step(training, state) for _ in range(steps))
        taken = step_memory(training, begin_epoch(training, 0, state)) if memory else 0
    parts = [*training.method.state_dict().values(), *_tensors(training.optimiser.state)]
    return StepCost(seconds, taken, sum(x.numel() * x.element_size() for x in parts))


def _timed_step(training: Training, state: LoopState) -> float:
    began = time.perf_counter()
    take_step(training, state)
    state.first_bad_step()  # waits; that it will fail does not change how long a step takes
    return time.perf_counter() - began


def step_memory(training: Training, state: LoopState) -> int:
    """Take a step. Returns the bytes that `StepCost.bytes` tells of."""
    training.optimiser.zero_grad()
    device = training.data.device
    if device.type == "cuda":
        training.graph.forget()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        take_step(training, state)
        return torch.cuda.max_memory_allocated(device) - before
    with _Living() as living:
        take_step(training, state)
    return living.most


def _tensors(nested: Any) -> list[Tensor]:
    return [x for x in tree_iter(dict(nested)) if isinstance(x, Tensor)]


class _Living(TorchDispatchMode):
    """Counts the bytes of what operations make, as long as it lives, and the most there was at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        known = {x.untyped_storage()._cdata for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)}
        made = func(*args, **(kwargs or {}))
        for x in tree_iter(made):
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in known | self.known:
                self._count(x.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
