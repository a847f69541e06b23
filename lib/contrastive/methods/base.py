"""What a method of pretraining is: views of a batch in, a loss and what to log out."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from ..augment import View
from ..encoders import HEADS, Encoder
from ..settings import METHODS, MethodSettings, Settings, UserError, one_of

MOMENTUM_EPOCHS = 0.8  # as in BYOL: 0.996 at 312 steps an epoch (2006.07733, section 3.3)

# A parameter: the name of a projection head
Head = Annotated[
    str,
    AfterValidator(lambda name: one_of(name, HEADS, "head")),
    Field(description=f"the projection head, used in pretraining only: {', '.join(HEADS)}"),
]

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
    "% of anchors". chance: of a share, what chance would give for batches of N images. least: below which a training
    has collapsed."""

    label: str
    unit: str = ""
    chance: Callable[[int], float] | None = None
    least: float | None = None

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
        settings: all parameters. The method's own, of its class `Parameters`, are `self.own`, none of them None.
        n_classes: of the labels, for methods that need them.
    """

    Parameters: ClassVar[type[MethodSettings]] = MethodSettings
    TITLE: ClassVar[str] = ""  # its name for readers
    TEXT: ClassVar[str] = ""  # how it learns, for a notebook: Markdown with formulas
    LOG: ClassVar[dict[str, Logged]] = {}  # what `forward` logs; the first is drawn beside the loss
    NEEDS_LABELS: ClassVar[bool] = False
    MULTI_CROP: ClassVar[bool] = False  # whether `forward` takes small views after the two large ones
    LOCAL_VIEWS: ClassVar[int] = 0  # how many small views there are, if nobody asks for a number

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__()
        self.encoder, self.settings, self.n_classes = encoder, settings, n_classes
        rules = {name: v for name, v in self.fitted(settings).items() if getattr(settings.method, name) is None}
        self.own: Any = settings.method.model_copy(update=rules)  # the method's own parameters

    @classmethod
    def fitted(cls, settings: Settings) -> dict[str, Any]:
        """Values, by the names of the method's own parameters, of those that are None, by a rule from how many images
        there are, how large batches are and how long training takes: `settings` are resolved but for them."""
        return {}

    @classmethod
    def check(cls, settings: Settings) -> None:
        """Look at resolved settings that only together make sense. Raises: UserError."""

    def views(self) -> list[View]:
        """The views of each image that `forward` gets: by default two by the settings' policies, then the small ones
        of multi-crop (2006.09882, section 3.2), if there are any."""
        own = self.settings.views
        found = [View(own.augment, own.view_size, 2)]
        if own.second_augment is not None:
            found = [View(own.augment, own.view_size), View(own.second_augment, own.view_size)]
        if own.local_views:
            found.append(View(own.local_augment or own.augment, own.local_view_size, own.local_views))
        return found

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


# --- Views --------------------------------------------------------------------------------------------------------


def each_size_at_once(network: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """What a network makes of each view. Neighbouring views of one size go in one batch, so that BatchNorm sees them
    together."""
    found: list[Tensor] = []
    for _, same in groupby(views, key=lambda view: view.shape[-2:]):
        part = list(same)
        found += network(torch.cat(part)).chunk(len(part))
    return found


def pairs(views: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """What is made of views, in pairs that are to agree: the two large ones, and each small one with each of these."""
    first, second, *small = views
    return [(first, second), *((large, one) for one in small for large in (first, second))]


def across(views: Sequence[Tensor], targets: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """What is made of all views, each with the targets, which are made of the large ones, of other views than it."""
    return [(one, target) for i, one in enumerate(views) for j, target in enumerate(targets) if i != j]


def mean_of(losses: Iterable[Tensor]) -> Tensor:
    """Their mean, a scalar."""
    return torch.stack(list(losses)).mean()


@torch.no_grad()
def spread(x: Tensor) -> Tensor:
    """The standard deviation of the directions of N x D rows, by dimension, on average, times the root of D: 0 when all
    are alike, 1 when they lie evenly over the sphere (2011.10566, section 4.1)."""
    return F.normalize(x.float(), dim=1).std(0).mean() * x.shape[1] ** 0.5


# --- Prototypes ---------------------------------------------------------------------------------------------------


IN_USE = 0.1  # share of prototypes: where fewer are used, training has collapsed


def cosines(z: Tensor, prototypes: Tensor) -> Tensor:
    """float32 N x K, of N x D projections and K x D prototypes of unit length."""
    with torch.autocast(z.device.type, enabled=False):
        return F.normalize(z.float(), dim=1) @ prototypes.T


def prototype_groups(method: nn.Module, prototypes: nn.Parameter) -> list[dict[str, Any]]:
    """The groups of a method with prototypes, of which only the directions count: so weight decay would do nothing but
    move those that are frozen. LARS adapts their steps, as those of all weights."""
    others = (p for p in method.parameters() if p is not prototypes)
    return [*decay_groups(others), {"params": [prototypes], "lr_share": 1.0, "decay_share": 0.0, "adapted": True}]


def thawed(epochs: float, settings: Settings, progress: Progress) -> Tensor:
    """Whether so many epochs are over, in which something was frozen: a bool scalar."""
    return torch.as_tensor(progress.step >= round(epochs * progress.steps / settings.optimiser.epochs))


def scaled_gradient(x: Tensor, factor: Tensor) -> Tensor:
    """x itself, its gradient times a factor: 0 freezes it without a branch, as a captured step needs it."""
    return x.detach() + factor * (x - x.detach())


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


def momentum_by_epochs(settings: Settings) -> dict[str, float]:
    """The momentum with which a target averages over the steps of the last MOMENTUM_EPOCHS epochs. By name, as `fitted`
    returns it. Settings are resolved but for it."""
    steps = (settings.data.n_images or 0) // settings.optimiser.batch_size
    return {"momentum": round(max(1 - 1 / max(MOMENTUM_EPOCHS * steps, 1), 0.9), 4)}


def rising_momentum(start: float, progress: Progress) -> Tensor:
    """From `start` to 1 by half a cosine over the training (2006.07733, section 3.3), a scalar."""
    return 1 - (1 - start) * (torch.cos(math.pi * torch.as_tensor(progress.share)) + 1) / 2
