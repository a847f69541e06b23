"""How sure a difference is that few seeds show: others, trained the same way, tell how much seeds move results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..evaluation.statistics import LEVEL, Design, Difference, as_tries, paired_difference, spread_of

# As how many degrees of freedom what all show counts, beside what two that are compared show themselves. In simulations
# (6 and 10 that are equal, 3 seeds) fewer left the seeds of two too much luck; without those, where some vary five
# times as much as others, one in six comparisons found a difference that was none.
PRIOR = 6.0


@dataclass(frozen=True)
class SeedNoise:
    """How much seeds move results: the variance of log-odds that neither what was trained nor the seed explains, and
    its degrees of freedom."""

    variance: float
    freedom: float


def pooled_noise(rows: Sequence[Sequence[float]], n_images: int) -> SeedNoise | None:
    """The noise that several results share, by the residual mean square of a layout of results by seeds, on the scale
    of log-odds, where networks that err much and little vary about as much.

    Args:
        rows: shares that are right, results x seeds.
        n_images: that each was judged on.

    Returns:
        The noise; None of fewer than two results or seeds.
    """
    from scipy.special import logit

    shares = np.array(rows, float)
    if shares.ndim < 2 or min(shares.shape) < 2:
        return None
    least = 0.5 / n_images
    x = logit(shares.clip(least, 1 - least))
    residual = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    freedom = (x.shape[0] - 1) * (x.shape[1] - 1)
    return SeedNoise(float((residual**2).sum()) / freedom, freedom)


def difference(a: np.ndarray, b: np.ndarray, design: Design, noise: SeedNoise | None) -> Difference:
    """How much better `a` is than `b`: `paired_difference`, but what seeds add is moderated (Smyth 2004): a mean of
    what these two show and of what all show, weighted by degrees of freedom.

    Args:
        a, b: values of judged images, seeds x draws x images.
        design: how the images were judged.
        noise: what all show; None where nothing is known.
    """
    from scipy import stats

    a, b = as_tries(a), as_tries(b)
    if noise is None or len(a) < 2 or noise.freedom < len(a):
        return paired_difference(a, b, design)
    draws = min(a.shape[1], b.shape[1])
    d = a[:, :draws] - b[:, :draws]
    mean, own = float(d.mean()), spread_of(d, design)
    if own.n_groups < 2:
        return paired_difference(a, b, design)
    seen = own.n_rows - 1
    prior = min(PRIOR, noise.freedom - seen)  # these two are among all
    slopes = sum((m * (1 - m)) ** 2 for m in (min(max(float(x.mean()), 0.0), 1.0) for x in (a, b)))
    rows = (prior * noise.variance * slopes / len(a) + seen * own.rows) / (prior + seen)
    # Of the images, as in `paired_difference`: one more group that differs, half for each side, and one that does not
    n = own.units
    of_images = n**2 * own.images + own.factor * (n * own.largest or 1.0) ** 2 + 2 * n / (n + 2) * mean**2
    spread = replace(own, images=of_images / (n + 2) ** 2, rows=rows, n_rows=1 + math.floor(prior + seen))
    middle, error = mean * n / (n + 2), math.sqrt(spread.total)
    half = float(stats.t.ppf((1 + LEVEL) / 2, spread.freedom)) * error
    p = 2 * float(stats.t.sf(abs(middle) / error, spread.freedom))
    return Difference(100 * mean, 100 * max(middle - half, -1.0), 100 * min(middle + half, 1.0), p)
