"""Tables and sentences that are computed from a report's results, for notebooks and README alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..data import Images
from ..evaluation import ARMS, Findings, Key, check, data_checks, difference_name, format_metric
from ..evaluation.arms import with_role
from ..evaluation.metrics import Metrics

Compared = Mapping[str, Mapping[str, float]]  # as `Findings.compared` gives them
Saved = Mapping[str, Mapping[str, float | None]]  # as `Findings.savings` gives them
NAMES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_auc": "AUC"}
GUESS = "guessing"  # always the most frequent class


def few_labels(budgets: Sequence[int], n_classes: int) -> int:
    """The number of labels that an answer looks at beside the headline's: the fewest with ten of each class, or the
    most there are."""
    return min((n for n in budgets if n >= 10 * n_classes), default=max(budgets))


def results_table(f: Findings, metric: str, arms: Sequence[str]) -> str:
    """A metric by number of labels (rows, from all to few) and by arm, each with its 95 % interval, in Markdown; empty
    if nothing of it was measured."""
    arms = [arm for arm in arms if any(key.arm == arm and key.metric == metric for key in f.keys)]
    if not arms:
        return ""
    budgets = sorted({n for arm in arms for n in f.budgets(arm)}, reverse=True)
    lines = ["| labels | " + " | ".join([*(ARMS[arm].name for arm in arms), GUESS]) + " |"]
    lines.append("|:--|" + "--:|" * (len(arms) + 1))
    for n in budgets:
        own = {arm: f.intervals[name] for arm in arms if (name := str(Key(metric, arm, n))) in f.intervals}
        best = max(value["mean"] for value in own.values())
        cells = []
        for arm in arms:
            text = with_interval(own[arm]) if arm in own else "–"
            cells.append(f"**{text}**" if arm in own and own[arm]["mean"] == best else text)
        lines.append(f"| {n:,} | " + " | ".join([*cells, f"{f.guess[metric]:.1f}"]) + " |")
    return "\n".join(lines)


def with_interval(value: Mapping[str, float]) -> str:
    """A percentage and its interval, as in `54.7 (52.1 to 57.3)`."""
    return f"{value['mean']:.1f} ({value['low']:.1f} to {value['high']:.1f})"


def versus(difference: Mapping[str, float], whom: str) -> str:
    """A difference in words, which call it noise when its 95 % interval holds 0."""
    points, low, high = (difference[name] for name in ("points", "low", "high"))
    if low <= 0 <= high:
        return f"within noise of {whom} ({points:+.2f} points, 95 %: {low:+.2f} to {high:+.2f})"
    return (
        f"{abs(points):.2f} points {'better' if points > 0 else 'worse'} than {whom} (95 %: {low:+.2f} to {high:+.2f})"
    )


def against(compared: Compared, n: int, arm: str, metric: str = "accuracy") -> Mapping[str, float]:
    """How much better the linear probe is than another arm, with n labels."""
    return compared[difference_name(Key(metric, "linear", n), Key(metric, arm, n))]


def savings_sentence(metrics: Metrics, saved: Saved, n: int, arm: str = "linear", metric: str = "accuracy") -> str:
    """How many labels the same network needs from scratch to do as well as an arm with n, in words; the measure is that
    of Newell and Deng (CVPR 2020, 2003.14323)."""
    own = saved[str(n)]
    needed, most = own["needed"], own["most"]
    reached = own["reached"] if "reached" in own else own["accuracy"]  # as older reports have it
    value, of_all = (f"{percent:.1f} %" for percent in (reached, metrics[str(Key(metric, arm, n))]["mean"]))
    whom = "the linear probe on the pretrained encoder" if arm == "linear" else ARMS[arm].whom
    start = f"With {n:,} labels, {whom} {'get' if whom.endswith('features') else 'gets'} {value}"
    if value != of_all:
        start += f" (with the first draw of labels, which the network had, too; {of_all} with all draws)"
    if needed is None:
        tried = f"does not get there with {most:,}, the most that were tried"
        return f"{start}; the same network trained from scratch {tried}{between(own)}."
    if needed <= n:
        surely = own["high"] is not None and own["high"] <= n
        verdict = "no label is saved" if surely else "whether any label is saved is within noise"
        does = f"does as well with {labels_in_words(needed, own)}{between(own)}"
        return f"{start}; the same network trained from scratch {does}: {verdict}."
    unsure = own["low"] is not None and own["low"] <= n
    return (
        f"{start}; the same network trained from scratch needs {labels_in_words(needed, own)} labels for that"
        f"{between(own)}, {needed / n:.1f} times as many"
        f"{': whether any label is saved is within noise' if unsure else ''}."
    )


def labels_in_words(n: float | None, own: Mapping[str, float | None]) -> str:
    """A number of labels, as far as it was looked for."""
    least, most = own["least"] or 0, own["most"] or 0
    if n is None:
        return f"more than {most:,}"
    return f"{least:,} or fewer" if n <= least else f"about {round_labels(n):,}"


def between(own: Mapping[str, float | None]) -> str:
    """The interval of a number of labels, in brackets."""
    least, most = own["least"] or 0, own["most"] or 0
    low, high = own["low"], own["high"]
    ends = (
        "more" if low is None else f"{least:,} or fewer" if low <= least else f"{round_labels(low):,}",
        f"more than {most:,}" if high is None else f"{round_labels(high):,}",
    )
    return f" (95 %: {ends[0]} to {ends[1]})" if low is not None else f" (95 %: {ends[1]})"


def robustness_sentence(metrics: Metrics, headline: int) -> str:
    """What corrupted images leave of the headline's accuracies, in words; empty if that was not measured."""
    parts = [
        f"{ARMS[arm].whom} {format_metric(name, metrics[name])} "
        f"(clean: {metrics[str(Key('accuracy', arm, headline))]['mean']:.2f} %)"
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
    return f"{said}."


def round_labels(n: float) -> int:
    """A number of labels to two significant digits: interpolation promises no more."""
    digits = max(len(str(int(n))) - 2, 0)
    return int(round(n, -digits))


def differences(f: Findings, numbers: Sequence[int]) -> str:
    """How much better the linear probe on the pretrained encoder is than what else was tried, in points, by number of
    labels, in Markdown; differences that are more than noise in bold."""
    numbers = list(dict.fromkeys(numbers))
    lines = [
        "| the linear probe on the pretrained encoder, less | " + " | ".join(f"{n:,} labels" for n in numbers) + " |"
    ]
    lines.append("|:--|" + "--:|" * len(numbers))
    for arm in f.measured():
        if arm == "linear" or not any(f.has(arm, n) for n in numbers):
            continue
        cells = [in_points(against(f.compared, n, arm, f.metric)) if f.has(arm, n) else "–" for n in numbers]
        lines.append(f"| {ARMS[arm].whom} | " + " | ".join(cells) + " |")
    if len(f.evaluations) == 1:
        lines += [
            "",
            "One seed: these intervals are of the judged images. Which images are pretrained on, and which weights are "
            "drawn, moves a result, too. `n_seeds=5` counts that.",
        ]
    return "\n".join(lines)


def in_points(difference: Mapping[str, float]) -> str:
    """A difference and its interval, as in `+1.2 (-0.3 to +2.7)`; bold, if it is more than noise."""
    points, low, high = (difference[name] for name in ("points", "low", "high"))
    text = f"{points:+.1f} ({low:+.1f} to {high:+.1f})"
    return text if low <= 0 <= high else f"**{text}**"


def savings_lines(f: Findings, read_labels: bool = False) -> str:
    """How many labels each arm saves, with every number of labels, in Markdown; of an encoder that was trained on
    labels, that it saves none."""
    start = "*The encoder was trained on labels, so it saves none.*\n\n" if read_labels else ""
    lines = [
        f"- {savings_sentence(f.metrics, saved, int(n), arm, f.metric)}"
        for arm, saved in f.saved.items()
        for n in saved
        if (int(n) in (f.few, f.headline) if arm == "general" else not read_labels)
    ]
    return start + "\n".join(lines)


def linear_checks(f: Findings, images: Images) -> list[dict[str, Any]]:
    """What has to hold before a linear evaluation is worth a look, for `record`."""
    frozen, noise = sum(e.encoder_unchanged for e in f.evaluations), "not worse by more than noise"
    seen = f"{frozen} of {len(f.evaluations)}"
    checks = [check("the encoder stayed frozen", frozen == len(f.evaluations), seen, "unchanged weights in all runs")]
    for control in filter(f.has, with_role("control")):
        d = against(f.compared, f.headline, control, f.metric)
        name = f"pretrained against {control.replace('_', ' ')}"
        checks.append(check(name, d["high"] >= 0, f"{d['points']:+.2f} points", noise))
    return checks + data_checks(images)
