"""NT-Xent, the loss of SimCLR, made to be fast and to need little memory."""

import math
from collections.abc import Iterator
from itertools import combinations_with_replacement

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import processor

TILE = 1024  # rows and columns of a tile: 4 MB, which stays in a processor's cache
TILE_GPU = 4096  # 64 MB: smaller ones would leave a GPU waiting for the next
SHORTEST = 1e-12  # length of a projection, as in torch.nn.functional.normalize


def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.5, normalize: bool = True) -> Tensor:
    """NT-Xent, the normalised temperature-scaled cross entropy (equation 1 of 2002.05709).

    z1, z2: N x D, the projections of two views of the same N images in the same order, not yet normalised, of any
    float dtype. Returns the mean over the 2N anchors of -log of the softmax, over the 2N - 1 other views, that falls
    on the anchor's positive: a float32 scalar, ln(2N - 1) when all projections are alike. Nothing is approximated, and
    memory grows with N, not with its square (below a temperature of 0.025 it does). It can be differentiated once, by
    the projections. normalize: compare by cosine, as the paper does, or else by dot product (then memory grows with
    the square of N). Raises: ValueError.
    """
    return _nt_xent(z1, z2, temperature, normalize, with_top1=False)[0]


def nt_xent_and_top1(z1: Tensor, z2: Tensor, temperature: float, normalize: bool = True) -> tuple[Tensor, Tensor]:
    """NT-Xent as `nt_xent` gives it, and the share of anchors, a float32 scalar without gradient, that are nearer to
    their positive than to every other view. Raises: ValueError."""
    return _nt_xent(z1, z2, temperature, normalize, with_top1=True)


def _nt_xent(z1: Tensor, z2: Tensor, temperature: float, normalize: bool, with_top1: bool) -> tuple[Tensor, Tensor]:
    with torch.autocast(z1.device.type, enabled=False):  # bfloat16 would lose what tells views apart
        # Tiles hold exp(cosine / temperature): sums of these are finite and above 0 in float32 down to 0.025.
        if normalize and temperature >= 0.025:
            return _Tiled.apply(join_views(z1, z2, temperature, False), temperature, with_top1)
        return whole_matrix(join_views(z1, z2, temperature, normalize), temperature)


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
    columns. Let u_i be the projections, of length 1 over the root of T, so that products are cosines over T. With
    e_ij = exp(u_i u_j), 0 for i = j, and s_i its sum over j, the loss is the mean of log s_i - log e_ip for the
    positive p of i; its gradient by u_i is, over 2N, the sum over j of e_ij (1/s_i + 1/s_j) u_j, less 2 u_p.
    """

    @staticmethod
    def forward(ctx, x: Tensor, temperature: float, with_top1: bool) -> tuple[Tensor, Tensor]:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_(min=SHORTEST).mul_(math.sqrt(temperature))
        u, n = x / length, len(x) // 2
        on_gpu = processor.on_gpu(x)
        tile = TILE_GPU if on_gpu else TILE
        kept = None
        if on_gpu and 2 * n <= tile:  # the whole matrix is one tile: it is kept, and fewer kernels are launched
            kept = _exponentials(u, u, None).fill_diagonal_(0)
            sums, positive = kept.sum(1), torch.cat([kept.diagonal(n), kept.diagonal(-n)])
            found = (kept >= positive[:, None]).sum(1) == 1 if with_top1 else None
        else:
            sums, positive, negative = u.new_zeros(3, 2 * n)  # negative: the largest e of each anchor's negatives
            for i, j, e in _tiles(u, tile):
                sums[i] += e.sum(1)
                if i != j:
                    sums[j] += e.sum(0)
                if j.start == i.start + n:
                    positive[i] = positive[j] = e.diagonal()
                    e.fill_diagonal_(0)
                if with_top1:
                    negative[i] = negative[i].maximum(e.amax(1))
                    negative[j] = negative[j].maximum(e.amax(0))
            found = positive > negative if with_top1 else None
        top1 = sums.new_zeros(()) if found is None else found.float().mean()
        ctx.save_for_backward(u, length, sums, kept)
        ctx.temperature, ctx.tile = temperature, tile
        ctx.mark_non_differentiable(top1)
        return (sums.log() - positive.log()).mean(), top1

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _) -> tuple[Tensor, None, None]:
        u, length, sums, kept = ctx.saved_tensors
        inverse = 1 / sums
        if kept is not None:
            total = torch.addmm(u.roll(len(u) // 2, 0), kept * (inverse[:, None] + inverse), u, beta=-2)
        else:
            total = u.roll(len(u) // 2, 0).mul_(-2)
            for i, j, e in _tiles(u, ctx.tile):
                e.mul_(inverse[i, None] + inverse[j])
                total[i].addmm_(e, u[j])
                if i != j:
                    total[j].addmm_(e.T, u[i])
        # Through x / length: what points along u falls away, since a projection's length does not count.
        total -= u * (total * u).sum(1, keepdim=True).mul_(ctx.temperature)
        return total.mul_(grad / len(u)).div_(length), None, None


def _exponentials(rows: Tensor, columns: Tensor, out: Tensor | None) -> Tensor:
    return torch.mm(rows, columns.T, out=out).exp_()


def _tiles(u: Tensor, tile: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """The tiles on and above the diagonal: slices of rows and of columns, and e, in one buffer that is used again.

    Both halves of the rows are cut alike, so that positives lie on the diagonals of tiles.
    """
    n = len(u) // 2
    parts = [slice(s, min(s + tile, end)) for start, end in ((0, n), (n, 2 * n)) for s in range(start, end, tile)]
    buffer = u.new_empty(min(tile, n) ** 2)
    for i, j in combinations_with_replacement(parts, 2):
        rows, columns = u[i], u[j]
        e = _exponentials(rows, columns, buffer[: len(rows) * len(columns)].view(len(rows), len(columns)))
        if i == j:
            e.fill_diagonal_(0)
        yield i, j, e
