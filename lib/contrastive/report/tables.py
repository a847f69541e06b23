"""Tables and sentences that are computed from a report's results, for notebooks and README alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation.statistics import uncertainty
from ..evaluation.summary import ARMS, MORE_ARMS, SCRATCH, better_from_scratch
from .record import format_metric

Metrics = Mapping[str, Mapping[str, Any]]
Compared = Mapping[str, Mapping[str, float]]  # as `summarize.comparisons` gives them
Saved = Mapping[str, Mapping[str, float | None]]  # as `summarize.savings` gives them


def results_table(metrics: Metrics, budgets: Sequence[int], n_train: int, dataset: str) -> str:
    """Test accuracy by number of labels (rows, from all to few) and by what was done with them, in Markdown."""
    return _by_labels(metrics, budgets, _measured(metrics, ARMS), n_train, dataset)


def few_labels(budgets: Sequence[int], n_classes: int) -> int:
    """The number of labels that an answer is about: the fewest with ten of each class, or the most there are."""
    return min((n for n in budgets if n >= 10 * n_classes), default=max(budgets))


def more_arms_table(metrics: Metrics, budgets: Sequence[int], n_train: int, dataset: str) -> str:
    """The same for the arms of a full evaluation, beside the linear probe; empty if there are none."""
    more = _measured(metrics, MORE_ARMS)
    return _by_labels(metrics, budgets, {"linear": ARMS["linear"], **more}, n_train, dataset) if more else ""


def _measured(metrics: Metrics, arms: Mapping[str, str]) -> dict[str, str]:
    return {arm: name for arm, name in arms.items() if any(m.startswith(f"{arm}_accuracy@") for m in metrics)}


def recipes_table(reports: Mapping[str, Mapping[str, Any]], budgets: Sequence[int]) -> str:
    """Several reports' linear probes beside each other, each with its CNN from scratch, the difference, and that from
    the random encoder; then the other arms of the first report. `reports`: what a report is called in the table -> its
    results. In Markdown."""
    first = next(iter(reports.values()))
    lines = [
        "| test accuracy (%) with | "
        + " | ".join(f"{n:,} labels" for n in budgets)
        + f" | kNN, {first['headline_labels']:,} labels |",
        "|:--|" + "--:|" * (len(budgets) + 1),
    ]
    for name, results in reports.items():
        metrics, compared = results["metrics"], results["comparisons"]
        lines.append(f"| **{name}** | {_cells(metrics, 'linear', budgets)} | {_bare(metrics['knn_accuracy'])} |")
        own = _measured(metrics, {arm: ARMS[arm] for arm in SCRATCH})
        lines += [f"| – {name} | {_cells(metrics, arm, budgets)} | |" for arm, name in own.items()]
        several = metrics["knn_accuracy"]["n_seeds"] > 1  # a p-value of one seed is of its test images alone
        above = " | ".join(_above(compared, n, better_from_scratch(metrics, n), several) for n in budgets)
        better = "pretraining is better than the better of these by" if len(own) > 1 else "pretraining is better by"
        lines.append(f"| – {better} | {above} | |")
        above_random = [_above(compared, n, "random_encoder", several) for n in budgets]
        if set(above_random) != {"–"}:
            cells = " | ".join(above_random)
            lines.append(f"| – pretraining is better than the frozen random encoder by | {cells} | |")
        if results is not first and several:
            cells = " | ".join(_above_other(metrics, first["metrics"], n) for n in budgets)
            lines.append(f"| – … than the CNN from scratch under the first recipe's augmentations by | {cells} | |")
    metrics = first["metrics"]
    for arm, name in {**ARMS, **MORE_ARMS}.items():
        if arm not in ("linear", *SCRATCH) and any(f"{arm}_accuracy@{n}" in metrics for n in budgets):
            lines.append(f"| {name} | {_cells(metrics, arm, budgets)} | |")
    return "\n".join(lines)


def _cells(metrics: Metrics, arm: str, budgets: Sequence[int]) -> str:
    names = [f"{arm}_accuracy@{n}" for n in budgets]
    return " | ".join(_bare(metrics[name]) if name in metrics else "–" for name in names)


def _bare(metric: Mapping[str, Any]) -> str:
    """An accuracy without its unit, with the standard deviation over seeds if there are several."""
    return format_metric("", dict(metric)).removesuffix(" %")


def _above_other(metrics: Metrics, others: Metrics, n: int) -> str:
    """The linear probe less another report's CNN from scratch with n labels. Paired by seed: the same seed draws the
    same images and labels for both."""
    from scipy.stats import ttest_rel

    names = f"linear_accuracy@{n}", f"supervised_accuracy@{n}"
    if names[0] not in metrics or names[1] not in others:
        return "–"
    a, b = metrics[names[0]]["values"], others[names[1]]["values"]
    common = min(len(a), len(b))
    return _signed(sum(a[:common]) / common - sum(b[:common]) / common, ttest_rel(a[:common], b[:common]).pvalue)


def _signed(points: float, p: float) -> str:
    return f"{points:+.2f} (p {'< 0.001' if p < 0.001 else f'= {p:.2g}'})"


def _above(compared: Compared, n: int, arm: str, with_p: bool) -> str:
    difference = compared.get(f"linear_accuracy@{n} - {arm}_accuracy@{n}")
    if difference is None:
        return "–"
    return _signed(difference["points"], difference["p"]) if with_p else f"{difference['points']:+.2f}"


def _by_labels(metrics: Metrics, budgets: Sequence[int], arms: Mapping[str, str], n_train: int, dataset: str) -> str:
    lines = ["| labels | " + " | ".join(arms.values()) + " |", "|:--|" + "--:|" * len(arms)]
    for n in sorted(budgets, reverse=True):
        share = f" ({100 * n / n_train:.3g} % of {dataset})" if n < n_train else f" (all of {dataset})"
        own = {arm: metrics[f"{arm}_accuracy@{n}"] for arm in arms if f"{arm}_accuracy@{n}" in metrics}
        best = max(own, key=lambda arm: own[arm]["mean"])
        cells = []
        for arm in arms:
            text = format_metric(f"{arm}_accuracy@{n}", dict(own[arm])) if arm in own else "–"
            cells.append(f"**{text}**" if arm == best else text)
        lines.append(f"| {n:,}{share} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def versus(difference: Mapping[str, float], whom: str) -> str:
    """A difference in words, which call it noise when its 95 % interval holds 0."""
    points, low, high = (difference[name] for name in ("points", "low", "high"))
    if low <= 0 <= high:
        return f"within noise of {whom} ({points:+.2f} points, 95 %: {low:+.2f} to {high:+.2f})"
    return (
        f"{abs(points):.2f} points {'better' if points > 0 else 'worse'} than {whom} (95 %: {low:+.2f} to {high:+.2f})"
    )


def against(compared: Compared, n: int, arm: str) -> Mapping[str, float]:
    """How much better the linear probe is than another arm, with n labels."""
    return compared[f"linear_accuracy@{n} - {arm}_accuracy@{n}"]


def savings(metrics: Metrics, saved: Saved, n: int) -> str:
    """How many labels the same CNN needs from scratch to do as well as the probe with n, in words."""
    own = saved[str(n)]
    needed, most = own["needed"], own["most"]
    accuracy, of_all = (f"{percent:.1f} %" for percent in (own["accuracy"], metrics[f"linear_accuracy@{n}"]["mean"]))
    start = f"With {n:,} labels, the linear probe on the pretrained encoder gets {accuracy}"
    if accuracy != of_all:
        start += f" (with the first draw of labels, which the CNN had, too; {of_all} with all draws)"
    if needed is None:
        tried = f"does not get there with {most:,}, the most that were tried"
        return f"{start}; the same CNN trained from scratch {tried}{_between(own)}."
    if needed <= n:
        surely = own["high"] is not None and own["high"] <= n
        verdict = "no label is saved" if surely else "whether any label is saved is within noise"
        does = f"does as well with {_labels(needed, own)}{_between(own)}"
        return f"{start}; the same CNN trained from scratch {does}: {verdict}."
    unsure = own["low"] is not None and own["low"] <= n
    return (
        f"{start}; the same CNN trained from scratch needs {_labels(needed, own)} labels for that{_between(own)}, "
        f"{needed / n:.1f} times as many{': whether any label is saved is within noise' if unsure else ''}."
    )


def _labels(n: float | None, own: Mapping[str, float | None]) -> str:
    least, most = own["least"] or 0, own["most"] or 0
    if n is None:
        return f"more than {most:,}"
    return f"{least:,} or fewer" if n <= least else f"about {round_labels(n):,}"


def _between(own: Mapping[str, float | None]) -> str:
    """The interval of a number of labels, in brackets."""
    least, most = own["least"] or 0, own["most"] or 0
    low, high = own["low"], own["high"]
    ends = (
        "more" if low is None else f"{least:,} or fewer" if low <= least else f"{round_labels(low):,}",
        f"more than {most:,}" if high is None else f"{round_labels(high):,}",
    )
    return f" (95 %: {ends[0]} to {ends[1]})" if low is not None else f" (95 %: {ends[1]})"


def answer(metrics: Metrics, compared: Compared, saved: Saved, few: int, headline: int) -> str:
    """What a linear evaluation found, in two sentences: the labels saved where they are few; and the headline."""
    best = better_from_scratch(metrics, headline)
    measured = [arm for arm in SCRATCH if f"{arm}_accuracy@{headline}" in metrics]
    scratch = f"the better {ARMS[best].removeprefix('same ')}" if len(measured) > 1 else "the CNN from scratch"
    parts = [
        versus(against(compared, headline, arm), whom)
        for arm, whom in (("random_encoder", "the random encoder"), (best, scratch))
    ]
    own = metrics[f"linear_accuracy@{headline}"]
    alone = " (One seed: these intervals are of test images alone.)" if own["n_seeds"] == 1 else ""
    return (
        f"{savings(metrics, saved, few)} With {headline:,} labels it gets {own['mean']:.2f} %: {parts[0]}, and "
        f"{parts[1]}.{alone}"
    )


def key_numbers(metrics: Metrics, saved: Saved, few: int, headline: int, n_test: int) -> list[tuple[str, str, str]]:
    """The numbers that carry `answer`, for `conclude`."""
    best = better_from_scratch(metrics, headline)
    arms = {"linear": "pretrained encoder", "random_encoder": "random encoder", best: {**ARMS, **MORE_ARMS}[best]}
    tiles = [number(metrics[f"{arm}_accuracy@{headline}"], f"{name}, {headline:,} labels", n_test)
             for arm, name in arms.items()]  # fmt: skip
    value = _labels(saved[str(few)]["needed"], saved[str(few)]).removeprefix("about ")
    return [*tiles, (value, "", f"labels that the CNN needs from scratch to match {few:,} on the pretrained encoder")]


def robustness(metrics: Metrics, headline: int) -> str:
    """What corrupted images leave of the headline's accuracies, in words; empty if that was not measured."""
    arms = {
        "linear": "the linear probe",
        "supervised": "the augmented CNN from scratch",
        "random_encoder": "the random encoder",
    }
    parts = [
        f"{name} {format_metric('', dict(metrics[f'{arm}_accuracy[corrupted]']))} "
        f"(clean: {metrics[f'{arm}_accuracy@{headline}']['mean']:.2f} %)"
        for arm, name in arms.items()
        if f"{arm}_accuracy[corrupted]" in metrics
    ]
    return f"On average over the corruptions, with {headline:,} labels: {', '.join(parts)}." if parts else ""


