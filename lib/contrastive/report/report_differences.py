"""By how much numbers of several reports differ, and whether that is more than noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation import Key
from ..evaluation.statistics import standard_error
from .verify import measured_on


@dataclass(frozen=True)
class Report:
    """A report that is compared: its name here, its results, and its training curves, run -> epochs, if it has them."""

    name: str
    results: Mapping[str, Any]
    curves: Mapping[str, list[dict[str, float]]]


@dataclass(frozen=True)
class ReportDifference:
    """How far a metric is from the first report's: in its unit, with the half width of the 95 % interval, or None."""

    name: str
    value: float
    interval: float | None

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and abs(self.value) > self.interval

    def __str__(self) -> str:
        decimals = Key.parse(self.name).kind.decimals
        spread = "(1 seed)" if self.interval is None else f"± {self.interval:.{decimals}f}"
        return f"{self.value:+.{decimals}f} {spread}"


def differences(first: Report, other: Report) -> dict[str, ReportDifference]:
    """Other less first, for each metric that both have."""
    found = {}
    for name, ours in first.results["metrics"].items():
        theirs = other.results["metrics"].get(name)
        if theirs is not None:
            sides = [(first.results, ours), (other.results, theirs)]
            found[name] = ReportDifference(name, theirs["mean"] - ours["mean"], interval_95(name, sides))
    return found


def interval_95(name: str, sides: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> float | None:
    """Half the width of the 95 % interval of the difference of a metric's two means, from (results, metric) of each.

    Where a report gives a number's interval, which counts groups, folds, seeds and draws of labels, that is what it
    adds. Else by Student's t with Welch's degrees of freedom, for the spread over few seeds is not well known. Of one
    seed nobody knows what another would change: of an accuracy that is taken as `verify` takes it; of what is no
    accuracy, nothing is known: None.
    """
    from scipy.stats import t

    fixed, over_seeds = 0.0, []
    for results, metric in sides:
        n_images, n_labels = measured_on(name, results)
        several, share = metric["n_seeds"] > 1, Key.parse(name).kind.spread == "share"
        own = results.get("intervals", {}).get(name)
        if not several and not share:
            return None
        if not several and n_labels:
            fixed += standard_error(metric["mean"], n_labels) ** 2
        if own:
            fixed += ((own["high"] - own["low"]) / (2 * 1.96)) ** 2
            continue
        if several:
            over_seeds.append((metric["std"] ** 2 / metric["n_seeds"], metric["n_seeds"] - 1))
        if share:
            fixed += standard_error(metric["mean"], n_images) ** 2
    total = fixed + sum(variance for variance, _ in over_seeds)
    unsure = sum(variance**2 / freedom for variance, freedom in over_seeds)
    return float(t.ppf(0.975, total**2 / unsure) if unsure else 1.96) * total**0.5


def headline(report: Report) -> str:
    """The metric that a report leads with."""
    results = report.results
    name = str(Key(results.get("headline_metric", "accuracy"), "linear", results.get("headline_labels")))
    return name if name in results["metrics"] else next(iter(results["metrics"]))


def interval_of(report: Report, name: str) -> dict[str, float]:
    """Mean, and `low` and `high` of its 95 % interval, of a share of images in percent: as the report gives them or, of
    older ones, from the number of images and the spread over seeds."""
    from scipy.stats import t

    if own := report.results.get("intervals", {}).get(name):
        return dict(own)
    metric, (n_images, _) = report.results["metrics"][name], measured_on(name, report.results)
    half = 1.96 * standard_error(metric["mean"], n_images)
    if metric["n_seeds"] > 1:
        of_seeds = float(t.ppf(0.975, metric["n_seeds"] - 1)) * metric["std"] / metric["n_seeds"] ** 0.5
        half = (half**2 + of_seeds**2) ** 0.5
    return {"mean": metric["mean"], "low": metric["mean"] - half, "high": metric["mean"] + half}
