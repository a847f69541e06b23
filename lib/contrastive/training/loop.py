"""Training, from batch to checkpoint, for every method alike: `train` is the loop, `take_step` one step of it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from ..augment import ViewMaker
from ..data import ImageFormat, read_images, split
from ..encoders import build_encoder, check_view, load_initial_weights
from ..encoders.general import GeneralEncoder
from ..methods import Batch, Method, Output, Progress, build_method
from ..processor import keep_freed_memory
from ..settings import RunError, Settings, UserError
from ..storage.signals import Stop
from .devices import same_bits
from .graph import StepGraph
from .memory import STEPS_TO_FILL, check_images_fit, out_of_memory
from .optimisers import build_optimiser, learning_rate, set_rate
from .state import LoopState

Epoch = dict[str, float]  # an entry of the history


class Checkpoints(Protocol):
    """Where a training is kept: whether it is time to write it, and writing it."""

    def due(self) -> bool:
        """Whether it is time."""

    def write(self, training: Training, state: LoopState, history: list[Epoch]) -> None:
        """Keep all that decides how it goes on."""


@dataclass(frozen=True)
class Training:
    """What is trained, on what, by what: all that `train` needs.

    data: uint8 N x C x H x W. labels: int64 N, for methods that need them. steps: of the whole training;
    steps_of_epoch: images that do not fill a batch sit an epoch out. graph: on a GPU, the step captured.
    """

    settings: Settings
    method: Method
    data: Tensor
    labels: Tensor | None
    make_views: ViewMaker
    optimiser: torch.optim.Optimizer
    steps_of_epoch: int
    steps: int
    graph: StepGraph = field(default_factory=StepGraph, init=False, repr=False)


def train(
    training: Training,
    state: LoopState | None = None,
    history: list[Epoch] | None = None,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[Epoch], None] = lambda entry: None,
) -> list[Epoch]:
    """Train from the start, or go on from a state, to the end.

    Asked to stop by a signal, it finishes the step, writes a checkpoint, and obeys.

    Returns:
        The history, an entry for each epoch.

    Raises:
        RunError: when the loss or a gradient is no longer finite, or memory of a GPU runs out.
        UserError: when a batch does not fit the memory of the GPU.
    """
    state, history = state or begin_epoch(training, 0), [] if history is None else history
    begun = 0  # steps that were taken here
    with Stop() as stop, same_bits(training.data.device):
        while state.taken(training.steps_of_epoch) < training.steps:
            if not _taken(training, state):
                raise out_of_memory(training, state, compute_step, begun)
            begun += 1
            ended = state.taken(training.steps_of_epoch) == training.steps
            if state.step == training.steps_of_epoch or ended:
                history.append(finish_epoch(training, state))
                on_epoch(history[-1])
                if not ended:
                    begin_epoch(training, state.epoch + 1, state)
            if checkpoints is not None and (ended or stop.signal or checkpoints.due()):
                check(training, state)
                checkpoints.write(training, state, history)
                state.start_clock()
            if stop.signal:
                stop.obey()
    return history


def _taken(training: Training, state: LoopState) -> bool:
    """Take a step. Returns false, with all that it held given back, when the device's memory ran out."""
    try:
        take_step(training, state)
    except torch.OutOfMemoryError:
        return False
    return True


class DivergedError(RunError):
    """A training whose loss or gradient is no longer finite."""


def take_step(training: Training, state: LoopState) -> None:
    """The next step of the state's epoch. The host does not wait for the device.

    All that changes from step to step is written into tensors first, so that on a GPU the rest can be captured once.
    """
    taken, device = state.taken(training.steps_of_epoch), training.data.device
    state.set_step(taken)
    for group in training.optimiser.param_groups:
        set_rate(group, group["lr_share"] * rate(training, taken, group.get("schedule", "")))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(_mix(training.settings.runtime.seed, taken))  # of dropout and its like, so that they resume
        training.graph.run(compute_step, training, state)
    state.step += 1


def compute_step(training: Training, state: LoopState) -> None:
    """What a step computes: views, loss, gradient, new weights. It reads nothing from the device, and nothing but
    tensors changes from one step to the next."""
    method, optimiser, precision = training.method, training.optimiser, training.settings.runtime.precision
    progress = Progress(state.now, training.steps)
    labels = None if training.labels is None else training.labels[state.index]
    batch = Batch(training.make_views(training.data[state.index], state.draws), labels)
    with torch.autocast(training.data.device.type, torch.bfloat16, precision == "bfloat16"):
        output = checked(method, method(batch, progress))
    optimiser.zero_grad()
    output.loss.backward()
    norm = nn.utils.get_total_norm([p.grad for p in method.parameters() if p.grad is not None])
    optimiser.step()
    method.after_step(progress)
    state.count([output.loss.detach(), norm, *(output.log[name] for name in method.LOG)])


def checked(method: Method, output: Output) -> Output:
    """The output of a method's `forward`. Raises: UserError when it is not what the method declares."""
    name = method.settings.method.name
    if not isinstance(output, Output) or not all(isinstance(x, Tensor) for x in (output.loss, *output.log.values())):
        raise UserError(f"method {name}: forward has to return Output(loss, log), both of tensors.")
    if output.log.keys() != method.LOG.keys():
        raise UserError(f"method {name}: forward logs {sorted(output.log)}, but LOG declares {sorted(method.LOG)}.")
    return output


