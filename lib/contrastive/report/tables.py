"""Tables and sentences that are computed from a report's results, for notebooks and README alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..data import Images
from ..evaluation import (
    ARMS,
    SCRATCH,
    Evaluation,
    Key,
    better_from_scratch,
    check,
    data_checks,
    difference_name,
    format_metric,
)
from ..evaluation.arms import measured, with_role
from ..evaluation.metrics import Metrics
from ..evaluation.statistics import uncertainty
from ..settings import Settings

Compared = Mapping[str, Mapping[str, float]]  # as `evaluation.comparisons` gives them
Saved = Mapping[str, Mapping[str, float | None]]  # as `savings_by_budget` gives them


def results_table(metrics: Metrics, budgets: Sequence[int], n_train: int, dataset: str) -> str:
    """Test accuracy by number of labels (rows, from all to few) and by what was done with them, in Markdown."""
    return _by_labels(metrics, budgets, list(measured(metrics, full=False)), n_train, dataset)


def budgets_sentence(settings: Settings) -> str:
    """How the labels of a budget were drawn."""
    if settings.evaluation.budget_draw == "random":
        return "Labels were drawn at random (`budget_draw=random`), so rare classes have few or none in small budgets."
    return (
        "Labels were drawn so that all classes have as many, as long as none runs out. Somebody who has yet to label "
        "the images cannot draw so: `budget_draw=random` takes them as they come."
    )


def groups_sentence(images: Images) -> str:
    """What intervals do not count, where images come in groups; empty where they do not."""
    if not len(images.groups):
        return ""
    return (
        "Several images are of one group. Intervals count images as if each were of its own, so they are narrower than "
        "they should be: differences between groups that were and were not tested on are not in them."
    )


def few_labels(budgets: Sequence[int], n_classes: int) -> int:
    """The number of labels that an answer is about: the fewest with ten of each class, or the most there are."""
    return min((n for n in budgets if n >= 10 * n_classes), default=max(budgets))


def more_arms_table(metrics: Metrics, budgets: Sequence[int], n_train: int, dataset: str) -> str:
    """The same for the arms of a full evaluation, beside the linear probe; empty if there are none."""
    more = list(measured(metrics, full=True))
    return _by_labels(metrics, budgets, ["linear", *more], n_train, dataset) if more else ""


def _accuracy(arm: str, n: int) -> str:
    return str(Key("accuracy", arm, n))


def _less(n: int, arm: str) -> str:
    """What the linear probe's accuracy less another arm's, with n labels, is called."""
    return difference_name(Key("accuracy", "linear", n), Key("accuracy", arm, n))


def _by_labels(metrics: Metrics, budgets: Sequence[int], arms: Sequence[str], n_train: int, dataset: str) -> str:
    lines = ["| labels | " + " | ".join(ARMS[arm].name for arm in arms) + " |", "|:--|" + "--:|" * len(arms)]
    for n in sorted(budgets, reverse=True):
        share = f" ({100 * n / n_train:.3g} % of {dataset})" if n < n_train else f" (all labels of {dataset})"
        own = {arm: metrics[_accuracy(arm, n)] for arm in arms if _accuracy(arm, n) in metrics}
        best = max(metric["mean"] for metric in own.values())
        cells = []
        for arm in arms:
            text = format_metric(_accuracy(arm, n), own[arm]) if arm in own else "–"
            cells.append(f"**{text}**" if arm in own and own[arm]["mean"] == best else text)
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
    return compared[_less(n, arm)]


def savings_sentence(metrics: Metrics, saved: Saved, n: int) -> str:
    """How many labels the same network needs from scratch to do as well as the probe with n, in words."""
    own = saved[str(n)]
    needed, most = own["needed"], own["most"]
    accuracy, of_all = (f"{percent:.1f} %" for percent in (own["accuracy"], metrics[_accuracy("linear", n)]["mean"]))
    start = f"With {n:,} labels, the linear probe on the pretrained encoder gets {accuracy}"
    if accuracy != of_all:
        start += f" (with the first draw of labels, which the network had, too; {of_all} with all draws)"
    if needed is None:
        tried = f"does not get there with {most:,}, the most that were tried"
        return f"{start}; the same network trained from scratch {tried}{_between(own)}."
    if needed <= n:
        surely = own["high"] is not None and own["high"] <= n
        verdict = "no label is saved" if surely else "whether any label is saved is within noise"
        does = f"does as well with {_labels(needed, own)}{_between(own)}"
        return f"{start}; the same network trained from scratch {does}: {verdict}."
    unsure = own["low"] is not None and own["low"] <= n
    return (
        f"{start}; the same network trained from scratch needs {_labels(needed, own)} labels for that{_between(own)}, "
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


def answer(
    metrics: Metrics, compared: Compared, saved: Saved, few: int, headline: int, read_labels: bool = False
) -> str:
    """What a linear evaluation found, in two sentences: the labels saved where they are few; and the headline.
    read_labels: whether the encoder was trained on labels, so that none is saved."""
    best = better_from_scratch(metrics, headline)
    several = all(_accuracy(arm, headline) in metrics for arm in SCRATCH)
    scratch = f"the better {ARMS[best].name.removeprefix('same ')}" if several else "the network from scratch"
    parts = [
        versus(against(compared, headline, arm), whom)
        for arm, whom in (("random_encoder", "the random encoder"), (best, scratch))
    ]
    own = metrics[_accuracy("linear", headline)]
    majority = metrics["majority_class_accuracy"]["mean"]
    warning = "This encoder was trained on labels, so nothing here is a saving of labels. " if read_labels else ""
    if own["mean"] <= majority:
        return (
            f"{warning}With {headline:,} labels, the linear probe on the pretrained encoder gets {own['mean']:.1f} %, "
            f"no more than always guessing the most frequent class ({majority:.1f} %). Nothing can be said of labels "
            "saved."
        )
    alone = " (One seed: these intervals are of test images alone.)" if own["n_seeds"] == 1 else ""
    saving = savings_sentence(metrics, saved, few)
    return f"{warning}{saving} With {headline:,} labels it gets {own['mean']:.2f} %: {parts[0]}, and {parts[1]}.{alone}"


def key_numbers(metrics: Metrics, saved: Saved, few: int, headline: int, n_test: int) -> list[tuple[str, str, str]]:
    """The numbers that carry `answer`, for `conclude`."""
    best = better_from_scratch(metrics, headline)
    arms = {"linear": "pretrained encoder", "random_encoder": "random encoder", best: ARMS[best].name}
    tiles = [number(metrics[_accuracy(arm, headline)], f"{name}, {headline:,} labels", n_test)
             for arm, name in arms.items()]  # fmt: skip
    value = _labels(saved[str(few)]["needed"], saved[str(few)]).removeprefix("about ")
    return [
        *tiles,
        (value, "", f"labels that the network needs from scratch to match {few:,} on the pretrained encoder"),
    ]


def robustness_sentence(metrics: Metrics, headline: int) -> str:
    """What corrupted images leave of the headline's accuracies, in words; empty if that was not measured."""
    parts = [
        f"{ARMS[arm].whom} {format_metric(name, metrics[name])} "
        f"(clean: {metrics[_accuracy(arm, headline)]['mean']:.2f} %)"
        for arm in with_role("corrupted")
        if (name := str(Key("accuracy", arm, subset="corrupted"))) in metrics
    ]
    return f"On average over the corruptions, with {headline:,} labels: {', '.join(parts)}." if parts else ""


