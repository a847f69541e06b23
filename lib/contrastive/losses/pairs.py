"""The losses that the SimCLR paper compares NT-Xent with (2002.05709, tables 2 and 4), and all of them by name."""

import math
from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .ntxent import join_views, nt_xent_and_top1, positives


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
        z = join_views(z1, z2, scale, normalize)
        similarity = z @ z.T
        target, top1 = positives(similarity.detach().clone().fill_diagonal_(-math.inf))
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
    """About the lowest loss of n images, by cosine: positives coincide and all other views are orthogonal."""
    if name == "nt_xent":
        return math.log1p((2 * n - 2) * math.exp(-1 / temperature))
    apart = torch.eye(4)
    return LOSSES[name](apart, apart, temperature, True)[0].item()
