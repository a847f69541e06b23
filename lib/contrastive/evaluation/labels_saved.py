"""How many labels a way of learning saves, and how sure that is.

The measure, how many labels another way needs to be as good, is that of Newell and Deng, "How useful is self-supervised
pretraining for visual tasks?", CVPR 2020 (2003.14323).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .statistics import INDEPENDENT, LEVEL, Design, as_tries, group_sums, images_factor, random_rows

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


def label_savings(
    ours: np.ndarray,
    others: Mapping[int, np.ndarray],
    n: int,
    design: Design = INDEPENDENT,
    seed: int = 0,
) -> Savings:
    """The labels that the others need to be right as often as we are with n.

    The 95 % interval is by percentiles of what is needed when all means are drawn anew together, with their covariance
    over images, in whole groups, and with that over seeds (or of one seed over draws of labels), each by Student's t
    with its degrees of freedom, as in `statistics.spread_of`. What neither seeds nor images explain is counted in both,
    so with seeds that differ little the interval is wider than need be.

    Args:
        ours: values of judged images, seeds x draws x images, or seeds x images.
        others: the same of the others, by number of labels. Of draws the first that all have are used.
        n: labels that ours had.
        design: how the images were judged.
        seed: of what is drawn.

    Returns:
        The labels needed; the interval is all there might be, if all images are of one group.
    """
    budgets = sorted(others)
    tries = [as_tries(values) for values in (ours, *(others[budget] for budget in budgets))]
    n_draws = min(values.shape[1] for values in tries)
    arms = np.stack([values[:, :n_draws] for values in tries])  # arms x seeds x draws x images
    mean = arms.mean((1, 2, 3))
    usual = float(labels_needed(budgets, mean[1:], mean[0]))
    sizes = group_sums(np.ones(arms.shape[-1]), design)
    if len(sizes) < 2:
        return Savings(n, usual, budgets[0], math.inf, budgets[0], budgets[-1])
    rng = np.random.default_rng(seed)
    drawn = mean + _moved_by_images(arms, sizes, design, rng) + _moved_by_rows(arms, design, rng)
    needed = labels_needed(budgets, drawn[:, 1:], drawn[:, 0])
    # The nearest draw, since there is no number between a finite one and infinity
    low, high = np.quantile(needed, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return Savings(n, usual, float(low), float(high), budgets[0], budgets[-1])


def _moved_by_images(arms: np.ndarray, sizes: np.ndarray, design: Design, rng: np.random.Generator) -> np.ndarray:
    """Deviations of the means, DRAWS x arms, with the covariance that other images would give, in groups of these
    sizes."""
    n_arms, n_seeds, n_draws, n = arms.shape
    units = n**2 / (sizes**2).sum()
    # A single try of each image under cross-validation, else the mean of all
    layout = arms.reshape(n_arms, -1, n) if design.n_folds else arms.mean((1, 2))[:, None]
    influences = group_sums(layout - layout.mean(2, keepdims=True), design) / n
    covariance = np.einsum("atg,btg->ab", influences, influences) / layout.shape[1]
    factor = images_factor(n_seeds, n_draws, design)
    covariance *= factor * len(sizes) / (len(sizes) - 1)
    # All or none right: by chance, with other images, one group might have been otherwise
    least = factor / units**2
    covariance += np.diag(np.maximum(least - covariance.diagonal(), 0))
    normal = rng.multivariate_normal(np.zeros(n_arms), covariance, DRAWS)
    freedom = max(units - 1, 1.0)
    return normal * np.sqrt(freedom / rng.chisquare(freedom, (DRAWS, 1)))


def _moved_by_rows(arms: np.ndarray, design: Design, rng: np.random.Generator) -> np.ndarray:
    """Deviations of the means, DRAWS x arms, with the covariance that other seeds or draws of labels would give."""
    rows = np.stack([random_rows(tries, design).mean(1) for tries in arms], 1)  # rows x arms
    if len(rows) == 1:
        return np.zeros((DRAWS, len(arms)))
    freedom = len(rows) - 1
    of_mean = (rows - rows.mean(0)) / math.sqrt(len(rows) * freedom)  # its Gram matrix: covariance of the mean
    scale = np.sqrt(freedom / rng.chisquare(freedom, (DRAWS, 1)))
    return scale * rng.standard_normal((DRAWS, len(rows))) @ of_mean
