"""Figures of what classifiers get: error by labels, confusion, corrupted images."""

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns

from ..evaluation import ARMS, Findings, Key
from ..evaluation.metrics import Metrics
from ..evaluation.statistics import uncertainty
from .pictures import Sketch, colour_map, figure, name_lines, style_of_many, subplots, themed_colour
from .tables import NAMES

ERRORS = {"accuracy": "error", "balanced_accuracy": "balanced error"}
NEARLY_ALL = 90.0  # percent right, beyond which errors are compared by factors


@figure
def label_budget_curve(curves: Mapping[str, tuple[str, Metrics, int]], budgets: Sequence[int], dataset: str) -> Sketch:
    """Error against the number of labels, with the uncertainty that `uncertainty` tells.

    curves: a line's name -> the arm that it shows, the metrics, number of test images.
    """
    drawn, axes = subplots(size=(6.6, 3.5))
    said, ends, rows = [], [], []
    spreads: dict[str, None] = {}  # in order, each once
    several_arms = len({arm for arm, *_ in curves.values()}) > 1
    for i, (name, (arm, metrics, n_test)) in enumerate(curves.items()):
        own = [n for n in budgets if str(Key("accuracy", arm, n)) in metrics]
        values = [metrics[str(Key("accuracy", arm, n))] for n in own]
        error = np.array([max(100 - v["mean"], 1e-2) for v in values])
        bars = np.array([uncertainty(v, n_test)[0] for v in values])
        spreads[uncertainty(values[0], n_test)[1]] = None
        bars = np.stack([np.minimum(bars, 0.9 * error), bars])  # a logarithmic axis has no place for 0
        colour, marker, style = style_of_many(i)
        if several_arms:
            colour, marker, style = ARMS[arm].colour, ARMS[arm].marker, "--" if ARMS[arm].dashed else "-"
        colour = themed_colour(colour)
        axes.errorbar(own, error, bars, color=colour, marker=marker, ls=style, ms=5, capsize=3)
        ends.append((name, own[-1], float(error[-1]), colour))
        first, last = values[0]["mean"], values[-1]["mean"]
        said.append(f"{name}: {first:.1f} % right with {own[0]:,} labels, {last:.1f} % with {own[-1]:,}")
        rows += [
            {
                "what": name,
                "labels": n,
                "error_percent": 100 - v["mean"],
                "spread_points": uncertainty(v, n_test)[0],
            }
            for n, v in zip(own, values, strict=True)
        ]
    axes.set(xscale="log", yscale="log", xlabel="labels", ylabel=f"error on {dataset} (%)")
    axes.set_xticks(budgets, tick_labels(budgets))
    axes.xaxis.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    name_lines(axes, ends)
    return Sketch(
        drawn,
        "Error against number of labels. " + "; ".join(said) + ".",
        f"Error against the number of labels; lower is better. Bars: {'; '.join(spreads)}.",
        rows,
    )


@figure
def budget_curves(f: Findings, arms: Sequence[str], dataset: str) -> Sketch:
    """The headline's metric against the number of labels, a line for each arm, with 95 % intervals. Where the best is
    nearly always right, as the error on a logarithmic axis, or nothing could be told apart."""
    drawn, axes = subplots(size=(6.6, 3.4))
    own = {arm: [(n, f.percent(arm, n)) for n in f.budgets(arm)] for arm in arms}
    as_error = max(value["mean"] for points in own.values() for _, value in points) > NEARLY_ALL
    ends, said, rows = [], [], []
    for arm, points in own.items():
        numbers, means = [n for n, _ in points], np.array([value["mean"] for _, value in points])
        bars = np.array([[v["mean"] - v["low"] for _, v in points], [v["high"] - v["mean"] for _, v in points]])
        shown = np.maximum(100 - means, 1e-2) if as_error else means
        if as_error:  # upside down, and a logarithmic axis has no place for 0
            bars = np.stack([np.minimum(bars[1], 0.9 * shown), bars[0]])
        look, colour = ARMS[arm], themed_colour(ARMS[arm].colour)
        style = {"color": colour, "marker": look.marker, "ls": "--" if look.dashed else "-", "ms": 5, "capsize": 3}
        axes.errorbar(numbers, shown, np.maximum(bars, 0), **style)
        ends.append((look.name.replace(" from scratch", ""), numbers[-1], float(shown[-1]), colour))
        said.append(f"{look.name}: {means[0]:.1f} % with {numbers[0]:,} labels, {means[-1]:.1f} % with {numbers[-1]:,}")
        rows += [
            {"what": look.name, "labels": n, "percent": v["mean"], "low": v["low"], "high": v["high"]}
            for n, v in points
        ]
    budgets = sorted({n for points in own.values() for n, _ in points})
    axes.set(xscale="log", xlabel="labels", ylabel=f"{NAMES[f.metric]} (%)")
    if as_error:
        axes.set(yscale="log", ylabel=f"{ERRORS[f.metric]} on {dataset} (%)")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    else:
        axes.axhline(f.guess[f.metric], color=themed_colour("grey"), ls=":", lw=1)
    axes.set_xticks(budgets, tick_labels(budgets))
    axes.xaxis.minorticks_off()
    name_lines(axes, ends)
    better = "lower is better" if as_error else "higher is better; dotted: always guessing the most frequent class"
    what = f"{'Error' if as_error else NAMES[f.metric].capitalize()} against the number of labels"
    return Sketch(drawn, f"{what}. {'; '.join(said)}.", f"{what}; {better}. Bars: 95 % intervals.", rows)


def bounds(value: Mapping[str, float]) -> dict[str, float]:
    """The ends of an interval."""
    return {end: value[end] for end in ("low", "high")}


def tick_labels(numbers: Sequence[int]) -> list[str]:
    """Labels for ascending numbers on a logarithmic axis; empty where one would run into the label before it."""
    span, last, labels = np.log10(numbers[-1] / numbers[0]) or 1.0, -np.inf, []
    for n in numbers:
        clear = np.log10(n) - last > 0.07 * span  # about the width of four figures
        labels.append((f"{n / 1000:g}k" if n >= 1000 else str(n)) if clear else "")
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
