"""Training in memory: the state of a run between its steps, and what a step does to it."""

from __future__ import annotations

import ctypes
import hashlib
import math
import mmap
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ..augment.operations import Augment
from ..data.images import load_images
from ..encoders.cnn import Encoder, build_encoder
from ..losses.ntxent import chance_loss, lowest_loss
from ..methods.simclr import SimCLR, build_method
from ..settings.model import RunError, Settings

NEVER = 2**62  # a step that is not reached


@cache
def keep_freed_memory() -> None:
    """Have glibc keep the large blocks that each training step frees and asks for again, in huge pages.

    By default it hands them back to the kernel, which zeroes every page anew, in each step. Does nothing where there
    is no glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        return
    libc.mallopt(-4, 0)  # M_MMAP_MAX: no block by mmap
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: keep what is free at the top of the heap
    # A block that is asked for and freed unused costs no memory, and leaves its addresses marked for huge pages.
    size, huge = 2**30, 2**21
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if block := libc.malloc(size):
        libc.madvise(-(-block // huge) * huge, size - huge, mmap.MADV_HUGEPAGE)
        libc.free(block)


@dataclass
class Position:
    """Where in an epoch a training stands, between two steps. With the weights and the optimiser's moments it decides
    all that follows.

    step: steps done of this epoch. order: its permutation of the images, int64 N. draws: where the views come from.
    sums: of loss, contrastive accuracy and gradient norm over its steps, float32 3. first_bad: the steps, counted from
    the first of the training, at which each of these was not finite, int64 3. seconds: spent on it, up to `clock`.
    """

    epoch: int
    step: int
    order: Tensor
    draws: Generator
    sums: Tensor
    first_bad: Tensor
    seconds: float = 0.0
    clock: float = field(default_factory=time.perf_counter)

    def stop_clock(self) -> None:
        """Count the time since the clock was started."""
        self.seconds += time.perf_counter() - self.clock
        self.clock = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it; `Training.position` reads it. Only for positions that passed `check`."""
        kept = {"epoch": self.epoch, "step": self.step, "order": self.order, "sums": self.sums}
        return {**kept, "draws": self.draws.get_state(), "seconds": self.seconds}


