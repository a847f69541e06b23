"""What our own training step is made of, part by part."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from contrastive.data import Images
from contrastive.losses import nt_xent
from contrastive.settings import Settings
from contrastive.training import begin_epoch
from contrastive.training.loop import take_step

from .arms import our_training, simclr

Call = Callable[[], object]
STANDING = 1e-9  # a learning rate that leaves the weights where they are, so that each call does the same


def step_parts(settings: Settings, images: Images, index: Tensor) -> dict[str, Call]:
    """Our training step on the images of that index, and its parts by themselves."""
    training = our_training(settings.replace(lr=STANDING), images, index)
    encoder, optimiser = training.method.encoder, training.optimiser
    state, draws = begin_epoch(training, 0), Generator().manual_seed(0)
    batch = torch.arange(settings.optimiser.batch_size)
    # In one batch, laid out channels last, as the encoder gets them
    views = torch.cat(training.make_views(training.data[batch], draws))

    def project() -> Tensor:
        return training.method.representations(encoder(views))["z"]

    z = project().detach().float().requires_grad_()

    def step() -> None:
        state.step = 0  # of the epoch, which has few
        take_step(training, state)

    def network() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.runtime.precision == "bfloat16"):
            out = project()
        optimiser.zero_grad()
        out.backward(torch.ones_like(out))
        optimiser.step()

    def loss() -> None:
        first, second = z.chunk(2)
        nt_xent(first, second, simclr(settings).temperature).backward()

    return {
        "whole step": step,
        "encoder, head and optimiser": network,
        "augmentation": lambda: training.make_views(training.data[batch], draws),
        "loss": loss,
    }
