"""NT-Xent as this project and others compute it. Each is made by a function of the temperature."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from contrastive.losses import nt_xent

Loss = Callable[[Tensor, Tensor], Tensor]


def our_nt_xent(temperature: float) -> Loss:
    """This project's, a tile at a time."""
    return lambda z1, z2: nt_xent(z1, z2, temperature)


def matrix_nt_xent(temperature: float) -> Loss:
    """NT-Xent by one matrix of all similarities and PyTorch's cross entropy: the plain form."""

    def loss(z1: Tensor, z2: Tensor) -> Tensor:
        z = F.normalize(torch.cat([z1, z2]), dim=1)
        logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
        return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z1)))

    return loss


def lightly_nt_xent(temperature: float) -> Loss:
    """lightly's."""
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature)


def metric_learning_nt_xent(temperature: float) -> Loss:
    """pytorch-metric-learning's: positives are embeddings of the same label."""
    from pytorch_metric_learning.losses import NTXentLoss

    loss = NTXentLoss(temperature)
    return lambda z1, z2: loss(torch.cat([z1, z2]), torch.arange(len(z1)).repeat(2))


LOSSES: dict[str, Callable[[float], Loss]] = {
    "ours": our_nt_xent,
    "plain matrix": matrix_nt_xent,
    "lightly": lightly_nt_xent,
    "pytorch-metric-learning": metric_learning_nt_xent,
}
