"""Whether images and batches fit the memory of a GPU; and the largest batch that does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..settings import RunError, UserError
from .state import LoopState

if TYPE_CHECKING:
    from .loop import Training

Work = Callable[["Training", LoopState], None]
SMALLEST = 2  # images of a batch
STEPS_TO_FILL = 2  # after which a step takes no more memory than before


def check_images_fit(data: Tensor, device: torch.device) -> None:
    """Raises: UserError when images, uint8, are larger than what is free of a GPU's memory."""
    if device.type != "cuda":
        return
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # what PyTorch keeps for itself
    if data.numel() > free:
        fit = len(data) * free // data.numel()
        raise UserError(
            f"{len(data):,} images of {data.shape[-2]}x{data.shape[-1]} pixels do not fit the {free / 2**30:.1f} GiB "
            f"that are free of the GPU's memory: about {fit:,} would. Set n_images or image_size lower, or device=cpu."
        )


class TooLargeError(UserError):
    """A batch that does not fit a GPU's memory."""


def out_of_memory(training: Training, state: LoopState, work: Work, begun: int) -> UserError:
    """What to say when a step ran out of the device's memory; the training is of no more use. Where only `begun` steps
    were taken since it was started or loaded, it is found out which batch would fit, by taking steps with smaller ones:
    the first steps make room for what the optimiser remembers and for gradients."""
    taken, size = state.taken(training.steps_of_epoch), training.settings.optimiser.batch_size
    training.graph.forget()
    if begun >= STEPS_TO_FILL:
        return RunError(
            f"the GPU's memory ran out at step {taken + 1:,} of {training.steps:,}, where it had been enough before: "
            "something else takes more of it now. Free that memory and run the same again, which goes on from the last "
            f"checkpoint, if there is one; or start anew with a batch_size below {size}."
        )
    fit = largest_batch(lambda n: _fits(training, n, work), size)
    if fit < SMALLEST:
        return TooLargeError(
            f"not even a batch of {SMALLEST} fits the GPU's memory. Use a smaller image_size or encoder, or device=cpu."
        )
    return TooLargeError(
        f"batch_size={size} does not fit the GPU's memory: the largest that does is about batch_size={fit}. A smaller "
        "view_size or image_size takes less, too."
    )


def largest_batch(fits: Callable[[int], bool], too_large: int) -> int:
    """The largest batch that fits, below one that does not, to a thirty-second part; 0 when none does."""
    low, high = 0, too_large
    while high - low > max(low // 32, 1):
        middle = (low + high) // 2
        if middle < SMALLEST:
            break
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _fits(training: Training, batch_size: int, work: Work) -> bool:
    data = training.data
    training.optimiser.zero_grad()
    if data.device.type == "cuda":
        torch.cuda.empty_cache()
    state = LoopState.empty(len(data), batch_size, len(training.method.LOG), data.device)
    try:
        for _ in range(STEPS_TO_FILL):
            work(training, state)
    except torch.OutOfMemoryError:
        return False
    return True
