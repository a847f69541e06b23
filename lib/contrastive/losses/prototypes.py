"""Losses that compare how two views are assigned to prototypes: SwAV's and DINO's."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sinkhorn(scores: Tensor, epsilon: float, iterations: int = 3) -> Tensor:
    """Assignments of images to prototypes that use all prototypes alike (2006.09882, equation 3, section 3.1).

    Args:
        scores: N x K, cosines of images and prototypes.
        epsilon: how soft assignments are.
        iterations: of the Sinkhorn-Knopp algorithm.

    Returns:
        float32 N x K, without gradient: rows sum to 1, columns to about N / K.
    """
    with torch.autocast(scores.device.type, enabled=False), torch.no_grad():
        logs = scores.float() / epsilon  # of the assignments: they themselves could all be lost to underflow
        for _ in range(iterations):
            logs = logs.log_softmax(0).log_softmax(1)  # as much of each prototype, then as much of each image
        return logs.exp()


def prototype_cross_entropy(targets: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """The cross entropy of one view's assignments by the other view's scores (2006.09882, equation 2; 2104.14294,
    equation 2).

    Args:
        targets: N x K, rows that sum to 1; they get no gradient.
        scores: N x K, of the other view.
        temperature: by which scores are divided.

    Returns:
        The mean over the N rows, a float32 scalar, ln K where scores tell nothing.
    """
    with torch.autocast(scores.device.type, enabled=False):
        logs = F.log_softmax(scores.float() / temperature, dim=1)
        return -(targets.detach().float() * logs).sum(1).mean()


def sharpened(scores: Tensor, centre: Tensor, temperature: float | Tensor) -> Tensor:
    """A teacher's assignments: scores less their centre, divided by a temperature, as a softmax (2104.14294, equation
    1 and section 3.1). Float32 N x K, without gradient, of N x K scores and a centre of 1 x K."""
    with torch.autocast(scores.device.type, enabled=False), torch.no_grad():
        return ((scores.float() - centre) / temperature).softmax(1)


def share_in_use(assignments: Tensor) -> Tensor:
    """Which share of K prototypes a batch uses: the exponential of the entropy of the mean of N x K assignments, over
    K; from 1/K (all images at one) to 1 (all prototypes alike). A float32 scalar, without gradient."""
    mean = assignments.detach().float().mean(0)
    return torch.special.entr(mean).sum().exp() / len(mean)
