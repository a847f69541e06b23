"""How sure a result is: means over seeds, and intervals of means and of differences, over judged images and groups of
them, seeds, draws of labels and folds of cross-validation."""

import math
import statistics
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

LEVEL = 0.95  # of every interval

# Values of judged images (see `per_image`) are float seeds x draws x images: their mean is a metric. Draws are draws of
# labels, or with cross-validation its repeats.


@dataclass(frozen=True, eq=False)
class Design:
    """How images were judged.

    groups: int64, of each judged image, such as its patient; empty if each is a group of its own. n_folds: of
    cross-validation; 0 for a test split.
    """

    groups: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    n_folds: int = 0


INDEPENDENT = Design()  # images of a test split


@dataclass(frozen=True)
class Interval:
    """The mean of values, and its 95 % interval, in their unit."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Of two metrics, in points: the mean, its 95 % interval, and the p-value of there being none."""

    points: float
    low: float
    high: float
    p: float


def interval(values: np.ndarray, design: Design = INDEPENDENT, bounded: bool = True) -> Interval:
    """How sure the mean of values is.

    Args:
        values: seeds x draws x images, or seeds x images.
        design: how the images were judged.
        bounded: whether the mean is a share, between 0 and 1. Then the interval is the exact one of Clopper and Pearson
            (1934), with as many images as would have given this variance if they were independent (Korn and Graubard
            1998), so it stays inside these bounds and has a width even if all or none were right. Otherwise it is the
            mean and its standard errors.

    Returns:
        The interval; all there might be, if all images are of one group.
    """
    from scipy import stats

    tries = as_tries(values)
    mean, spread = float(tries.mean()), spread_of(tries, design)
    if spread.n_groups < 2:
        return Interval(mean, 0.0, 1.0) if bounded else Interval(mean, -math.inf, math.inf)
    if tries.min() < 0 or tries.max() > 1:
        # No shares of tries that were right: some images count for more, as those of a rare class do in balanced
        # accuracy, and of few there may have been luck. So as if one more group counted as much as the one that counts
        # most
        spread = replace(spread, images=spread.images + spread.factor * spread.largest**2)
    t = _quantile(spread.freedom)
    if not bounded:
        half = t * math.sqrt(spread.total)
        return Interval(mean, mean - half, mean + half)
    if math.isnan(mean):
        return Interval(mean, mean, mean)
    p = min(max(mean, 0.0), 1.0)
    inverse, variance = spread.factor / spread.units, p * (1 - p)
    if variance > 0:
        # A few mistakes do not show whether the images of a group are alike. So as if there had been one more that
        # was: with none at all, the groups count, not the images
        mistakes = min(p, 1 - p) * tries.shape[2]
        inverse = (mistakes * spread.images / variance + inverse) / (mistakes + 1) + spread.rows / variance
    n = (stats.norm.ppf((1 + LEVEL) / 2) / t) ** 2 / inverse
    low = stats.beta.ppf((1 - LEVEL) / 2, p * n, (1 - p) * n + 1) if p > 0 else 0.0
    high = stats.beta.ppf((1 + LEVEL) / 2, p * n + 1, (1 - p) * n) if p < 1 else 1.0
    return Interval(mean, min(float(low), p), max(float(high), p))


def paired_difference(a: np.ndarray, b: np.ndarray, design: Design = INDEPENDENT) -> Difference:
    """How much better `a` is than `b`, by the values of the same images.

    The interval is Student's, with the variance of `spread_of`. So that it has a width when few images or none differ,
    one more group is counted that differs as much as the one that differs most, half of it for `a` and half for `b`,
    and one that does not: for right and wrong this is the interval of Agresti and Min (2005), for pairs. With one seed,
    each of independent test images tried once, the p-value is that of McNemar's exact test.

    Args:
        a, b: seeds x draws x images, or seeds x images. Of draws the first that both have are compared.
        design: how the images were judged.
    """
    from scipy import stats

    a, b = as_tries(a), as_tries(b)
    n_draws = min(a.shape[1], b.shape[1])
    d = a[:, :n_draws] - b[:, :n_draws]
    mean, spread = float(d.mean()), spread_of(d, design)
    if spread.n_groups < 2:
        return Difference(100 * mean, -100.0, 100.0, 1.0)
    n = spread.units
    largest = n * spread.largest or 1.0
    of_images = (n**2 * spread.images + spread.factor * largest**2 + 2 * n / (n + 2) * mean**2) / (n + 2) ** 2
    spread = replace(spread, images=of_images)
    middle, error = mean * n / (n + 2), math.sqrt(spread.total)
    half = _quantile(spread.freedom) * error
    low, high = max(middle - half, -1.0), min(middle + half, 1.0)
    better, worse = int((d == 1).sum()), int((d == -1).sum())
    once = d.shape[:2] == (1, 1) and design.n_folds == 0 and len(design.groups) == 0
    if once and better + worse == np.count_nonzero(d):
        p = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    else:
        p = 2 * stats.t.sf(abs(middle) / error, spread.freedom)
    return Difference(100 * mean, 100 * low, 100 * high, float(p))


