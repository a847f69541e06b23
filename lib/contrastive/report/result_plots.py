"""Figures of what classifiers get: error by labels, confusion, corrupted images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import seaborn as sns

from ..evaluation import ARMS, Findings, Key
from ..evaluation.metrics import Metrics
from .pictures import Sketch, colour_map, figure, name_lines, style_of_many, subplots, themed_colour
from .tables import NAMES

ERRORS = {"accuracy": "error", "balanced_accuracy": "balanced error"}
NEARLY_ALL = 90.0  # percent right, beyond which errors are compared by factors


@dataclass(frozen=True)
class Line:
    """What a figure shows against the number of labels.

    look: colour, marker and style. points: numbers of labels, each with a mean and the ends of its interval, in
    percent, as `Findings.intervals` has them.
    """

    name: str
    look: tuple[str, str, str]
    points: Sequence[tuple[int, Mapping[str, float]]]


@figure
def budget_curves(f: Findings, arms: Sequence[str], dataset: str) -> Sketch:
    """The headline's metric against the number of labels, a line for each arm, with 95 % intervals."""
    lines = []
    for arm in (ARMS[arm] for arm in arms):
        look = arm.colour, arm.marker, "--" if arm.dashed else "-"
        lines.append(Line(arm.name, look, [(n, f.percent(arm.id, n)) for n in f.budgets(arm.id)]))
    return _curves(lines, f.metric, dataset, f.guess[f.metric])


@figure
def compared_curves(
    curves: Mapping[str, Sequence[tuple[int, Mapping[str, float]]]], metric: str, dataset: str
) -> Sketch:
    """A metric against the number of labels, a line for each of several reports: its name -> its points."""
    lines = [Line(name, style_of_many(i), points) for i, (name, points) in enumerate(curves.items())]
    return _curves(lines, metric, dataset)


def _curves(lines: Sequence[Line], metric: str, dataset: str, guess: float | None = None) -> Sketch:
    """Lines with intervals. Where the best is nearly always right they show the error, on a logarithmic axis, or
    nothing could be told apart; else what guessing gets is dotted, if it is given."""
    drawn, axes = subplots(size=(6.6, 3.4))
    as_error = metric in ERRORS and max(value["mean"] for line in lines for _, value in line.points) > NEARLY_ALL
    ends, said, rows = [], [], []
    for line in lines:
        numbers, means = [n for n, _ in line.points], np.array([value["mean"] for _, value in line.points])
        low, high = (np.array([value[end] for _, value in line.points]) for end in ("low", "high"))
        bars, shown = np.array([means - low, high - means]), means
        if as_error:  # upside down, and a logarithmic axis has no place for 0
            shown = np.maximum(100 - means, 1e-2)
            bars = np.stack([np.minimum(bars[1], 0.9 * shown), bars[0]])
        colour, marker, style = themed_colour(line.look[0]), *line.look[1:]
        axes.errorbar(
            numbers, shown, np.maximum(bars, 0), color=colour, marker=marker, ls=style, ms=5, capsize=3
        )  # fmt: skip
        ends.append((line.name.replace(" from scratch", ""), numbers[-1], float(shown[-1]), colour))
        said.append(f"{line.name}: {means[0]:.1f} % with {numbers[0]:,} labels, {means[-1]:.1f} % with {numbers[-1]:,}")
        rows += [
            {"what": line.name, "labels": n, "percent": value["mean"], "low": value["low"], "high": value["high"]}
            for n, value in line.points
        ]
    budgets = sorted({n for line in lines for n, _ in line.points})
    axes.set(xscale="log", xlabel="labels", ylabel=f"{NAMES[metric]} (%)")
    if as_error:
        axes.set(yscale="log", ylabel=f"{ERRORS[metric]} on {dataset} (%)")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    elif guess is not None:
        axes.axhline(guess, color=themed_colour("grey"), ls=":", lw=1)
    axes.set_xticks(budgets, tick_labels(budgets))
    axes.xaxis.minorticks_off()
    name_lines(axes, ends)
    better = "lower is better" if as_error else "higher is better"
    better += "; dotted: always guessing the most frequent class" if guess is not None and not as_error else ""
    what = f"{'Error' if as_error else NAMES[metric].capitalize()} against the number of labels"
    return Sketch(drawn, f"{what}. {'; '.join(said)}.", f"{what}; {better}. Bars: 95 % intervals.", rows)