@dataclass(frozen=True)
class Training:
    """A method on its way: what `start` makes of some settings and images."""

    settings: Settings
    data: Tensor  # uint8 N x C x H x W, on the device
    method: SimCLR
    augments: tuple[Augment, Augment]  # of the first and of the second views
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]

    @property
    def steps(self) -> int:
        """Steps of an epoch. Images that do not fill a batch sit the epoch out."""
        return len(self.data) // self.settings.batch_size

    def epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the data, from its beginning. Returns its entry in the history."""
        position = self.begin(epoch)
        while position.step < self.steps:
            self.advance(position)
        return self.finish(position)

    def begin(self, epoch: int) -> Position:
        """The position before an epoch's first step. All randomness of an epoch comes from (seed, epoch)."""
        seed, device = _mix(self.settings.seed, epoch), self.data.device
        order = torch.randperm(len(self.data), generator=Generator().manual_seed(seed)).to(device)
        never = torch.full((3,), NEVER, device=device)
        return Position(epoch, 0, order, Generator(device).manual_seed(seed), torch.zeros(3, device=device), never)

    def position(self, saved: dict[str, Any]) -> Position:
        """The position whose `state()` that is. Raises: ValueError and the like when it is none of this training's."""
        epoch, step, order, sums = (saved[name] for name in ("epoch", "step", "order", "sums"))
        if type(epoch) is not int or type(step) is not int or not 0 <= epoch <= self.settings.epochs:
            raise ValueError("no such epoch")
        position = self.begin(epoch)
        for tensor, own in ((order, position.order), (sums, position.sums)):
            if tensor.shape != own.shape or tensor.dtype != own.dtype:
                raise ValueError("other tensors")
        order = order.to(position.order.device)
        if not 0 <= step < self.steps or not torch.equal(order.sort().values, position.order.sort().values):
            raise ValueError("no such position")
        position.step, position.order, position.seconds = step, order, float(saved["seconds"])
        if not (math.isfinite(position.seconds) and sums.isfinite().all()):
            raise ValueError("not finite")
        position.sums += sums.to(position.sums.device)
        position.draws.set_state(saved["draws"])
        return position

    def advance(self, position: Position) -> None:
        """Take the next step of the position's epoch. The host does not wait for the device."""
        batch, step = self.settings.batch_size, position.epoch * self.steps + position.step
        index = position.order[position.step * batch : (position.step + 1) * batch]
        seen = self.step(self.views(index, position.draws), self.schedule(step))
        position.sums += seen
        bad = torch.full_like(position.first_bad, step).masked_fill_(seen.isfinite(), NEVER)
        position.first_bad = torch.minimum(position.first_bad, bad)
        position.step += 1

    def check(self, position: Position) -> None:
        """Wait for the device and stop the position's clock. Raises: RunError when a step was not finite."""
        loss, _, gradient = position.first_bad.tolist()
        position.stop_clock()
        if min(loss, gradient) == NEVER:
            return
        step, settings = min(loss, gradient), self.settings
        what = "the loss" if loss <= gradient else "the gradient (not the loss before it)"
        cause = f"lr={self.schedule(step):.3g} is likely too high there; try lr={settings.lr / 10:g}"
        if settings.temperature < 0.02:
            cause += f", or a temperature above {settings.temperature:g}, which multiplies gradients by its inverse"
        elif settings.warmup_epochs < 1:
            cause += ", or a longer warm-up (warmup_epochs)"
        raise RunError(
            f"{what} is no longer finite at step {step + 1:,} of {settings.epochs * self.steps:,} (epoch "
            f"{step // self.steps + 1}, seed {settings.seed}): {cause}. The last good checkpoint, if the run had got "
            "to one, is kept."
        )

    def finish(self, position: Position) -> dict[str, float]:
        """An epoch's entry in the history, after its last step. Waits for the device. Raises: as `check`."""
        self.check(position)
        mean_loss, top1, gradient_norm = (position.sums / self.steps).tolist()
        loss = self.settings.batch_size, self.settings.temperature, self.settings.loss
        return {
            "epoch": position.epoch + 1,
            "loss": mean_loss,
            "chance_loss": chance_loss(*loss),
            "lowest_loss": lowest_loss(*loss),
            "top1": top1,
            "gradient_norm": gradient_norm,
            "lr": self.schedule((position.epoch + 1) * self.steps - 1),
            "images": self.steps * self.settings.batch_size,
            "seconds": position.seconds,
        }

    def views(self, index: Tensor, draws: Generator) -> Tensor:
        """Two random views of the images at `index`: float32 2N x C x H x W, the first ones, then the second ones."""
        first, second = self.augments
        if first is second:
            views = first(self.data[index].repeat(2, 1, 1, 1), draws)
        else:
            views = torch.cat([augment(self.data[index], draws) for augment in self.augments])
        return views.contiguous(memory_format=torch.channels_last)

    def step(self, views: Tensor, lr: float) -> Tensor:
        """One step of the optimiser. Returns loss, contrastive accuracy and the norm of all gradients together
        (float32, 3), not waited for."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(views.device.type, dtype=torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            loss, log = self.method(views)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in self.method.parameters() if p.grad is not None])
        self.optimizer.step()
        return torch.stack([loss.detach(), log["top1"], norm])


def start(settings: Settings, images: Tensor) -> Training:
    """The state before the first step, for resolved settings and uint8 images N x C x H x W."""
    keep_freed_memory()
    data = images.to(settings.device)
    method = initial_method(settings).to(settings.device).train()
    return Training(
        settings,
        data,
        method,
        augmentations(settings, method.encoder, images),
        torch.optim.Adam(parameter_groups(method, settings.weight_decay), lr=settings.lr, fused=True),
        lr_schedule(settings, len(data) // settings.batch_size),
    )


def augmentations(settings: Settings, encoder: Encoder, images: Tensor) -> tuple[Augment, Augment]:
    """What makes the first and the second views of images (... x H x W), the same object if the two are alike."""
    height, width = images.shape[-2:]
    side = settings.view_size
    size = None if side is None else (side, round(side * width / height))
    first = Augment(settings.augment, encoder.mean, encoder.std, size)
    if settings.second_augment is None:
        return first, first
    return first, Augment(settings.second_augment, encoder.mean, encoder.std, size)


def _mix(seed: int, epoch: int) -> int:
    """One 63-bit seed from two numbers, without the overlaps that seed + epoch would have."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "big") >> 1


def initial_method(settings: Settings) -> SimCLR:
    """The method with the random weights that training starts from. Settings have to be resolved."""
    images = load_images(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder = build_encoder(settings, tuple(images.train.shape[1:]), images.mean, images.std)
        return build_method(encoder, settings)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two optimiser groups: weight decay is for tensors of two or more dimensions, not for biases and norms."""
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def lr_schedule(settings: Settings, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate at each step, from 0: a linear rise, then half a cosine down to 0 (or constant)."""
    total = settings.epochs * steps_per_epoch
    warmup = min(settings.warmup_epochs * steps_per_epoch, total)

    def at(step: int) -> float:
        if step + 1 < warmup:
            return settings.lr * (step + 1) / warmup
        if settings.schedule == "constant":
            return settings.lr
        return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup + 1) / max(total - warmup + 1, 1)))

    return at
