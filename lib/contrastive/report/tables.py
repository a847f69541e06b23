"""Tables and sentences that are computed from a report's metrics, for notebooks and README alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluate import ARMS, labels_needed, standard_error, uncertainty
from .record import format_metric

Metrics = Mapping[str, Mapping[str, Any]]


def results_table(metrics: Metrics, budgets: Sequence[int], n_train: int, dataset: str) -> str:
    """Test accuracy by number of labels (rows, from all to few) and by what was done with them, in Markdown."""
    lines = [
        "| labels | " + " | ".join(ARMS.values()) + " |",
        "|:--|" + "--:|" * len(ARMS),
    ]
    for n in sorted(budgets, reverse=True):
        share = f" ({100 * n / n_train:.3g} % of {dataset})" if n < n_train else f" (all of {dataset})"
        best = max(ARMS, key=lambda prefix: metrics[f"{prefix}_accuracy@{n}"]["mean"])
        cells = []
        for prefix in ARMS:
            name = f"{prefix}_accuracy@{n}"
            text = format_metric(name, dict(metrics[name]))
            cells.append(f"**{text}**" if prefix == best else text)
        lines.append(f"| {n:,}{share} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curve(metrics: Metrics, prefix: str, budgets: Sequence[int]) -> dict[int, float]:
    """Labels -> mean accuracy of one arm."""
    return {n: metrics[f"{prefix}_accuracy@{n}"]["mean"] for n in budgets}


def difference(metrics: Metrics, a: str, b: str, n_test: int) -> tuple[float, float]:
    """Difference of two metrics' means, in points, and its standard error: from the test images and from the seeds."""
    means, variance = [], 0.0
    for name in (a, b):
        metric = metrics[name]
        means.append(metric["mean"])
        variance += standard_error(metric["mean"], n_test) ** 2 + metric["std"] ** 2 / metric["n_seeds"]
    return means[0] - means[1], variance**0.5


def versus(metrics: Metrics, a: str, b: str, n_test: int, whom: str) -> str:
    """A difference in words, which call it noise when it is under two standard errors."""
    points, error = difference(metrics, a, b, n_test)
    if abs(points) <= 2 * error:
        return f"within noise of {whom} ({points:+.2f} points, standard error {error:.2f})"
    return f"{abs(points):.2f} points {'better' if points > 0 else 'worse'} than {whom}"


def savings(metrics: Metrics, budgets: Sequence[int], n: int) -> str:
    """How many labels the same CNN needs from scratch to do as well as the probe with n, in words."""
    accuracy = metrics[f"linear_accuracy@{n}"]["mean"]
    needed = labels_needed(curve(metrics, "supervised", budgets), accuracy)
    start = f"With {n:,} labels, the linear probe on the pretrained encoder gets {accuracy:.1f} %"
    if needed is None:
        return f"{start}; the same CNN trained from scratch does not get there with all {max(budgets):,}."
    if needed <= n:
        few = f"{n:,} or fewer" if needed == min(budgets) else f"about {round_labels(needed):,}"
        return f"{start}; the same CNN trained from scratch does as well with {few}: no label is saved."
    return (
        f"{start}; the same CNN trained from scratch needs about {round_labels(needed):,} labels for that, "
        f"{needed / n:.1f} times as many."
    )


def answer(metrics: Metrics, budgets: Sequence[int], headline: int, n_test: int) -> str:
    """What a linear evaluation found, in two sentences: the labels saved where they are fewest; and the headline."""
    ours, low = f"linear_accuracy@{headline}", min(budgets)
    parts = [
        versus(metrics, ours, f"{control}_accuracy@{headline}", n_test, whom)
        for control, whom in (("random_encoder", "the random encoder"), ("supervised", "the CNN from scratch"))
    ]
    return (
        f"{savings(metrics, budgets, low)} With {headline:,} labels it gets {metrics[ours]['mean']:.2f} %: "
        f"{parts[0]}, and {parts[1]}."
    )


def key_numbers(metrics: Metrics, budgets: Sequence[int], headline: int, n_test: int) -> list[tuple[str, str, str]]:
    """The numbers that carry `answer`, for `conclude`."""
    arms = {"linear": "pretrained encoder", "random_encoder": "random encoder", "supervised": "same CNN from scratch"}
    tiles = [number(metrics[f"{arm}_accuracy@{headline}"], f"{name}, {headline:,} labels", n_test)
             for arm, name in arms.items()]  # fmt: skip
    low = min(budgets)
    needed = labels_needed(curve(metrics, "supervised", budgets), metrics[f"linear_accuracy@{low}"]["mean"])
    if needed is None:
        value = f"over {max(budgets):,}"
    else:
        value = f"{round_labels(needed):,}" + (" or fewer" if needed <= min(budgets) else "")
    return [*tiles, (value, "", f"labels that the CNN needs from scratch to match {low:,} on the pretrained encoder")]


def number(metric: Mapping[str, Any], what: str, n_test: int) -> tuple[str, str, str]:
    """An accuracy as a key number for `conclude`."""
    return f"{metric['mean']:.2f} %", f"± {uncertainty(metric, n_test)[0]:.2f}", what


def round_labels(n: float) -> int:
    """A number of labels to two significant digits: interpolation promises no more."""
    digits = len(str(int(n))) - 2
    return int(round(n, -digits)) if digits > 0 else int(n)
