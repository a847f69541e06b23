"""Contrastive objectives as pure functions of projections."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.5) -> Tensor:
    """NT-Xent, the normalised temperature-scaled cross entropy (equation 1 of 2002.05709).

    z1, z2: N x D, the projections of two views of the same N images in the same order, not yet normalised, of any
    float dtype. Returns the mean over the 2N anchors of -log of the softmax, over the 2N - 1 other views, that falls
    on the anchor's positive: a float32 scalar, ln(2N - 1) when all projections are alike.
    """
    return F.cross_entropy(*nt_xent_logits(z1, z2, temperature))


def nt_xent_logits(z1: Tensor, z2: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits (float32 2N x 2N, minus infinity on the diagonal) and targets (int64 2N) of NT-Xent."""
    if z1.shape != z2.shape or z1.ndim != 2 or len(z1) == 0:
        raise ValueError(f"two N x D batches of projections are needed, not {tuple(z1.shape)} and {tuple(z2.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature has to be positive, not {temperature}")
    n = len(z1)
    with torch.autocast(
        z1.device.type, enabled=False
    ):  # in bfloat16 the exponentials would lose what tells views apart
        z = F.normalize(torch.cat([z1, z2]).float(), dim=1)
        # The anchor itself is masked out, not subtracted, so that no gradient flows through its similarity of 1.
        logits = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return logits, torch.arange(2 * n, device=z.device).roll(n)


def chance_loss(n: int) -> float:
    """NT-Xent of projections that do not tell images apart, for batches of n images: ln(2n - 1)."""
    return math.log(2 * n - 1)