def transfer(metrics: Metrics, dataset: str | None) -> str:
    """How well another data set's classes can be read from the frozen features, in words; empty if not measured."""
    arms = {"linear": "the pretrained encoder", "random_encoder": "the random one", "raw_pixel": "raw pixels"}
    parts = [f"{name} {format_metric('', dict(metrics[f'{arm}_accuracy[transfer]']))}"
             for arm, name in arms.items() if f"{arm}_accuracy[transfer]" in metrics]  # fmt: skip
    return f"Linear probes on all labels of {dataset}, an encoder frozen: {', '.join(parts)}." if parts else ""


def calibration(metrics: Metrics, headline: int) -> str:
    """How far the headline probe's probabilities can be believed, in words."""
    plain, scaled = (metrics[f"calibration_error{kind}@{headline}"]["mean"] for kind in ("", "_scaled"))
    said = f"The probe's probabilities are off by {plain:.2f} points on average (expected calibration error in 15 bins)"
    if plain != scaled:
        said += f", and by {scaled:.2f} once a temperature, chosen with the labels that chose the penalty, scales them"
    auc = f" Macro AUC: {metrics[name]['mean']:.2f} %." if (name := f"macro_auc@{headline}") in metrics else ""
    return f"{said}.{auc}"


def number(metric: Mapping[str, Any], what: str, n_test: int) -> tuple[str, str, str]:
    """An accuracy as a key number for `conclude`."""
    return f"{metric['mean']:.2f} %", f"± {uncertainty(metric, n_test)[0]:.2f}", what


def round_labels(n: float) -> int:
    """A number of labels to two significant digits: interpolation promises no more."""
    digits = max(len(str(int(n))) - 2, 0)
    return int(round(n, -digits))
