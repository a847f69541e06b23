"""NT-Xent, the loss of SimCLR, made to be fast and to need little memory."""

import math
from collections.abc import Iterator
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
        z = join_views(z1, z2, temperature, normalize)
        # Tiles hold exp((cosine - 1) / temperature): in float32 that is above 0 for every cosine down to 0.025.
        return _Tiled.apply(z, temperature) if normalize and temperature >= 0.025 else whole_matrix(z, temperature)


def join_views(z1: Tensor, z2: Tensor, temperature: float, normalize: bool) -> Tensor:
    """Both batches in one, float32 2N x D. Raises: ValueError when they or the temperature are not what is needed."""
    if z1.shape != z2.shape or z1.ndim != 2 or len(z1) == 0:
        raise ValueError(f"two N x D batches are needed, N at least 1, not {tuple(z1.shape)} and {tuple(z2.shape)}")
    if isinstance(temperature, Tensor) or not temperature > 0:
        raise ValueError(f"temperature has to be a positive number, not {temperature}")
    z = torch.cat([z1, z2]).float()
    return F.normalize(z, dim=1) if normalize else z


def whole_matrix(z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """NT-Xent and the share of anchors nearest to their positive, of joined views, from the whole matrix."""
    # The anchor itself is masked out, not subtracted, so that no gradient flows through its similarity of 1.
    logits = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    target, top1 = positives(logits)
    return F.cross_entropy(logits, target), top1


def positives(similarity: Tensor) -> tuple[Tensor, Tensor]:
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
