"""What a grid's runs say: noise, intervals, and whether a paper's findings hold in them."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..evaluation.statistics import standard_error
from .grids import JUDGED_ON, Claim, Grid, Point, selected


@dataclass
class GridResult:
    """What a grid's runs gave. values: h or z -> point -> seed -> accuracy on validation images.

    untrained: the same of each point's encoder with its random first weights. failures: (point, seed, why).
    """

    grid: Grid
    points: dict[str, Point]
    n_validation: int
    values: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    untrained: dict[str, dict[int, float]] = field(default_factory=dict)
    failures: list[tuple[str, int, str]] = field(default_factory=list)
    seconds: float = 0.0

    def of(self, point: str, features: str = "h") -> list[float]:
        """A point's accuracies, by seed; empty if all failed."""
        return list(self.by_seed(point, features).values())

    def by_seed(self, point: str, features: str = "h") -> dict[int, float]:
        """A point's accuracies, seeds rising; empty if all failed."""
        return dict(sorted(self.values.get(features, {}).get(point, {}).items()))


@dataclass(frozen=True)
class Verdict:
    """On a claim: confirmed, refuted, undecided or not run; the difference in points, the half width of its 95 %
    interval, and the p-value of there being none; the last two are not a number with one seed."""

    word: str
    points: float
    interval: float
    p: float

    @property
    def shown(self) -> str:
        """The half width as a reader sees it."""
        return "?" if math.isnan(self.interval) else f"{self.interval:.2f}"


Row = Mapping[int, float]  # seed -> accuracy of a point, in percent


def verdict(result: GridResult, claim: Claim) -> Verdict:
    """Whether a claim holds in a grid's results, by `compare_points` of the points that its sides select.

    A side may be `judged_on: z`, the projections.
    """
    kinds = [str(side.get(JUDGED_ON, "h")) for side in (claim.better, claim.worse)]
    better, worse = (
        [result.values.get(kind, {}).get(name, {}) for name in selected(result.points, side, result.grid)]
        for kind, side in zip(kinds, (claim.better, claim.worse), strict=True)
    )
    return compare_points(result, better, worse, kinds[0] if len(set(kinds)) == 1 else None)


def compare_points(result: GridResult, better: Sequence[Row], worse: Sequence[Row], kind: str | None = "h") -> Verdict:
    """Whether some points are better than others on average, by the differences of the seeds that all of them have.

    Seeds are paired, since they share images, labels and validation images. What is left of a grid's accuracies after
    the effects of points and of seeds tells the noise, pooled over its points, since few seeds would not tell it well:
    the residual mean square of a layout of points by seeds, of those points that have all seeds, on the scale of
    log-odds, where networks that err much and little vary about as much. By Student's t, but never narrower than the
    validation images allow. kind: h or z; with None, or where nothing can be pooled, the differences of the seeds
    alone tell the noise. With one seed nothing does, and what differs stays undecided.
    """
    from scipy.stats import t

    seeds = sorted(set.intersection(*(set(row) for row in (*better, *worse)))) if better and worse else []
    if not seeds:
        return Verdict("not run", math.nan, math.nan, math.nan)
    sides = [np.array([[row[seed] for seed in seeds] for row in side]) for side in (better, worse)]
    a, b = (side.mean(0) for side in sides)
    mean, n = float(a.mean() - b.mean()), len(seeds)
    noise = _pooled_noise(result, kind) if kind is not None else None
    if noise is not None:
        spread, freedom = noise
        # From log-odds back to points, each point where it is
        error = spread * math.sqrt(sum((_slope(side.mean(1)) ** 2).sum() / len(side) ** 2 for side in sides) / n)
    elif n > 1:
        freedom, error = n - 1, float((a - b).std(ddof=1)) / math.sqrt(n)
    else:
        return Verdict("undecided", mean, math.nan, math.nan)
    quantile = float(t.ppf(0.975, freedom))
    half = max(quantile * error, _least_interval(sides, result.n_validation))
    word = "undecided" if not abs(mean) > half else "confirmed" if mean > 0 else "refuted"
    return Verdict(word, mean, half, float(2 * t.sf(quantile * abs(mean) / half, freedom)))


