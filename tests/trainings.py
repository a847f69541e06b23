"""Small trainings, for tests."""

from __future__ import annotations

from contrastive import Settings, resolve
from contrastive.data import split
from contrastive.training import begin_epoch, loop, start
from contrastive.training.loop import Epoch, Training
from contrastive.training.state import LoopState


def begun(**parameters: object) -> Training:
    """The state before a training's first step, by preset smoke on the bundled digits."""
    settings, images = resolve(Settings(preset="smoke", **parameters))
    index = split(images, settings.data.n_images or 0, settings.runtime.seed).pretrain
    return start(settings, images.format, images.train[index], images.train_labels[index])


def take_steps(training: Training, n: int) -> tuple[list[float], LoopState]:
    """Take the first n steps, all of the first epoch. Returns their losses, and the state after them."""
    state, losses, before = begin_epoch(training, 0), [], 0.0
    for _ in range(n):
        loop.take_step(training, state)
        losses.append(state.sums[0].item() - before)
        before = state.sums[0].item()
    return losses, state


def timeless(history: list[Epoch]) -> list[Epoch]:
    """A history without the times in it."""
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in history]
