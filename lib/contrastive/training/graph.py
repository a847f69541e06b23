"""A training step on a GPU as one CUDA graph: its hundreds of kernels are launched at once, not one by one.

A small network's step keeps a GPU busy for a fifth of the time that Python takes to launch it. Captured, the launches
are recorded once, and played again for every step, on the same memory. So all that changes from step to step has to lie
in tensors that stay where they are, which is what `loop.take_step` takes care of.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Generator, cuda

from ..storage.files import say

WARM_UP = 3  # steps that are taken as they are: memory of the optimiser, libraries and their plans come to be
WAITS = "called a synchronizing CUDA operation"  # what PyTorch warns of


class StepGraph:
    """Takes a training's steps: the first ones operation by operation, and on a GPU the others as a captured graph.

    Where a step cannot be captured, since it waits for the device or does something else that a graph cannot hold, all
    steps are taken operation by operation, which is said once for each reason.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self, state: Any = None) -> None:
        """Begin anew, for another state or for none; gives back the memory that a captured step holds."""
        self.state, self.taken, self.why_not = state, 0, ""
        self.graph: cuda.CUDAGraph | None = None
        self.stream: cuda.Stream | None = None

    @property
    def captured(self) -> bool:
        """Whether steps are played from a graph."""
        return self.graph is not None

    def run(self, work: Callable[[Any, Any], object], training: Any, state: Any) -> None:
        """Do a step's work, `work(training, state)`. A graph serves the state that it was captured with."""
        device = training.data.device
        if device.type != "cuda" or not training.settings.runtime.cuda_graph:
            work(training, state)
            return
        if state is not self.state:
            self.forget(state)
        if self.graph is None and not self.why_not and self.taken == WARM_UP:
            self._capture(work, training, device)
        if self.graph is not None:
            self.graph.replay()
        elif self.why_not:
            work(training, state)
        else:
            self.taken += 1
            self._warm_up(work, training, device)

    def _warm_up(self, work: Callable[[Any, Any], object], training: Any, device: torch.device) -> None:
        """A step on the stream of the capture, the last one watched: does it wait for the device?"""
        self.stream = self.stream or cuda.Stream(device)
        self.stream.wait_stream(cuda.current_stream(device))
        with cuda.stream(self.stream):
            waits = _waits(work, training, self.state, watched=self.taken == WARM_UP)
        cuda.current_stream(device).wait_stream(self.stream)
        if waits:
            self._cannot("it waits for the device")

    def _capture(self, work: Callable[[Any, Any], object], training: Any, device: torch.device) -> None:
        """Record what the work launches. Nothing is computed."""
        graph, pool = cuda.CUDAGraph(), cuda.graph_pool_handle()
        graph.register_generator_state(self.state.draws)
        try:
            with cuda.graph(graph, pool=pool, stream=self.stream):
                work(training, self.state)
        except RuntimeError as error:
            # Memory that ran out hides behind a capture that could not be ended
            short = any(isinstance(e, torch.OutOfMemoryError) for e in (error, error.__context__))
            why = "its memory has no room for it" if short else str(error).splitlines()[0].strip().rstrip(".")
        else:
            self.graph = graph
            return
        self._release(device, pool)
        self._cannot(why)

    def _release(self, device: torch.device, pool: tuple[int, int]) -> None:
        """After a capture that failed: have memory no longer be taken for it, and give the generators states of their
        own again, since theirs still count as captured."""
        index = cuda.current_device() if device.index is None else device.index
        with suppress(RuntimeError, AttributeError):  # some versions of PyTorch have done so
            torch._C._cuda_endAllocateToPool(index, pool)
        cuda.empty_cache()
        for generator in (self.state.draws, cuda.default_generators[index]):
            kept = generator.get_state()
            generator.graphsafe_set_state(Generator(device).graphsafe_get_state())
            generator.set_state(kept)

    def _cannot(self, why: str) -> None:
        self.why_not, self.stream = why, None
        _say_once(f"Training works, but slower than it could on this GPU: its steps cannot be captured, since {why}.")


def _waits(work: Callable[[Any, Any], object], training: Any, state: Any, watched: bool) -> bool:
    """Do the work. Returns whether it waited for the device, as far as PyTorch notices, if it was watched."""
    if not watched:
        work(training, state)
        return False
    before = cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        cuda.set_sync_debug_mode("warn")
        try:
            work(training, state)
        finally:
            cuda.set_sync_debug_mode(before)
    others = [warning for warning in seen if WAITS not in str(warning.message)]
    for warning in others:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return len(others) < len(seen)


@cache
def _say_once(text: str) -> None:
    say(text)