def _pooled_noise(result: GridResult, kind: str) -> tuple[float, int] | None:
    """Standard deviation of log-odds that neither points nor seeds explain, and its degrees of freedom; None if fewer
    than two points have two seeds."""
    from scipy.special import logit

    seeds = sorted(set().union(*result.values[kind].values()))
    rows = [own for own in result.values[kind].values() if len(own) == len(seeds)]
    if len(rows) < 2 or len(seeds) < 2:
        return None
    share = np.array([[own[seed] for seed in seeds] for own in rows]) / 100
    least = 0.5 / result.n_validation
    x = logit(share.clip(least, 1 - least))
    residual = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    freedom = (len(rows) - 1) * (len(seeds) - 1)
    return math.sqrt(float((residual**2).sum()) / freedom), freedom


def _slope(percent: np.ndarray) -> np.ndarray:
    """How many points an accuracy changes by for each unit of its log-odds."""
    return percent * (100 - percent) / 100


def _least_interval(sides: Sequence[np.ndarray], n_images: int) -> float:
    """1.96 standard errors of one accuracy on that many images, over the square root of the number of seeds: two
    networks err on much the same images, so their difference is known about as well as one of them."""
    middle = statistics.fmean(float(side.mean()) for side in sides)
    return 1.96 * standard_error(middle, n_images) / math.sqrt(sides[0].shape[1])


def least_difference(result: GridResult, kind: str = "h") -> float:
    """By how much any two points of a grid have to differ, that it is more than noise: the largest half width of
    `compare_points`; nan if there are no two, or one seed."""
    pairs = itertools.combinations(result.values[kind].values(), 2)
    intervals = [compare_points(result, [one], [other], kind).interval for one, other in pairs]
    return max((half for half in intervals if not math.isnan(half)), default=math.nan)


def bar_length(result: GridResult, row: Row, kind: str = "h") -> float:
    """By how much a point has to differ from another that is about as good, that it is more than noise; nan with one
    seed."""
    if _pooled_noise(result, kind) is None:  # then only pairs of different points tell it
        return least_difference(result, kind)
    return compare_points(result, [row], [row], kind).interval


def finding(result: GridResult, claim: Claim) -> str:
    """A claim's verdict in words."""
    found = verdict(result, claim)
    if found.word == "not run":
        return f"{claim.say}: not run here."
    if math.isnan(found.interval):
        return f"{claim.say}: undecided here ({found.points:+.2f} points, but one seed does not tell noise)."
    words = {"confirmed": "so it is here", "refuted": "here it is the other way round", "undecided": "undecided here"}
    return f"{claim.say}: {words[found.word]} ({found.points:+.2f} ± {found.shown} points, 95 %)."


def summary_sentence(result: GridResult, features: str = "h") -> str:
    """Which point is best, and how many of the others are worse by more than noise."""
    means = {name: statistics.fmean(v) for name in result.points if (v := result.of(name, features))}
    if len(means) < 2:
        return "Too few points were run to say anything."
    best = max(means, key=lambda name: means[name])
    if math.isnan(least_difference(result, features)):
        return f"Best of {len(means)}: {best}, {means[best]:.2f} %; one seed does not tell noise."
    rows = result.values[features]
    worse = sum(compare_points(result, [rows[best]], [rows[name]], features).word == "confirmed" for name in means)
    return (
        f"Best of {len(means)}: {best}, {means[best]:.2f} %; {worse} of the others are worse by more than noise, "
        f"the worst by {means[best] - min(means.values()):.2f} points."
    )


def untrained_sentence(result: GridResult) -> str:
    """What the same encoders get with random weights, and how many of the points are better; empty if not measured."""
    rows = {name: row for name in result.points if (row := result.untrained.get(name))}
    if not rows:
        return ""
    means = [statistics.fmean(row.values()) for row in rows.values()]
    level = f"{min(means):.2f} %" if max(means) - min(means) < 0.005 else f"{min(means):.2f} to {max(means):.2f} %"
    words = [compare_points(result, [result.values["h"][name]], [row]).word for name, row in rows.items()]
    return (
        f"Not pretrained, the same {'encoder gets' if len(set(means)) == 1 else 'encoders get'} {level}: "
        f"{words.count('confirmed')} of {len(words)} points are better by more than noise, "
        f"{words.count('refuted')} worse."
    )
