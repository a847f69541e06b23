"""What a notebook shows of a grid's results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from IPython.display import Markdown, display

from .. import grid_plots
from ..files import printable
from ..grids import (
    Claim,
    GridResult,
    Verdict,
    finding,
    grid_points,
    least_difference,
    load_grid,
    selected,
    summary_sentence,
    verdict,
)
from ..pictures import Picture
from ..settings import Settings, UserError, grid_names, parse_policy
from ..stats import summary
from ..sweep import ablation_overrides, run_grid


def run_grids(settings: Settings) -> dict[str, GridResult]:
    """Run the report's grids, or load what was run before. One that the data cannot serve is said, and left out."""
    results = {}
    for name in grid_names() if "all" in settings.grids else settings.grids:
        grid = load_grid(name, ablation_overrides(name, settings))
        try:
            grid_points(grid)
        except UserError as problem:
            display(Markdown(f"*Left out: `{printable(str(problem))}`*"))
        else:
            results[name] = run_grid(grid, settings.ablation_jobs)
    return results


def show_grid(results: Mapping[str, GridResult], name: str) -> None:
    """Display a grid's question, its figure, what holds in it, and what a paper found; or that it was not run."""
    if name not in results:
        display(
            Markdown(
                f"*Not run here: it is not among `grids`, or these data cannot serve it, as is then said above. "
                f"By itself: `contrastive sweep {name}`.*"
            )
        )
        return
    result = results[name]
    failed = [f"- Failed: {point}, seed {seed}: `{printable(why)}`" for point, seed, why in result.failures]
    if not any(result.of(point) for point in result.points):
        display(Markdown("\n".join(failed)))
        return
    lines = [f"**{summary_sentence(result, kind)}**" + (" (on projections)" if kind == "z" else "")
             for kind in result.grid.features]  # fmt: skip
    lines += [f"- {finding(result, claim)}" for claim in result.grid.claims]
    lines += failed
    if result.grid.paper:
        lines += ["", f"*The paper:* {result.grid.paper}"]
    display(Markdown(result.grid.question), picture(result), Markdown("\n".join(lines)))


def picture(result: GridResult) -> Picture:
    """The figure that the grid asks for."""
    grid, name = result.grid, f"grid_{result.grid.name}"
    run = {point: values for point in result.points if (values := result.of(point))}
    if grid.figure == "lines":
        rows = [(result.points[p].varied[grid.x], _line(result, p), values) for p, values in run.items()]
        return grid_plots.grid_lines(rows, grid.x, grid.line, grid.labels, least_difference(result), name=name)
    if grid.figure == "heatmap":
        pairs = {point: list(parse_policy(str(result.points[point].varied["augment"]))) for point in run}
        cells = [(ops[0], ops[-1], run[point]) for point, ops in pairs.items()]
        return grid_plots.grid_heatmap(
            cells, "one operation", "and another", grid.labels, least_difference(result), name=name
        )
    several = len(grid.features) > 1
    dots, least = {}, {}
    for point in result.points:
        for kind in grid.features:
            if values := result.of(point, kind):
                shown = f"{point} ({kind})" if several else point
                dots[shown], least[shown] = values, least_difference(result, kind)
    return grid_plots.grid_dots(dots, grid.labels, least, name=name)


def _line(result: GridResult, point: str) -> str:
    line = result.grid.line
    value = result.points[point].varied.get(line) if line else ""
    words = line.replace("_", " ")
    return f"{'with' if value else 'without'} {words}" if isinstance(value, bool) else str(value)


def grid_metrics(results: Mapping[str, GridResult]) -> dict[str, Any]:
    """All points' accuracies as metrics for `record`: `validation_accuracy[temperature: temperature 0.1]`."""
    return {
        f"validation_accuracy[{name}: {point}{', z' if kind == 'z' else ''}]": summary(values)
        for name, result in results.items()
        for kind in result.grid.features
        for point in result.points
        if (values := result.of(point, kind))
    }


def _findings(results: Mapping[str, GridResult]) -> list[tuple[Claim, Verdict]]:
    """All claims that could be tried; what two grids claim of the same runs is one."""
    judged_once: dict[tuple, tuple[Claim, Verdict]] = {}
    for result in results.values():
        for claim in result.grid.claims:
            runs = [
                tuple(result.points[point].settings.run_name for point in selected(result.points, side, result.grid))
                for side in (claim.better, claim.worse)
            ]
            found = claim, verdict(result, claim)
            kinds = [str(side.get("judged_on", "h")) for side in (claim.better, claim.worse)]
            judged_once.setdefault((*runs, *kinds), found)
    return [found for found in judged_once.values() if found[1].word != "not run"]


def findings_table(results: Mapping[str, GridResult]) -> str:
    """Every finding that was tried, with its verdict and the difference in points, in Markdown."""
    lines = ["| finding | here | points, 95 % |", "|:--|:--|--:|"]
    for claim, judged in _findings(results):
        word = f"**{judged.word}**" if judged.word != "undecided" else judged.word
        lines.append(f"| {claim.say} | {word} | {judged.points:+.2f} ± {judged.shown} |")
    return "\n".join(lines)


def grid_answer(results: Mapping[str, GridResult]) -> tuple[str, list[tuple[str, str, str]]]:
    """What the grids say of the paper's findings, in a sentence, and the numbers that carry it, for `conclude`."""
    found = _findings(results)
    if not found:
        return "No finding of the paper could be tried here.", [("0", "", "findings tried")]
    counts = {w: sum(judged.word == w for _, judged in found) for w in ("confirmed", "refuted", "undecided")}
    unknown = " or have one seed, which does not tell it" if any(math.isnan(v.interval) for _, v in found) else ""
    largest = max(found, key=lambda pair: abs(pair[1].points))
    answer = (
        f"Of {len(found)} findings that were tried here, {counts['confirmed']} hold on these images, "
        f"{counts['refuted']} are the other way round, and {counts['undecided']} are within noise{unknown}. "
        f"The largest difference: {_small(largest[0].say)}, "
        f"{largest[1].points:+.2f} ± {largest[1].shown} points (95 %)."
    )
    numbers = [
        (f"{counts['confirmed']} of {len(found)}", "", "findings that hold here"),
        (f"{counts['refuted']} of {len(found)}", "", "findings that are the other way round here"),
        (f"{largest[1].points:+.2f}", f"± {largest[1].shown}", f"points, the largest: {_small(largest[0].say)}"),
    ]
    return answer, numbers


def _small(text: str) -> str:
    return text if text[:2].isupper() else text[0].lower() + text[1:]