def transfer_sentence(metrics: Metrics, dataset: str | None) -> str:
    """How well another data set's classes can be read from the frozen features, in words; empty if not measured."""
    named = {arm: str(Key("accuracy", arm, subset="transfer")) for arm in with_role("transferred")}
    parts = [f"{ARMS[arm].whom} {format_metric(name, metrics[name])}" for arm, name in named.items() if name in metrics]
    return f"Linear probes on all labels of {dataset}, an encoder frozen: {', '.join(parts)}." if parts else ""


def calibration_sentence(metrics: Metrics, headline: int) -> str:
    """How far the headline probe's probabilities can be believed, in words."""
    kinds = "calibration_error", "calibration_error_scaled"
    plain, scaled = (metrics[str(Key(kind, labels=headline))]["mean"] for kind in kinds)
    said = f"The probe's probabilities are off by {plain:.2f} points on average (expected calibration error in 15 bins)"
    if plain != scaled:
        said += f", and by {scaled:.2f} once a temperature, chosen with the labels that chose the penalty, scales them"
    auc = (
        f" Macro AUC: {metrics[name]['mean']:.2f} %."
        if (name := str(Key("macro_auc", labels=headline))) in metrics
        else ""
    )
    return f"{said}.{auc}"


def number(metric: Mapping[str, Any], what: str, n_test: int) -> tuple[str, str, str]:
    """An accuracy as a key number for `conclude`."""
    return f"{metric['mean']:.2f} %", f"± {uncertainty(metric, n_test)[0]:.2f}", what


def round_labels(n: float) -> int:
    """A number of labels to two significant digits: interpolation promises no more."""
    digits = max(len(str(int(n))) - 2, 0)
    return int(round(n, -digits))


def differences(metrics: Metrics, compared: Compared, numbers: Sequence[int], n_seeds: int) -> str:
    """The linear probe beside its controls and the networks from scratch, in Markdown, a line for each number of
    labels."""
    said = []
    for n in dict.fromkeys(numbers):
        arms = [*with_role("control"), *(arm for arm in SCRATCH if _accuracy(arm, n) in metrics)]
        parts = ", ".join(versus(against(compared, n, arm), ARMS[arm].whom) for arm in arms)
        said.append(f"- Pretrained, with {n:,} labels: {parts}.")
    if n_seeds == 1:
        said.append(
            "- One seed: these intervals are of test images alone. Which images, labels and weights are drawn moves an "
            "accuracy, too, with few labels by far more. `n_seeds=5` counts that."
        )
    return "\n".join(said)


def more_differences(metrics: Metrics, compared: Compared, n: int) -> str:
    """The same for the arms of a full evaluation, in a sentence; empty if there are none."""
    arms = [arm for arm in measured(metrics, full=True).values() if _accuracy(arm.id, n) in metrics]
    parts = "; ".join(versus(against(compared, n, arm.id), arm.whom) for arm in arms)
    return f"With {n:,} labels, the linear probe on the pretrained encoder is {parts}." if parts else ""


def linear_checks(
    metrics: Metrics, compared: Compared, headline: int, images: Images, evaluations: Sequence[Evaluation]
) -> list[dict[str, Any]]:
    """What has to hold before a linear evaluation is worth a look, for `record`."""
    frozen, noise = sum(e.encoder_unchanged for e in evaluations), "not worse by more than noise"
    seen = f"{frozen} of {len(evaluations)}"
    checks = [check("the encoder stayed frozen", frozen == len(evaluations), seen, "unchanged weights in all runs")]
    for control in with_role("control"):
        d = against(compared, headline, control)
        name = f"pretrained against {control.replace('_', ' ')}"
        checks.append(check(name, d["high"] >= 0, f"{d['points']:+.2f} points", noise))
    checks += data_checks(images)
    ours, majority = (metrics[name]["mean"] for name in (_accuracy("linear", headline), "majority_class_accuracy"))
    above = f"above {majority:.1f} %"
    return [*checks, check("better than the majority class", ours > majority, f"{ours:.1f} %", above)]
