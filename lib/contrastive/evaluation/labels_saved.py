"""How many labels a way of learning saves, and how sure that is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .statistics import LEVEL

DRAWS = 2000  # for an interval


def labels_needed(budgets: Sequence[int], curves: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """Number of labels at which label-budget curves reach accuracies, interpolated on a logarithmic axis of labels.

    budgets: rising numbers of labels. curves: float ... x budgets. accuracies: float ..., in the curves' unit. Returns
    float ...: infinity where a curve does not get there, its first number of labels where it is there already.
    """
    reached = curves >= accuracies[..., None]
    above = reached.argmax(-1)[..., None]  # the first point that is
    below = np.maximum(above - 1, 0)
    a0, a1 = (np.take_along_axis(curves, at, -1)[..., 0] for at in (below, above))
    n0, n1 = (np.log(np.asarray(budgets))[at[..., 0]] for at in (below, above))
    share = np.divide(accuracies - a0, a1 - a0, out=np.zeros_like(a0), where=a1 > a0)
    needed = np.where(above[..., 0] > 0, np.exp(n0 + share * (n1 - n0)), budgets[0])
    return np.where(reached.any(-1), needed, math.inf)


@dataclass(frozen=True)
class Savings:
    """How many labels another way needs for what one way reaches with `n`; infinity stands for more than were tried,
    the least that was tried for that many or fewer."""

    n: int
    needed: float
    low: float
    high: float
    least: int
    most: int


def label_savings(ours: np.ndarray, others: Mapping[int, np.ndarray], n: int, seed: int = 0) -> Savings:
    """The labels that the others need to be right as often as we are with n; all arrays seeds x images, as for
    `stats.paired_difference`.

    The 95 % interval is by percentiles of what is needed when all accuracies are drawn anew together, with their
    covariance over test images, by a normal distribution, and with that over seeds, which are few, by Student's t. What
    neither seeds nor images explain is counted in both, so with seeds that differ little the interval is wider than
    need be.
    """
    budgets = sorted(others)
    right = np.stack([ours, *(others[budget] for budget in budgets)]).astype(float)  # arms x seeds x images
    n_seeds, n_images = right.shape[1:]
    rng = np.random.default_rng(seed)
    mean, by_seed, by_image = right.mean((1, 2)), right.mean(2), right.mean(1)
    drawn = rng.multivariate_normal(mean, np.cov(by_image) / n_images, DRAWS)  # draws x arms
    if n_seeds > 1:
        of_mean = (by_seed.T - mean) / math.sqrt(n_seeds * (n_seeds - 1))  # its Gram matrix: covariance of the mean
        scale = np.sqrt((n_seeds - 1) / rng.chisquare(n_seeds - 1, (DRAWS, 1)))
        drawn += scale * rng.standard_normal((DRAWS, n_seeds)) @ of_mean

    needed = labels_needed(budgets, drawn[:, 1:], drawn[:, 0])
    # The nearest draw, since there is no number between a finite one and infinity
    low, high = np.quantile(needed, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    usual = labels_needed(budgets, mean[1:], mean[0])
    return Savings(n, float(usual), float(low), float(high), budgets[0], budgets[-1])
