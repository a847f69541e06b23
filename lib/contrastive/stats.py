"""How sure a result is: intervals of differences and of label savings, over seeds and over test images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

LEVEL = 0.95  # of every interval
DRAWS = 2000  # of a bootstrap


@dataclass(frozen=True)
class Difference:
    """Of two accuracies, in points: the mean, its 95 % interval, and the p-value of there being none."""

    points: float
    low: float
    high: float
    p: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


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


def interval(values: Any) -> float:
    """Half the width of the 95 % interval of a mean over seeds, by Student's t; nan for one value."""
    from scipy import stats

    x = np.asarray(values, float)
    if len(x) < 2:
        return math.nan
    return float(stats.t.ppf((1 + LEVEL) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))


def labels_needed(curve: Mapping[int, float], accuracy: float) -> float | None:
    """Number of labels at which a label-budget curve reaches `accuracy`, interpolated on a logarithmic axis of labels.

    curve: labels -> accuracy. None when it does not get there; its first point when it is there already.
    """
    points = sorted(curve.items())
    if points[0][1] >= accuracy:
        return float(points[0][0])
    for (n0, a0), (n1, a1) in pairwise(points):
        if a0 < accuracy <= a1:
            return math.exp(math.log(n0) + (accuracy - a0) / (a1 - a0) * (math.log(n1) - math.log(n0)))
    return None


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
    `paired_difference`.

    The interval is a bootstrap's, over seeds and test images at once, by percentiles. That few seeds, drawn with
    replacement, spread less than the seeds there might have been is made good by a factor.
    """
    budgets = sorted(others)
    right = np.stack([ours, *(others[budget] for budget in budgets)]).astype(float)  # arms x seeds x images
    n_seeds, n_images = right.shape[1:]
    rng = np.random.default_rng(seed)
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=DRAWS) / n_seeds
    images = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=DRAWS) / n_images
    mean, by_seed, by_image = right.mean((1, 2)), right.mean(2), right.mean(1)
    spread = math.sqrt(n_seeds / (n_seeds - 1)) if n_seeds > 1 else 0.0
    drawn = mean + spread * (seeds @ by_seed.T - mean) + (images @ by_image.T - mean)  # draws x arms

    def needed(accuracies: np.ndarray) -> float:
        found = labels_needed(dict(zip(budgets, accuracies[1:], strict=True)), accuracies[0])
        return math.inf if found is None else found

    # The nearest draw, since there is no number between a finite one and infinity
    low, high = np.quantile([needed(row) for row in drawn], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return Savings(n, needed(mean), float(low), float(high), budgets[0], budgets[-1])


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error in percent, over equal bins of the largest probability (1706.04599, section 2)."""
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    # The bins are open on the left, as in the paper
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=right - sure.astype(float), minlength=bins)
    return float(100 * np.abs(gaps).sum() / len(labels))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that logits, N x classes, are to be divided by for the least cross entropy (1706.04599)."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def cross_entropy(log_temperature: float) -> float:
        scaled = log_softmax(logits / math.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    return math.exp(minimize_scalar(cross_entropy, bounds=(-4, 4), method="bounded").x)


def macro_auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve, each class against the rest, averaged over the classes that occur; in percent."""
    from sklearn.metrics import roc_auc_score

    occurring = [c for c in np.unique(labels) if 0 < (labels == c).sum() < len(labels)]
    if not occurring:
        return math.nan
    return 100 * float(np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in occurring]))


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
