"""The supervised contrastive loss, SupCon."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sup_con(z: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """SupCon with the mean over positives outside of the logarithm, L_out (equation 2 of 2004.11362).

    Args:
        z: M x D, projections of all views of a batch, not yet normalised.
        labels: int64 M, the class of each view's image.
        temperature: by which cosines are divided.

    Returns:
        The mean over anchors that have a positive (another view of the same class), a float32 scalar, ln(M - 1) when
        all projections are alike; and the share of these anchors whose nearest other view is a positive, without
        gradient. If no two views have a class in common, both are 0.
    """
    with torch.autocast(z.device.type, enabled=False):
        z = F.normalize(z.float(), dim=1)
        cosines, same = z @ z.T, labels[:, None] == labels
        positive = same.clone().fill_diagonal_(False)
        n_positives = positive.sum(1)
        n_anchors = (n_positives > 0).sum().clamp(min=1)
        logs = (cosines / temperature).fill_diagonal_(-math.inf).log_softmax(1)  # an anchor is not compared with itself
        losses = -logs.masked_fill(~positive, 0).sum(1) / n_positives.clamp(min=1)
        nearest, others = (cosines.detach().masked_fill(~kind, -math.inf).amax(1) for kind in (positive, ~same))
        # Nearer by more than rounding errors, which are all that tells collapsed projections apart
        return losses.sum() / n_anchors, (nearest > others + 1e-6).sum() / n_anchors