def as_tries(values: np.ndarray) -> np.ndarray:
    """Values as float seeds x draws x images, of which seeds x images have one draw."""
    tries = np.asarray(values, float)
    return tries[:, None] if tries.ndim == 2 else tries


@dataclass(frozen=True)
class Spread:
    """The variance of a mean, in two parts.

    images: by the images, in groups. rows: by seeds, or draws of labels; 0 if there is one. n_rows: of them.
    n_groups: of images. units: as how many images independent ones would count, if those of a group were all alike.
    factor: by which cross-validation makes the images' part larger. largest: what one group moves the mean by, at most.
    """

    images: float
    rows: float
    n_rows: int
    n_groups: int
    units: float
    factor: float
    largest: float

    @property
    def total(self) -> float:
        """The variance of the mean."""
        return self.images + self.rows

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance (Satterthwaite 1946). Those of the images are by the effective number of
        groups, since with groups of unequal size some count for more (Carter, Schnepel and Steigerwald 2017)."""
        of_images = max(self.units - 1, 0.1)
        if self.rows == 0:
            return of_images
        return self.total**2 / (self.images**2 / of_images + self.rows**2 / (self.n_rows - 1))


def spread_of(tries: np.ndarray, design: Design) -> Spread:
    """The variance of the mean of values, seeds x draws x images.

    Images are a sample, of whole groups: their influences are summed inside groups. Seeds are crossed with images,
    since all seeds meet the same: both parts are estimated from a two-way layout, and what neither explains is in both
    and is counted once. With one seed, draws of labels take its place; with several, each seed counts by the mean of
    its draws.

    With cross-validation the training sets overlap, and the images are what is trained on, too. Then the variance that
    the images of a single repeat give is multiplied by 1/R + K/(K-1), for R repeats and K folds (Nadeau and Bengio
    2003; Bouckaert and Frank 2004): by 1.45 for 5 repeats of 5 folds.
    """
    n_seeds, n_draws, n = tries.shape
    sizes = group_sums(np.ones(n), design)
    n_groups, units = len(sizes), n**2 / float((sizes**2).sum())
    if n_groups < 2:
        return Spread(0.0, 0.0, 1, n_groups, units, 1.0, 0.0)
    small = n_groups / (n_groups - 1)
    average = tries.mean((0, 1))
    moves = group_sums(average - average.mean(), design) / n
    factor = images_factor(n_seeds, n_draws, design)
    if design.n_folds:
        each = group_sums(tries - tries.mean(2, keepdims=True), design) / n
        of_images = factor * small * float((each**2).sum(-1).mean())
        rows = tries.mean((1, 2))
    else:
        layout = random_rows(tries, design)
        rows = layout.mean(1)
        of_images = small * float((moves**2).sum())
        if len(rows) > 1:
            unexplained = group_sums(layout - rows[:, None], design) / n - moves
            of_both = small * float((unexplained**2).sum()) / (len(rows) * (len(rows) - 1))
            of_images = max(of_images - of_both, 0.0)
    of_rows = float(rows.var(ddof=1)) / len(rows) if len(rows) > 1 else 0.0
    return Spread(of_images, of_rows, len(rows), n_groups, units, factor, float(np.abs(moves).max()))


def random_rows(tries: np.ndarray, design: Design) -> np.ndarray:
    """What is a sample beside the images, rows x images: the seeds; or, of one seed, the draws of labels. Repeats of
    cross-validation are of the same labels, so one seed is one row."""
    return tries[0] if len(tries) == 1 and not design.n_folds else tries.mean(1)


def images_factor(n_seeds: int, n_draws: int, design: Design) -> float:
    """By which the variance is multiplied that the images of one try give; see `spread_of`.

    In simulations (2 and 10 classes, 30 to 200 images, linear classifiers, 5 folds) the mean over 5 repeats was off by
    0.8 to 1.4 times this variance, and one repeat alone by 1.0 to 1.8 times; with 12 groups by up to 1.8 and 2.0; the
    difference of two classifiers by 0.5 to 1.1 and 1.0 to 1.4. So the correction is enough where it is hard, and
    cautious elsewhere. With several seeds the 1/R is in their spread already.
    """
    if not design.n_folds:
        return 1.0
    return design.n_folds / (design.n_folds - 1) + (1 / n_draws if n_seeds == 1 else 0.0)


def group_sums(values: np.ndarray, design: Design) -> np.ndarray:
    """Values ... x images summed inside groups: ... x groups. Raises: ValueError when there are not as many groups as
    images."""
    groups = design.groups
    if len(groups) == 0:
        return values
    if len(groups) != values.shape[-1]:
        raise ValueError(f"groups of {len(groups)} images, values of {values.shape[-1]}")
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    return np.add.reduceat(values[..., order], starts, axis=-1)


def _quantile(freedom: float) -> float:
    """Student's, of an interval's upper end."""
    from scipy import stats

    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def summary(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation over seeds (0 for one), their number, and the values themselves."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "n_seeds": len(values), "values": list(values)}


def standard_error(percent: float, n: int) -> float:
    """Standard error, in points, of an accuracy measured on n images (binomial)."""
    share = min(max(percent / 100, 1 / n), 1 - 1 / n)
    return 100 * math.sqrt(share * (1 - share) / n)
