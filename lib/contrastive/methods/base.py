"""What a method of pretraining is: views of a batch in, a loss and what to log out."""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..augment import View
from ..encoders import Encoder
from ..settings import METHODS, MethodSettings, Settings, UserError

# What the loop itself puts into an epoch of the history
RESERVED = {"epoch", "loss", "chance_loss", "lowest_loss", "gradient_norm", "lr", "images", "seconds"}


@dataclass(frozen=True)
class Batch:
    """N images, as a training step sees them.

    views: one tensor for each view that the method asked for, float32 N x C x height x width, normalised. labels: int64
    N, for methods that need them.
    """

    views: list[Tensor]
    labels: Tensor | None = None


@dataclass(frozen=True)
class Progress:
    """Where a training stands: steps done, of how many.

    In training `step` is an int64 scalar on the training's device, which the next step changes: what is computed from
    it with tensors can be captured on a GPU; to read it there would wait for the device.
    """

    step: int | Tensor
    steps: int

    @property
    def share(self) -> float | Tensor:
        """Of the training that is done, from 0 to 1."""
        return self.step / self.steps


@dataclass(frozen=True)
class Output:
    """A step's loss, a float32 scalar, and scalars without gradient under the keys of the method's LOG."""

    loss: Tensor
    log: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Logged:
    """What a key of the log is. label: in words. unit: a share is logged from 0 to 1, and its unit starts with %, as in
    "% of anchors". chance: of a share, what chance would give for batches of N images."""

    label: str
    unit: str = ""
    chance: Callable[[int], float] | None = None

    @property
    def is_share(self) -> bool:
        """Whether it is shown in percent."""
        return self.unit.startswith("%")

    def show(self, value: float) -> str:
        """A value with its unit."""
        return f"{100 * value:.1f} {self.unit}" if self.is_share else f"{value:.2f} {self.unit}".rstrip()


class Method(nn.Module):
    """A method: the encoder that is kept, and what trains it. One file each, registered by `METHODS.register`.

    What it holds as submodules and persistent buffers is in its `state_dict()`, which is all that a checkpoint keeps of
    it. Parameters that are not to be trained have `requires_grad` false.

    Args:
        encoder: the network whose features are kept.
        settings: all parameters; `settings.method` are the method's own, of its class `Parameters`.
        n_classes: of the labels, for methods that need them.
    """

    Parameters: ClassVar[type[MethodSettings]] = MethodSettings
    TITLE: ClassVar[str] = ""  # its name for readers
    TEXT: ClassVar[str] = ""  # how it learns, for a notebook: Markdown with formulas
    LOG: ClassVar[dict[str, Logged]] = {}  # what `forward` logs; the first is drawn beside the loss
    NEEDS_LABELS: ClassVar[bool] = False

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__()
        self.encoder, self.settings, self.n_classes = encoder, settings, n_classes

    def views(self) -> list[View]:
        """The views of each image that `forward` gets: by default two by the settings' policies."""
        own = self.settings.views
        if own.second_augment is None:
            return [View(own.augment, own.view_size, 2)]
        return [View(own.augment, own.view_size), View(own.second_augment, own.view_size)]

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The loss of a batch. Where a gradient is to stop, it is stopped here."""
        raise TypeError(f"{type(self).__name__} has no forward, which says what its loss is")

    def after_step(self, progress: Progress) -> None:
        """What is done once after each step of the optimiser, without gradients: momentum encoders, queues, centres."""

    def loss_function(self) -> Callable[..., Any] | None:
        """The loss as a function that readers can read: a notebook shows its code beside the text. None shows none."""
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters that are trained, by group: `lr_share` and `decay_share` multiply the settings' learning rate
        and weight decay; `schedule`, if given, takes the place of the settings' schedule."""
        return decay_groups(self.parameters())

    def representations(self, h: Tensor) -> dict[str, Tensor]:
        """What can be made of features h, N x D, by name: h itself, and projections z if there is a `head`."""
        head = getattr(self, "head", None)
        return {"h": h} if head is None else {"h": h, "z": head(h)}

    def loss_range(self, n: int) -> tuple[float, float] | None:
        """For batches of n images, the loss of a network that tells nothing apart (of a collapsed or an untrained one,
        whichever is larger), and about the lowest there is; None where they are not defined, or say nothing."""
        return None

    def advice(self) -> str:
        """What to change, besides the learning rate, where the training diverged; empty if nothing comes to mind."""
        return ""


def decay_groups(parameters: Iterable[nn.Parameter], lr_share: float = 1.0, **more: Any) -> list[dict[str, Any]]:
    """Two groups of those parameters that are trained: weight decay is for tensors of two or more dimensions, not for
    biases and norms."""
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if (p.ndim >= 2) == decayed], "lr_share": lr_share, "decay_share": share, **more}
        for decayed, share in ((True, 1.0), (False, 0.0))
    ]


def build_method(encoder: Encoder, settings: Settings, n_classes: int = 0) -> Method:
    """The method that the settings name, around `encoder`."""
    method: Method = METHODS[settings.method.name](encoder, settings, n_classes)
    if taken := RESERVED & method.LOG.keys():
        raise UserError(f"method {settings.method.name} logs {min(taken)!r}, which the history has already: rename it.")
    return method.to(memory_format=torch.channels_last)


# --- Networks that follow others ----------------------------------------------------------------------------------


def frozen_copy(module: nn.Module) -> Any:
    """A copy that no optimiser changes. It has batch statistics of its own."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, momentum: float | Tensor) -> None:
    """Move the target's parameters towards the online network's: target = momentum target + (1 - momentum) online."""
    slow: list[Tensor] = list(target.parameters())
    weight = 1 - momentum
    if slow:  # a head may be none
        if isinstance(weight, Tensor):
            torch._foreach_lerp_(slow, list(online.parameters()), [weight] * len(slow))
        else:
            torch._foreach_lerp_(slow, list(online.parameters()), weight)


def rising_momentum(start: float, progress: Progress) -> Tensor:
    """From `start` to 1 by half a cosine over the training (2006.07733, section 3.3), a scalar."""
    return 1 - (1 - start) * (torch.cos(math.pi * torch.as_tensor(progress.share)) + 1) / 2
