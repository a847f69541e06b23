"""The figures of a comparison of methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import seaborn as sns

from .pictures import Sketch, colour_map, figure, subplots, themed_colour
from .tables import NAMES

Interval = Mapping[str, float]  # mean, low and high, in percent
MOST_NUMBERS = 14  # columns or rows of a matrix, beyond which its numbers would not be read
LONGEST = 34  # characters of a row's name, beyond which it would leave no room for numbers


@dataclass(frozen=True)
class Standing:
    """A row of the figure: its name, what it gets with each number of labels, and how it is drawn: `method`, `tied`
    (the best of all, or within noise of it), or `reference` (no method, or one that has read all labels)."""

    name: str
    values: Mapping[int, Interval]
    kind: str = "method"


@figure
def standing_dots(rows: Sequence[Standing], budgets: Sequence[int], metric: str, dataset: str) -> Sketch:
    """What each row gets, with 95 % intervals, in a panel for each number of labels."""
    height = 0.26 * len(rows) + 1.2
    longest = max(len(_short(row.name)) for row in rows)
    width = 1.0 + 0.075 * longest + 2.4 * len(budgets)
    drawn, axes = subplots(1, len(budgets), size=(width, height), sharey=True, squeeze=False)
    colours = {"method": "ink", "tied": "blue", "reference": "grey"}
    markers = {"method": "o", "tied": "o", "reference": "D"}
    for panel, n in zip(axes[0], budgets, strict=True):
        for y, row in enumerate(rows):
            if (own := row.values.get(n)) is None:
                continue
            bars = [[own["mean"] - own["low"]], [own["high"] - own["mean"]]]
            panel.errorbar(
                own["mean"], y, xerr=np.maximum(bars, 0), fmt=markers[row.kind], ms=4.5, capsize=2.5, lw=1,
                color=themed_colour(colours[row.kind]),
            )  # fmt: skip
        panel.set(title=f"{n:,} labels", xlabel=f"{NAMES[metric]} (%)")
        panel.grid(axis="y", visible=False)
    axes[0, 0].set_yticks(range(len(rows)), [_short(row.name) for row in rows])
    axes[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    said = []
    for row in rows:
        numbers = (f"{own['mean']:.1f} % with {n:,}" for n, own in row.values.items() if n in budgets)
        said.append(f"{row.name} {', '.join(numbers)}")
    return Sketch(
        drawn,
        f"{NAMES[metric].capitalize()} on {dataset} by number of labels: {'; '.join(said)}.",
        f"{NAMES[metric].capitalize()} of the linear probe, with 95 % intervals. Blue: the best with {budgets[0]:,} "
        f"labels, and what is within noise of it. Grey diamonds: what needs no method, or has read all labels.",
        [
            {"what": row.name, "labels": n, "percent": own["mean"], "low": own["low"], "high": own["high"]}
            for row in rows
            for n, own in row.values.items()
        ],
    )


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 13]}…{name[-12:]}"


@figure
def standing_matrix(
    means: Mapping[tuple[str, str], float], gains: Mapping[tuple[str, str], float], n: int, metric: str
) -> Sketch:
    """Methods (rows) by encoders (columns): what each pair gets with n labels; the colour shows how much that is above
    the encoder before training, in points."""
    methods, encoders = (list(dict.fromkeys(pair[axis] for pair in means)) for axis in (0, 1))
    shown = np.array([[gains.get((m, e), np.nan) for e in encoders] for m in methods])
    labels = np.array([[f"{means[m, e]:.1f}" if (m, e) in means else "" for e in encoders] for m in methods])
    legible = max(len(methods), len(encoders)) <= MOST_NUMBERS
    drawn, axes = subplots(size=(0.95 * len(encoders) + 3.2, 0.34 * len(methods) + 1.3))
    sns.heatmap(
        shown, annot=labels if legible else None, fmt="", cmap=colour_map("diverging"), center=0, ax=axes,
        xticklabels=encoders, yticklabels=methods, annot_kws={"size": 8},
        cbar_kws={"label": "points above untrained"},
    )  # fmt: skip
    axes.set_yticklabels(methods, rotation=0)
    crowded = len(encoders) > 4 or max(map(len, encoders)) > 12
    axes.set_xticklabels(
        [_short(name) for name in encoders], rotation=30 if crowded else 0, ha="right" if crowded else "center"
    )
    best = max(means, key=means.__getitem__)
    return Sketch(
        drawn,
        f"{NAMES[metric].capitalize()} with {n:,} labels of {len(means)} pairs of method and encoder; the best is "
        f"{best[0]} with {best[1]}, {means[best]:.1f} %.",
        f"{NAMES[metric].capitalize()} (%) with {n:,} labels, the mean over seeds; the colour shows how many points "
        "that is above the same encoder before training.",
        [
            {"method": m, "encoder": e, "percent": value, "points_above_untrained": gains.get((m, e), "")}
            for (m, e), value in means.items()
        ],
    )
