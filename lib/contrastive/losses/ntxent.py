"""Contrastive objectives as pure functions of projections.

NT-Xent is the one that counts, and is made to be fast. The others are those that the SimCLR paper compares it with
(2002.05709, tables 2 and 4), to be compared again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import combinations_with_replacement

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 1024  # rows and columns of a tile: 4 MB, which stays in a processor's cache


def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.5, normalize: bool = True) -> Tensor:
    """NT-Xent, the normalised temperature-scaled cross entropy (equation 1 of 2002.05709).

    z1, z2: N x D, the projections of two views of the same N images in the same order, not yet normalised, of any
    float dtype. Returns the mean over the 2N anchors of -log of the softmax, over the 2N - 1 other views, that falls
    on the anchor's positive: a float32 scalar, ln(2N - 1) when all projections are alike. Nothing is approximated, and
    memory grows with N, not with its square (below a temperature of 0.025 it does). It can be differentiated once, by
    the projections. normalize: compare by cosine, as the paper does, or else by dot product (then memory grows with
    the square of N). Raises: ValueError.
    """
    return nt_xent_and_top1(z1, z2, temperature, normalize)[0]


def nt_xent_and_top1(z1: Tensor, z2: Tensor, temperature: float, normalize: bool = True) -> tuple[Tensor, Tensor]:
    """NT-Xent as `nt_xent` gives it, and the share of anchors, a float32 scalar without gradient, that are nearer to
    their positive than to every other view. Raises: ValueError."""
    with torch.autocast(z1.device.type, enabled=False):  # bfloat16 would lose what tells views apart
        z = _joined(z1, z2, temperature, normalize)
        # Tiles hold exp((cosine - 1) / temperature): in float32 that is above 0 for every cosine down to 0.025.
        return _Tiled.apply(z, temperature) if normalize and temperature >= 0.025 else _whole(z, temperature)


def _joined(z1: Tensor, z2: Tensor, temperature: float, normalize: bool) -> Tensor:
    """Both batches in one, float32 2N x D. Raises: ValueError when they or the temperature are not what is needed."""
    if z1.shape != z2.shape or z1.ndim != 2 or len(z1) == 0:
        raise ValueError(f"two N x D batches are needed, N at least 1, not {tuple(z1.shape)} and {tuple(z2.shape)}")
    if isinstance(temperature, Tensor) or not temperature > 0:
        raise ValueError(f"temperature has to be a positive number, not {temperature}")
    z = torch.cat([z1, z2]).float()
    return F.normalize(z, dim=1) if normalize else z


def _whole(z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Both results from the whole matrix of logits."""
    # The anchor itself is masked out, not subtracted, so that no gradient flows through its similarity of 1.
    logits = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    target, top1 = _partners(logits)
    return F.cross_entropy(logits, target), top1


