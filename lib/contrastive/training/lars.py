"""LARS: gradient descent in which each layer's step is in proportion to the length of its weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (1708.03888, algorithm 1). Of a tensor of weights w with gradient g:

        ratio = trust * |w| / (|g| + decay * |w|)                      (its equation 6; |w| is the Euclidean norm)
        v     = momentum * v + lr * ratio * (g + decay * w)            (v is 0 at first)
        w     = w - v

    So the learning rate enters the momentum, as in the paper and in SimCLR's code (2002.05709, section 2.2). In
    PyTorch's SGD, and in the code of BYOL (2006.07733, section 3.3) and Barlow Twins (2103.03230, section 2.2), it is
    applied after it, to all of v: with a constant learning rate that is the same. The code of all three divides by
    |g + decay * w|, which is nearly the same for a weight decay as small as theirs, about 1e-6.

    As in that code, the ratio is 1 where |w| or what it is divided by is 0: weights that begin at 0 would never change.
    And as there, biases and norms have neither weight decay nor a ratio: their group is not `adapted`.

    A step waits for nothing on the device, and all that it remembers is the tensor v: it can be captured.

    Args:
        groups: parameters, or groups of them; in a group, each of the other arguments can have a value of its own.
        lr: learning rate, in a group a number or a scalar tensor.
        momentum: share of v that is kept.
        weight_decay: `decay`, which is added to the gradient.
        trust: the trust coefficient, the length of a first step in lengths of the weights, with a learning rate of 1.
        adapted: whether there is a ratio.
    """

    def __init__(
        self,
        groups: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        adapted: bool = True,
    ) -> None:
        super().__init__(
            groups, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, trust=trust, adapted=adapted)
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change all parameters that have a gradient. Returns the loss, if a closure is given that computes it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._update(weights, group)
        return loss

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in weights if p.grad is not None]
        momenta = [self._momentum(p) for p in weights]
        changes = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
        if group["adapted"]:
            rates = group["lr"] * trust_ratios(weights, gradients, group["weight_decay"], group["trust"])
            torch._foreach_mul_(changes, rates.unbind())
        else:
            torch._foreach_mul_(changes, group["lr"])
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, changes)
        torch._foreach_sub_(weights, momenta)

    def _momentum(self, p: Tensor) -> Tensor:
        """What is remembered of a parameter, v."""
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        momentum: Tensor = state["momentum_buffer"]
        return momentum


def trust_ratios(weights: list[Tensor], gradients: list[Tensor], decay: float, trust: float) -> Tensor:
    """By how much the steps of N tensors are scaled, N numbers (1708.03888, equation 6); 1 where it is not defined."""
    w, g = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, gradients))
    below = g + decay * w
    return torch.where((w > 0) & (below > 0), trust * w / below, 1.0)
