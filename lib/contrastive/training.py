"""Training in memory: the state of a run between its steps, and what a step does to it."""

from __future__ import annotations

import ctypes
import hashlib
import math
import mmap
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Generator, Tensor, nn

from .augment import Augment
from .data import load_images
from .encoders import build_encoder
from .losses import chance_loss
from .methods import SimCLR, build_method
from .settings import Settings, UserError


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


@dataclass(frozen=True)
class Training:
    """A method on its way: what `start` makes of some settings and images."""

    settings: Settings
    data: Tensor  # uint8 N x C x H x W, on the device
    method: SimCLR
    augment: Augment
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]

    @property
    def steps(self) -> int:
        """Steps of an epoch. Images that do not fill a batch sit the epoch out."""
        return len(self.data) // self.settings.batch_size

    def epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the data. All randomness comes from (seed, epoch), so resuming needs no generator's state."""
        started = time.perf_counter()
        device, batch = self.data.device, self.settings.batch_size
        seed = _mix(self.settings.seed, epoch)
        order = torch.randperm(len(self.data), generator=Generator().manual_seed(seed)).to(device)
        draws = Generator(device).manual_seed(seed)
        sums = torch.zeros(2, device=device)
        for step in range(self.steps):
            index = order[step * batch : (step + 1) * batch]
            sums += self.step(self.views(index, draws), self.schedule(epoch * self.steps + step))
        loss, top1 = (sums / self.steps).tolist()  # the only time that the host waits for the device
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is no longer finite in epoch {epoch + 1}: lr={self.settings.lr} is likely too high, or "
                f"temperature={self.settings.temperature} too low. The run's last checkpoint is kept."
            )
        return {
            "epoch": epoch + 1,
            "loss": loss,
            "chance_loss": chance_loss(batch),
            "top1": top1,
            "lr": self.schedule((epoch + 1) * self.steps - 1),
            "images": self.steps * batch,
            "seconds": time.perf_counter() - started,
        }

    def views(self, index: Tensor, draws: Generator) -> Tensor:
        """Two random views of the images at `index`: float32 2N x C x H x W, the first ones, then the second ones."""
        images = self.data[index].repeat(2, 1, 1, 1)
        return self.augment(images, draws).contiguous(memory_format=torch.channels_last)

    def step(self, views: Tensor, lr: float) -> Tensor:
        """One step of the optimiser. Returns loss and contrastive accuracy (float32, 2), not waited for."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(views.device.type, dtype=torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            loss, log = self.method(views)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return torch.stack([loss.detach(), log["top1"]])


def start(settings: Settings, images: Tensor) -> Training:
    """The state before the first step, for resolved settings and uint8 images N x C x H x W."""
    keep_freed_memory()
    data = images.to(settings.device)
    method = initial_method(settings).to(settings.device).train()
    return Training(
        settings,
        data,
        method,
        Augment(settings.augment, method.encoder.mean, method.encoder.std),
        torch.optim.Adam(parameter_groups(method, settings.weight_decay), lr=settings.lr, fused=True),
        lr_schedule(settings, len(data) // settings.batch_size),
    )


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
