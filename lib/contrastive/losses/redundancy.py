"""Losses that look at dimensions rather than at images: no two may tell the same. Barlow Twins and VICReg."""

import torch
import torch.nn.functional as F
from torch import Tensor

BATCHNORM_EPSILON = 1e-5  # added to variances, as in BatchNorm
VICREG_EPSILON = 1e-4  # added to variances (2105.04906, section 4.2)


def barlow_twins(z1: Tensor, z2: Tensor, off_diagonal: float) -> tuple[Tensor, Tensor]:
    """The loss of Barlow Twins (equation 1 of 2103.03230).

    C is the D x D cross-correlation of two views' projections over the batch, each dimension centred and divided by its
    standard deviation along the batch. The loss is the sum of (1 - C_ii)^2, and of C_ij^2 for i != j times a weight.

    Args:
        z1, z2: N x D, projections of two views of the same images in the same order, N at least 2.
        off_diagonal: the weight, lambda in the paper.

    Returns:
        The loss, a float32 scalar, D when all projections are alike; and the mean of C_ii, without gradient.
    """
    with torch.autocast(z1.device.type, enabled=False):
        correlation = _standardised(z1).T @ _standardised(z2) / len(z1)
        diagonal = correlation.diagonal()
        return (1 - diagonal).square().sum() + off_diagonal * _redundancy(correlation), diagonal.detach().mean()


def _standardised(z: Tensor) -> Tensor:
    z = z.float() - z.float().mean(0)
    return z / (z.square().mean(0) + BATCHNORM_EPSILON).sqrt()


def _redundancy(matrix: Tensor) -> Tensor:
    """The sum of squares beside the diagonal, which is left out, not subtracted: rounding errors would be larger than
    what is left at the end of a training."""
    return matrix.square().fill_diagonal_(0).sum()


def vicreg(
    z1: Tensor, z2: Tensor, invariance: float, variance: float, covariance: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of VICReg (2105.04906, equation 6, its terms as in algorithm 1).

    Args:
        z1, z2: N x D, projections of two views of the same images in the same order, N at least 2.
        invariance: weight of the mean squared difference of the views, over images and dimensions.
        variance: weight, for each view, of the mean over dimensions of how far their standard deviation is below 1.
        covariance: weight, for each view, of the sum of squared covariances of different dimensions, divided by D.

    Returns:
        The loss, a float32 scalar, 2 * 0.99 * `variance` when all projections are alike; and, without gradient, the
        mean standard deviation of a dimension and the covariance term of the views together.
    """
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = z1.float(), z2.float()
        deviations = [(z.var(0) + VICREG_EPSILON).sqrt() for z in (z1, z2)]
        hinge = sum(F.relu(1 - own).mean() for own in deviations)
        redundancy = (_redundancy(_covariance(z1)) + _redundancy(_covariance(z2))) / z1.shape[1]
        loss = invariance * F.mse_loss(z1, z2) + variance * hinge + covariance * redundancy
        return loss, {"std": torch.stack(deviations).detach().mean(), "covariance": redundancy.detach()}


def _covariance(z: Tensor) -> Tensor:
    z = z - z.mean(0)
    return z.T @ z / (len(z) - 1)