def tick_labels(numbers: Sequence[int]) -> list[str]:
    """Labels for ascending numbers on a logarithmic axis; empty where one would run into the label before it."""
    span, last, labels = np.log10(numbers[-1] / numbers[0]) or 1.0, -np.inf, []
    for n in numbers:
        clear = np.log10(n) - last > 0.07 * span  # about the width of four figures
        short = f"{n / 1000:.1f}".removesuffix(".0") + "k" if n >= 1000 else str(n)
        labels.append(short if clear else "")
        last = np.log10(n) if clear else last
    return labels


@figure
def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Sketch:
    """Counts of judged images by true and predicted class; the colour shows mistakes, in % of the true class."""
    share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    wrong, few = share * (1 - np.eye(len(matrix))), len(matrix) <= 20
    drawn, axes = subplots(size=(5.6, 4.6) if few else (7.4, 6.2))
    sns.heatmap(
        wrong,
        annot=matrix if few else None,  # of many classes, counts could not be read
        fmt="d",
        cmap=colour_map("mistakes"),
        ax=axes,
        square=True,
        xticklabels=False,
        yticklabels=False,
        annot_kws={"size": 8},
        cbar_kws={"label": "mistakes (% of the true class)"},
    )
    step = -(-len(classes) // 25)
    ticks, names = np.arange(0, len(classes), step) + 0.5, list(classes)[::step]
    axes.set_xticks(ticks, names, rotation=0 if max(map(len, names)) < 4 else 90)
    axes.set_yticks(ticks, names, rotation=0)
    axes.set(xlabel="predicted class", ylabel="true class")
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    worst = (
        f"the largest share of mistakes is {classes[true]} taken for {classes[predicted]}, "
        f"{matrix[true, predicted]} times"
    )
    return Sketch(
        drawn,
        f"Confusion matrix of {matrix.sum():,} judged images; {worst if wrong.any() else 'there are no mistakes'}.",
        f"Counts of {matrix.sum():,} judged images by true and predicted class; the colour shows mistakes only.",
        [
            {"true": classes[t], "predicted": classes[p], "images": int(matrix[t, p])}
            for t, p in np.argwhere(matrix)  # with many classes most pairs never occur
        ],
    )


@figure
def robustness(metrics: Metrics, arms: Sequence[str]) -> Sketch:
    """Accuracy on judged images with each corruption, for some arms: metrics such as `linear_accuracy[shot_noise]`."""
    keys = [key for name in metrics if (key := Key.parse(name)).arm == arms[0] and key.subset]
    keys = [key for key in keys if key.subset not in ("transfer", "corrupted")]
    keys.sort(key=lambda key: metrics[str(key)]["mean"])
    names = [key.subset for key in keys]
    drawn, axes = subplots(size=(7.0, 0.32 * len(names) + 1.2))
    rows = []
    for arm in arms:
        values = [metrics[str(Key("accuracy", arm, subset=name))] for name in names]
        style = {"fmt": ARMS[arm].marker, "color": themed_colour(ARMS[arm].colour), "ms": 5, "capsize": 3}
        axes.errorbar(
            [v["mean"] for v in values],
            range(len(names)),
            xerr=[v["std"] for v in values],
            label=ARMS[arm].name,
            **style,
        )
        rows += [
            {"corruption": n, "what": ARMS[arm].name, "accuracy_percent": v["mean"], "std": v["std"]}
            for n, v in zip(names, values, strict=True)
        ]
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set(xlabel="accuracy (%)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.18), ncols=len(arms), frameon=False, fontsize=8)
    worst = f"the hardest is {names[0].replace('_', ' ')}, {metrics[str(keys[0])]['mean']:.1f} %"
    bars = " Bars: one standard deviation over seeds." if values[0]["n_seeds"] > 1 else ""
    return Sketch(
        drawn,
        f"Accuracy on {len(names)} kinds of corrupted images, for {len(arms)} classifiers; {worst}.",
        f"Accuracy on corrupted images, trained on clean ones.{bars}",
        rows,
    )
