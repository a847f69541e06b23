"""Where in an epoch a training stands."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

NEVER = 2**62  # a step that is not reached


@dataclass
class LoopState:
    """Where a training stands between two steps. With the method and the optimiser's state it decides all that follows.

    Its tensors and its generator stay the same objects from epoch to epoch, so that a captured step finds them.

    step: steps done of this epoch. order: its permutation of the images, int64 N. draws: where the views come from.
    sums: of loss, gradient norm and what the method logs, over its steps, float32. first_bad: the steps, counted from
    the first of the training, at which each of them was not finite, int64. index: which images the next step sees,
    int64. now: steps that were taken before it, since the training's start, an int64 scalar. seconds: spent on the
    epoch, up to `clock`.
    """

    epoch: int
    step: int
    order: Tensor
    draws: Generator
    sums: Tensor
    first_bad: Tensor
    index: Tensor
    now: Tensor
    seconds: float = 0.0
    clock: float = field(default_factory=time.perf_counter)

    @classmethod
    def empty(cls, n_images: int, batch_size: int, n_logged: int, device: torch.device) -> LoopState:
        """One that `begin` makes the state before an epoch's first step."""
        order, index, now = (
            torch.zeros(shape, dtype=torch.int64, device=device) for shape in (n_images, batch_size, ())
        )
        sums, first_bad = torch.zeros(2 + n_logged, device=device), torch.full((2 + n_logged,), NEVER, device=device)
        return cls(0, 0, order, Generator(device), sums, first_bad, index, now)

    def begin(self, epoch: int, order: Tensor, seed: int) -> LoopState:
        """This state, made the one before an epoch's first step."""
        self.epoch, self.step, self.seconds = epoch, 0, 0.0
        self.order.copy_(order)
        self.draws.manual_seed(seed)
        self.sums.zero_()
        self.first_bad.fill_(NEVER)
        self.start_clock()
        return self

    def taken(self, steps_of_epoch: int) -> int:
        """Steps that were taken since the training's start."""
        return self.epoch * steps_of_epoch + self.step

    def set_step(self, taken: int) -> None:
        """Have the tensors say which step is the next one, without waiting for the device."""
        size = len(self.index)
        self.index.copy_(self.order[self.step * size : (self.step + 1) * size])
        self.now.fill_(taken)

    def count(self, scalars: list[Tensor]) -> None:
        """Count the step in, by its loss, gradient norm and what the method logs, without waiting for the device."""
        seen = torch.stack(scalars)
        self.sums += seen
        bad = self.now.expand_as(seen).masked_fill(seen.isfinite(), NEVER)
        torch.minimum(self.first_bad, bad, out=self.first_bad)

    def start_clock(self) -> None:
        """Count time from now on."""
        self.clock = time.perf_counter()

    def first_bad_step(self) -> tuple[int, str] | None:
        """Wait for the device and stop the clock. Returns the first step that was not finite, and what was not."""
        steps = self.first_bad.tolist()
        self.seconds += time.perf_counter() - self.clock
        self.start_clock()
        if (first := min(steps)) == NEVER:
            return None
        names = {0: "the loss", 1: "the gradient (not the loss before it)"}
        return first, names.get(steps.index(first), "what the method logs (neither loss nor gradient)")

    def as_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it; `restore` reads it. Only for states without a bad step."""
        kept = {"epoch": self.epoch, "step": self.step, "order": self.order, "sums": self.sums}
        return {**kept, "draws": self.draws.get_state(), "seconds": self.seconds}

    def restore(self, saved: dict[str, Any], steps_of_epoch: int) -> LoopState:
        """This state, of an epoch's start, moved to what `as_dict` kept of that epoch.

        Raises: ValueError and the like when it is none of this training's.
        """
        step, order, sums = (saved[name] for name in ("step", "order", "sums"))
        for tensor, own in ((order, self.order), (sums, self.sums)):
            if tensor.shape != own.shape or tensor.dtype != own.dtype:
                raise ValueError("other tensors")
        order = order.to(self.order.device)
        if type(step) is not int or not 0 <= step <= steps_of_epoch:
            raise ValueError("no such step")
        if not torch.equal(order.sort().values, self.order.sort().values):
            raise ValueError("no such order")
        self.step, self.seconds = step, float(saved["seconds"])
        self.order.copy_(order)
        if not (math.isfinite(self.seconds) and sums.isfinite().all()):
            raise ValueError("not finite")
        self.sums += sums.to(self.sums.device)
        self.draws.set_state(saved["draws"])
        return self
