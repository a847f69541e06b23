"""The figures of ablations and grids."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns

from ..sweeps.verdicts import Row
from .pictures import Sketch, colour_map, figure, name_lines, style_of_many, subplots, themed_colour

OVERLAP = "Points whose bars do not overlap differ by more than noise (95 %, for two points, not for the best of many)."


def _mean(values: Row) -> float:
    return statistics.fmean(values.values())


def _overlap(least: float) -> str:
    return "With one seed noise is not known, so there are no bars." if math.isnan(least) else OVERLAP


@figure
def grid_dots(points: Mapping[str, Row], n_labels: int, least: Mapping[str, float]) -> Sketch:
    """Validation accuracy of each point: its values by seed, and their mean.

    least: by how much it has to differ from another point, that this is more than noise; half of it is drawn to each
    side, so that bars then do not overlap.
    """
    drawn, axes = subplots(size=(7.0, 0.34 * len(points) + 1.1))
    ink, blue = themed_colour("ink"), themed_colour("blue")
    best = max(points, key=lambda name: _mean(points[name]))
    for y, (name, values) in enumerate(points.items()):
        colour = blue if name == best else ink
        axes.errorbar(_mean(values), y, xerr=least[name] / 2, fmt="|", color=colour, ms=12, mew=2, capsize=3, lw=1)
        axes.plot(list(values.values()), [y] * len(values), "o", color=colour, ms=4, alpha=0.5)
    middle = [_mean(values) for values in points.values()]
    every = [v for values in points.values() for v in values.values()]
    room = max(float(np.ptp(every)), 0.1)
    # Two seeds may give bars as wide as the axis: they may leave the picture, the dots may not.
    axes.set_xlim(min(every) - 0.3 * room, max(every) + 0.3 * room)
    axes.set(xlabel=f"validation accuracy of a linear probe with {n_labels:,} labels (%)")
    axes.set_yticks(range(len(points)), list(points))
    axes.invert_yaxis()
    said = ", ".join(f"{name} {mean:.2f} %" for name, mean in zip(points, middle, strict=True))
    return Sketch(
        drawn,
        f"Validation accuracy by setting: {said}.",
        f"Dots: runs, one for each seed; strokes: their mean. {_overlap(max(least.values()))} The best is blue.",
        [
            {"point": name, "seed": seed, "validation_accuracy_percent": value}
            for name, values in points.items()
            for seed, value in values.items()
        ],
    )


@figure
def grid_lines(
    points: Sequence[tuple[Any, str, Row]], x_label: str, line_label: str, n_labels: int, least: Sequence[float]
) -> Sketch:
    """Validation accuracy against one setting, a line for each value of another: (x, line, values by seed).

    Numbers are placed on a logarithmic axis, other values side by side. least: as in `grid_dots`, of each point.
    """
    drawn, axes = subplots(size=(6.6, 3.4))
    numeric = all(isinstance(x, int | float) and not isinstance(x, bool) and x > 0 for x, *_ in points)
    xs = list(dict.fromkeys(x for x, *_ in points))
    place = {x: x if numeric else i for i, x in enumerate(xs)}
    ends, rows, said = [], [], []
    for i, line in enumerate(dict.fromkeys(line for _, line, _ in points)):
        own = [(x, values) for x, of, values in points if of == line]
        bars = [length / 2 for length, (_, of, _) in zip(least, points, strict=True) if of == line]
        colour, marker, style = style_of_many(i)
        means = [_mean(values) for _, values in own]
        axes.errorbar([place[x] for x, _ in own], means, bars, color=themed_colour(colour), marker=marker,
                      ls=style, ms=5, capsize=3)  # fmt: skip
        ends.append((line, place[own[-1][0]], means[-1], themed_colour(colour)))
        said.append(f"{line}: " + ", ".join(f"{m:.2f} % at {x}" for (x, _), m in zip(own, means, strict=True)))
        rows += [{"line": line, x_label: x, "seed": seed, "validation_accuracy_percent": v}
                 for x, values in own for seed, v in values.items()]  # fmt: skip
    if numeric:
        axes.set(xscale="log")
        axes.xaxis.minorticks_off()
    axes.set_xticks([place[x] for x in xs], [f"{x:g}" if numeric else str(x) for x in xs])
    axes.set(xlabel=x_label.replace("_", " "), ylabel=f"validation accuracy (%),\n{n_labels:,} labels")
    if len(ends) > 1:
        name_lines(axes, ends)
    lines = f", a line for each {line_label.replace('_', ' ')}" if len(ends) > 1 else ""
    return Sketch(
        drawn,
        f"Validation accuracy against {x_label.replace('_', ' ')}. {'; '.join(said)}.",
        f"Validation accuracy of a linear probe against {x_label.replace('_', ' ')}{lines}. {_overlap(max(least))}",
        rows,
    )


@figure
def grid_heatmap(
    points: Sequence[tuple[str, str, Row]], x_label: str, y_label: str, n_labels: int, least: float
) -> Sketch:
    """Validation accuracy of every combination of two things: (x, y, values by seed), as a matrix of means.

    least: by how much two have to differ, that it is more than noise.
    """
    xs, ys = (list(dict.fromkeys(point[axis] for point in points)) for axis in (0, 1))
    means = np.full((len(ys), len(xs)), np.nan)
    for x, y, values in points:
        means[ys.index(y), xs.index(x)] = _mean(values)
    drawn, axes = subplots(size=(0.72 * len(xs) + 2.6, 0.5 * len(ys) + 1.5))
    sns.heatmap(
        means, annot=True, fmt=".1f", cmap=colour_map("mistakes"), ax=axes, xticklabels=xs, yticklabels=ys,
        annot_kws={"size": 8}, cbar_kws={"label": f"validation accuracy (%), {n_labels:,} labels"},
    )  # fmt: skip
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_yticklabels(ys, rotation=0)
    best = max(points, key=lambda point: _mean(point[2]))
    return Sketch(
        drawn,
        f"Validation accuracy of {len(points)} combinations; the best is {best[0]} with {best[1]}, "
        f"{_mean(best[2]):.2f} %.",
        "Validation accuracy of a linear probe (%), the mean over seeds. "
        + (
            "With one seed noise is not known."
            if math.isnan(least)
            else f"Two that differ by {least:.2f} points or more do so by more than noise (95 %)."
        ),
        [
            {x_label: x, y_label: y, "seed": seed, "validation_accuracy_percent": v}
            for x, y, values in points
            for seed, v in values.items()
        ],
    )
