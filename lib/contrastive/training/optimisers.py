"""Optimisers by name, and the learning rate at each step."""

import math
from typing import Any

import torch
from torch import Tensor

from ..settings import OPTIMISERS, OptimiserSettings, UserError
from ..settings.registry import Registry
from .lars import LARS

Groups = list[dict[str, Any]]


@OPTIMISERS.register("adam")
def adam(groups: Groups, settings: OptimiserSettings, on_gpu: bool) -> torch.optim.Optimizer:
    """Adam (1412.6980)."""
    return torch.optim.Adam(groups, lr=settings.lr, fused=True, capturable=on_gpu)


@OPTIMISERS.register("adamw")
def adamw(groups: Groups, settings: OptimiserSettings, on_gpu: bool) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (1711.05101)."""
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True, capturable=on_gpu)


@OPTIMISERS.register("sgd")
def sgd(groups: Groups, settings: OptimiserSettings, on_gpu: bool) -> torch.optim.Optimizer:
    """Stochastic gradient descent with a momentum of 0.9. PyTorch's ways that are not fused read a learning rate that
    is a tensor, for which they wait for the device."""
    return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, fused=True)


@OPTIMISERS.register("lars")
def lars(groups: Groups, settings: OptimiserSettings, on_gpu: bool) -> torch.optim.Optimizer:
    """LARS (1708.03888) with a momentum of 0.9 and a trust coefficient of 0.001. Groups that no weight decay is for,
    such as biases and norms, are not adapted, unless they say `adapted` themselves."""
    return LARS([{"adapted": group["decay_share"] != 0, **group} for group in groups], lr=settings.lr)


def build_optimiser(groups: Groups, settings: OptimiserSettings, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser that the settings name, of a method's parameter groups. On a GPU its step can be captured."""
    for group in groups:
        if group.get("schedule", "fixed") not in ("cosine", "constant", "fixed"):
            raise UserError(f"a parameter group's schedule is cosine, constant or fixed, not {group['schedule']!r}.")
    groups = [{**group, "weight_decay": settings.weight_decay * group["decay_share"]} for group in groups]
    registry: Registry[Any] = OPTIMISERS
    optimiser: torch.optim.Optimizer = registry[settings.name](groups, settings, device.type == "cuda")
    if device.type == "cuda":
        rates_on_device(optimiser, device)
    return optimiser


def rates_on_device(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Make the learning rates tensors, which a captured step reads anew each time."""
    for group in optimiser.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
    # PyTorch would warn that the first steps, which are not captured, could be faster otherwise
    optimiser._warned_capturable_if_run_uncaptured = True  # type: ignore[attr-defined]


def set_rate(group: dict[str, Any], value: float) -> None:
    """Set a parameter group's learning rate, without waiting for the device."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(value)
    else:
        group["lr"] = value


def learning_rate(settings: OptimiserSettings, step: int, steps: int, steps_of_epoch: int, schedule: str = "") -> float:
    """The learning rate of a step, from 0: a linear rise, then half a cosine down to 0 (or constant).

    Args:
        step: how many were taken before.
        steps: of the whole training.
        steps_of_epoch: in which warm-up epochs are counted.
        schedule: in place of the settings' own: cosine, constant (after the warm-up), or fixed from the first step.
    """
    if schedule == "fixed":
        return settings.lr
    warmup = min(settings.warmup_epochs * steps_of_epoch, steps)
    if step + 1 < warmup:
        return settings.lr * (step + 1) / warmup
    if (schedule or settings.schedule) == "constant":
        return settings.lr
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup + 1) / max(steps - warmup + 1, 1)))