def _partners(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """For a 2N x 2N matrix, its diagonal -inf: each row's positive (int64 2N), and how often that is the largest."""
    target = torch.arange(len(similarity), device=similarity.device).roll(len(similarity) // 2)
    others = similarity.detach().clone()
    positive = others.gather(1, target[:, None])
    top1 = (positive > others.scatter_(1, target[:, None], -math.inf).amax(1, keepdim=True)).float().mean()
    return target, top1


class _Tiled(torch.autograd.Function):
    """Both results from one tile of the matrix at a time, computed again for the gradient rather than kept.

    The matrix is symmetric, so only tiles on and above its diagonal are computed, each used for its rows and for its
    columns. With e_ij = exp((z_i z_j - 1) / T), 0 for i = j, and s_i its sum over j, the loss is the mean of
    log s_i - log e_ip for the positive p of i; its gradient by z_i is, over 2N T, the sum over j of
    e_ij (1/s_i + 1/s_j) z_j, less 2 z_p.
    """

    @staticmethod
    def forward(ctx, z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        sums, negative = z.new_zeros(len(z)), z.new_zeros(len(z))  # negative: the largest e of each anchor's negatives
        positive = z.new_zeros(len(z))
        for i, j, e in _tiles(z, temperature):
            sums[i] += e.sum(1)
            if i != j:
                sums[j] += e.sum(0)
            if j.start == i.start + len(z) // 2:
                positive[i] = positive[j] = e.diagonal()
                e.fill_diagonal_(0)
            negative[i] = negative[i].maximum(e.amax(1))
            negative[j] = negative[j].maximum(e.amax(0))
        ctx.save_for_backward(z, sums)
        ctx.temperature = temperature
        top1 = (positive > negative).float().mean()
        ctx.mark_non_differentiable(top1)
        return (sums.log() - positive.log()).mean(), top1

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _) -> tuple[Tensor, None]:
        z, sums = ctx.saved_tensors
        total = z.roll(len(z) // 2, dims=0).mul_(-2)
        inverse = 1 / sums
        for i, j, e in _tiles(z, ctx.temperature):
            e.mul_(inverse[i, None] + inverse[j])
            total[i].addmm_(e, z[j])
            if i != j:
                total[j].addmm_(e.T, z[i])
        return total.mul_(grad / (len(z) * ctx.temperature)), None


def _tiles(z: Tensor, temperature: float) -> Iterator[tuple[slice, slice, Tensor]]:
    """The tiles on and above the diagonal: slices of rows and of columns, and e, in one buffer that is used again.

    Both halves of the rows are cut alike, so that positives lie on the diagonals of tiles.
    """
    n = len(z) // 2
    parts = [slice(s, min(s + TILE, end)) for start, end in ((0, n), (n, 2 * n)) for s in range(start, end, TILE)]
    buffer = z.new_empty(min(TILE, n) ** 2)
    for i, j in combinations_with_replacement(parts, 2):
        rows, columns = z[i], z[j]
        e = buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
        torch.mm(rows / temperature, columns.T, out=e)
        e.sub_(1 / temperature).exp_()
        if i == j:
            e.fill_diagonal_(0)
        yield i, j, e


def nt_logistic_and_top1(
    z1: Tensor, z2: Tensor, temperature: float, normalize: bool = True, semi_hard: bool = False
) -> tuple[Tensor, Tensor]:
    """NT-Logistic (table 2 of 2002.05709), each positive a case of its own, and the share as `nt_xent_and_top1` has it.

    The mean over the 2N anchors of -log sigmoid(s_p / T), for the similarity s_p of the positive, and of the mean over
    the negatives of -log sigmoid(-s / T). semi_hard: only the negatives less similar than the positive count.
    """
    return _of_pairs(
        lambda positive: F.softplus(-positive / temperature),
        lambda positive, s: F.softplus(s / temperature),
        z1, z2, temperature, normalize, semi_hard,
    )  # fmt: skip


def margin_triplet_and_top1(
    z1: Tensor, z2: Tensor, margin: float, normalize: bool = True, semi_hard: bool = False
) -> tuple[Tensor, Tensor]:
    """The margin triplet loss (table 2 of 2002.05709), and the share as `nt_xent_and_top1` has it.

    The mean over the 2N anchors of the mean over their negatives of max(0, s - s_p + margin), for the similarities s of
    the negative and s_p of the positive. semi_hard: only the negatives less similar than the positive count.
    """
    return _of_pairs(
        torch.zeros_like, lambda positive, s: F.relu(s - positive + margin), z1, z2, margin, normalize, semi_hard
    )


def _of_pairs(
    of_positive: Callable[[Tensor], Tensor],
    of_negative: Callable[[Tensor, Tensor], Tensor],
    z1: Tensor,
    z2: Tensor,
    scale: float,
    normalize: bool,
    semi_hard: bool,
) -> tuple[Tensor, Tensor]:
    """The mean over anchors of a term of the positive and the mean of a term over the negatives that count, if any."""
    with torch.autocast(z1.device.type, enabled=False):
        z = _joined(z1, z2, scale, normalize)
        similarity = z @ z.T
        target, top1 = _partners(similarity.detach().clone().fill_diagonal_(-math.inf))
        positive = similarity.gather(1, target[:, None])
        counts = torch.ones_like(similarity, dtype=torch.bool).fill_diagonal_(False)
        counts.scatter_(1, target[:, None], False)
        if semi_hard:
            counts &= similarity.detach() < positive.detach()
        terms = of_negative(positive, similarity).masked_fill(~counts, 0).sum(1) / counts.sum(1).clamp(min=1)
        return (of_positive(positive).squeeze(1) + terms).mean(), top1


# name -> function of (z1, z2, temperature, normalize) that gives the loss and how often the positive is the nearest
LOSSES: dict[str, Callable[[Tensor, Tensor, float, bool], tuple[Tensor, Tensor]]] = {
    "nt_xent": nt_xent_and_top1,
    "nt_logistic": nt_logistic_and_top1,
    "nt_logistic_semi_hard": partial(nt_logistic_and_top1, semi_hard=True),
    "margin_triplet": margin_triplet_and_top1,
    "margin_triplet_semi_hard": partial(margin_triplet_and_top1, semi_hard=True),
}


@cache
def chance_loss(n: int, temperature: float = 0.5, name: str = "nt_xent") -> float:
    """The loss of projections that do not tell images apart, for batches of n images: ln(2n - 1) for NT-Xent."""
    if name == "nt_xent":
        return math.log(2 * n - 1)
    alike = torch.ones(4, 1)  # of more images it is the same
    return LOSSES[name.removesuffix("_semi_hard")](alike, alike, temperature, True)[0].item()


@cache
def lowest_loss(n: int, temperature: float, name: str = "nt_xent") -> float:
    """About the lowest loss of n images, by cosine: partners coincide and all other views are orthogonal."""
    if name == "nt_xent":
        return math.log1p((2 * n - 2) * math.exp(-1 / temperature))
    apart = torch.eye(4)
    return LOSSES[name](apart, apart, temperature, True)[0].item()
