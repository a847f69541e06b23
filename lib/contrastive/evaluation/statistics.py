"""How sure a result is: means over seeds, and intervals of differences, over seeds and over test images."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95  # of every interval


@dataclass(frozen=True)
class Difference:
    """Of two accuracies, in points: the mean, its 95 % interval, and the p-value of there being none."""

    points: float
    low: float
    high: float
    p: float


def paired_difference(a: np.ndarray, b: np.ndarray, seed: int = 0) -> Difference:
    """How much better `a` is than `b`, both seeds x images: the share (0 to 1) of tries in which an image was right.

    With one seed only the test images are a sample: a percentile bootstrap over them, and McNemar's exact test (if
    each image was tried once). With several, seeds and images are both random and crossed, since all seeds meet the
    same test images: the variance is that of a two-way layout, each part estimated from the differences, and the
    quantile is Student's, with Satterthwaite's degrees of freedom.
    """
    from scipy import stats

    d = np.asarray(a, float) - np.asarray(b, float)
    n_seeds, n = d.shape
    mean = float(d.mean())
    if n_seeds == 1:
        means = _resampled_means(d[0], seed)
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        better, worse = int((d == 1).sum()), int((d == -1).sum())
        if better + worse == np.count_nonzero(d):
            p = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
        else:
            error = d.std(ddof=1) / math.sqrt(n)
            p = 2 * stats.norm.sf(abs(mean) / error)
    else:
        of_seeds, of_images, freedom = _two_way(d)
        error = math.sqrt(of_seeds + of_images)
        half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
        low, high = mean - half, mean + half
        p = 2 * stats.t.sf(abs(mean) / error, freedom) if error else float(mean == 0)
    return Difference(100 * mean, 100 * float(low), 100 * float(high), float(p))


def _two_way(d: np.ndarray) -> tuple[float, float, float]:
    """For seeds x images: the variances of the mean that come from the seeds and from the images, and the degrees of
    freedom of their sum. What neither explains is in both, and is counted once."""
    n_seeds, n = d.shape
    rows, columns = d.mean(1), d.mean(0)
    residual = d - rows[:, None] - columns + d.mean()
    of_both = residual.var() * d.size / ((n_seeds - 1) * (n - 1)) / d.size
    of_seeds = rows.var(ddof=1) / n_seeds
    of_images = max(columns.var(ddof=1) / n - of_both, 0.0)
    total = of_seeds + of_images
    return of_seeds, of_images, max((n_seeds - 1) * (total / of_seeds) ** 2 if of_seeds else math.inf, n_seeds - 1)


def _resampled_means(d: np.ndarray, seed: int) -> np.ndarray:
    """Means of bootstrap samples of `d`, which has few distinct values: their counts are drawn."""
    values, counts = np.unique(d, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(d), counts / len(d), size=10_000)
    return drawn @ values / len(d)


def summary(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation over seeds (0 for one), their number, and the values themselves."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "n_seeds": len(values), "values": list(values)}


def standard_error(percent: float, n: int) -> float:
    """Standard error, in points, of an accuracy measured on n images (binomial)."""
    share = min(max(percent / 100, 1 / n), 1 - 1 / n)
    return 100 * math.sqrt(share * (1 - share) / n)


def uncertainty(metric: Mapping[str, Any], n_test: int) -> tuple[float, str]:
    """How far an accuracy's mean can be trusted, in points, and what that is in words: the standard deviation over
    seeds or, with one seed, the 95 % interval that comes from the number of test images alone."""
    if metric["n_seeds"] > 1:
        return metric["std"], f"one standard deviation over {metric['n_seeds']} seeds"
    return 1.96 * standard_error(metric["mean"], n_test), f"95 % interval from {n_test:,} test images, one seed"