def rate(training: Training, taken: int, schedule: str = "") -> float:
    """The learning rate after so many steps."""
    return learning_rate(training.settings.optimiser, taken, training.steps, training.steps_of_epoch, schedule)


def begin_epoch(training: Training, epoch: int, state: LoopState | None = None) -> LoopState:
    """The state before an epoch's first step; a given one is made that. All randomness of an epoch comes from (seed,
    epoch)."""
    seed, n = _mix(training.settings.runtime.seed, epoch), len(training.data)
    if state is None:
        size, device = training.settings.optimiser.batch_size, training.data.device
        state = LoopState.empty(n, size, len(training.method.LOG), device)
    return state.begin(epoch, torch.randperm(n, generator=Generator().manual_seed(seed)), seed)


def _mix(seed: int, epoch: int) -> int:
    """One 63-bit seed from two numbers, without the overlaps that seed + epoch would have."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "big") >> 1


def finish_epoch(training: Training, state: LoopState) -> Epoch:
    """An epoch's entry in the history, after its last step. Waits for the device. Raises: as `check`."""
    check(training, state)
    loss, norm, *logged = (state.sums / state.step).tolist()
    batch = training.settings.optimiser.batch_size
    entry = {"epoch": state.epoch + 1, "loss": loss}
    if (levels := training.method.loss_range(batch)) is not None:
        entry |= dict(zip(("chance_loss", "lowest_loss"), levels, strict=True))
    entry |= dict(zip(training.method.LOG, logged, strict=True))
    last = rate(training, state.taken(training.steps_of_epoch) - 1)
    return {**entry, "gradient_norm": norm, "lr": last, "images": state.step * batch, "seconds": state.seconds}


def check(training: Training, state: LoopState) -> None:
    """Wait for the device. Raises: DivergedError when a step was not finite."""
    if (bad := state.first_bad_step()) is None:
        return
    (step, what), settings = bad, training.settings
    cause = f"lr={rate(training, step):.3g} is likely too high there; try lr={settings.optimiser.lr / 10:g}"
    longer = "a longer warm-up (warmup_epochs)" if settings.optimiser.warmup_epochs < 1 else ""
    if advice := training.method.advice() or longer:
        cause += f", or {advice}"
    raise DivergedError(
        f"{what} is no longer finite at step {step + 1:,} of {training.steps:,} (epoch "
        f"{step // training.steps_of_epoch + 1}, seed {settings.runtime.seed}): {cause}. The last good checkpoint, "
        "if the run had got to one, is kept."
    )


def start(
    settings: Settings,
    image_format: ImageFormat,
    data: Tensor,
    labels: Tensor,
    steps: int | None = None,
    encoder: nn.Module | None = None,
) -> Training:
    """The state before the first step.

    Args:
        settings: resolved ones.
        image_format: of the data.
        data: uint8 N x C x H x W, to train on.
        labels: int64 N, which only methods that need them get to see.
        steps: of the whole training, by default as many as the settings' epochs have.
        encoder: one whose weights are the first ones, by default random weights that the seed decides.
    """
    keep_freed_memory()
    device = torch.device(settings.runtime.device)
    check_images_fit(data, device)
    general = encoder if isinstance(encoder, GeneralEncoder) else None
    method = initial_method(settings, image_format, general, continued=encoder is None)
    if encoder is not None:
        method.encoder.load_state_dict(encoder.state_dict())
    for view in method.views():
        check_view(settings.encoder, image_format.shape, view.size, f"method {settings.method.name}: a view's size")
    method = method.to(device).train()
    per_epoch = len(data) // settings.optimiser.batch_size
    return Training(
        settings,
        method,
        data.to(device),
        labels.to(device) if method.NEEDS_LABELS else None,
        ViewMaker(method.views(), image_format.shape, method.encoder.mean, method.encoder.std),
        build_optimiser(method.parameter_groups(), settings.optimiser, device),
        per_epoch,
        settings.optimiser.epochs * per_epoch if steps is None else steps,
    )


def check_fits(settings: Settings) -> None:
    """Take the first steps of a resolved training, if on a GPU. Raises: UserError when its memory is too small."""
    if not settings.runtime.device.startswith("cuda"):
        return
    images = read_images(settings.data)
    index = split(images, settings.data.n_images or 0, settings.runtime.seed).pretrain
    training = start(settings, images.format, images.train[index], images.train_labels[index])
    state = begin_epoch(training, 0)
    with same_bits(training.data.device):
        for begun in range(STEPS_TO_FILL):
            if not _taken(training, state):
                raise out_of_memory(training, state, compute_step, begun)
            state.step = 0  # an epoch may have one only


def initial_method(
    settings: Settings, image_format: ImageFormat, general: GeneralEncoder | None = None, continued: bool = False
) -> Method:
    """The method with random weights, which the seed decides, on the CPU.

    Args:
        settings: resolved ones.
        image_format: of the images.
        general: a network that others trained, of which a copy takes the encoder's place; all its weights can be
            trained.
        continued: whether the encoder has the first weights that the settings name, if these are not random.
    """
    f = image_format
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.runtime.seed)
        if general is not None:
            return build_method(copy.deepcopy(general).cpu().requires_grad_(True), settings, f.n_classes)
        encoder = build_encoder(settings.encoder, f.shape, f.mean, f.std)
        if continued:
            load_initial_weights(encoder, settings.encoder)
        return build_method(encoder, settings, f.n_classes)


def parameter_count(module: Any) -> int:
    """Numbers that a module's parameters hold."""
    return sum(parameter.numel() for parameter in module.parameters())
