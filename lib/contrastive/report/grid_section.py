"""What a notebook shows of a grid's results."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from IPython.display import Markdown, display

from ..augment import parse_policy
from ..data import Images, counted
from ..evaluation import Key, check
from ..evaluation.statistics import summary
from ..settings import Settings, UserError, grid_names
from ..storage.files import printable
from ..sweeps.grids import Claim, grid_points, load_grid, selected
from ..sweeps.runner import ablation_overrides, run_grid
from ..sweeps.verdicts import (
    GridResult,
    Row,
    Verdict,
    bar_length,
    finding,
    least_difference,
    summary_sentence,
    untrained_sentence,
    verdict,
)
from . import grid_plots
from .pictures import Picture

UNTRAINED = "not pretrained"  # of a row beside a grid's points

FEW_VALIDATION = 100  # images


def run_grids(settings: Settings) -> dict[str, GridResult]:
    """Run the report's grids, or load what was run before. One that the data or the method cannot serve is said, and
    left out."""
    results = {}
    for name in grid_names() if "all" in settings.ablations.grids else settings.ablations.grids:
        try:
            grid = load_grid(name, ablation_overrides(name, settings))
            grid_points(grid)
        except UserError as problem:
            display(Markdown(f"*Left out: `{printable(str(problem))}`*"))
        else:
            results[name] = run_grid(grid, settings.ablations.ablation_jobs)
    return results


def show_grids(results: Mapping[str, GridResult]) -> None:
    """Display each grid under its title: its question, its figure, what holds in it, and what a paper found."""
    for result in results.values():
        display(Markdown(f"## {result.grid.title}\n\n{result.grid.question}"))
        failed = [f"- Failed: {point}, seed {seed}: `{printable(why)}`" for point, seed, why in result.failures]
        if not any(result.of(point) for point in result.points):
            display(Markdown("\n".join(failed)))
            continue
        lines = [f"**{summary_sentence(result, kind)}**" + (" (on projections)" if kind == "z" else "")
                 for kind in result.grid.features]  # fmt: skip
        lines += [f"- {said}" for said in (untrained_sentence(result),) if said]
        lines += [f"- {finding(result, claim)}" for claim in result.grid.claims]
        lines += failed
        if result.grid.paper:
            lines += ["", f"*The paper:* {result.grid.paper}"]
        display(picture(result), Markdown("\n".join(lines)))


def picture(result: GridResult) -> Picture:
    """The figure that the grid asks for."""
    grid, name = result.grid, f"grid_{result.grid.name}"
    run = {point: values for point in result.points if (values := result.by_seed(point))}
    if grid.figure == "lines":
        rows = [(result.points[p].varied[grid.x], _line(result, p), values) for p, values in run.items()]
        bars = [bar_length(result, values) for values in run.values()]
        return grid_plots.grid_lines(rows, grid.x, grid.line, grid.labels, bars, name=name)
    if grid.figure == "heatmap":
        pairs = {point: list(parse_policy(str(result.points[point].varied["augment"]))) for point in run}
        order = list(dict.fromkeys(op for ops in pairs.values() for op in ops))  # so all lie on one side
        cells = []
        for point, ops in pairs.items():
            first, last = sorted((ops[0], ops[-1]), key=order.index)
            cells.append((first, last, run[point]))
        return grid_plots.grid_heatmap(
            cells, "one operation", "and another", grid.labels, least_difference(result), name=name
        )
    several = len(grid.features) > 1
    dots, least = {}, {}
    if (row := _one_untrained(result)) is not None:
        dots[UNTRAINED], least[UNTRAINED] = row, bar_length(result, row)
    for point in result.points:
        for kind in grid.features:
            if values := result.by_seed(point, kind):
                shown = f"{point} ({kind})" if several else point
                dots[shown], least[shown] = values, bar_length(result, values, kind)
    return grid_plots.grid_dots(dots, grid.labels, least, name=name)


def _one_untrained(result: GridResult) -> Row | None:
    """The accuracies by seed of the encoder without pretraining, if all points have the same."""
    rows = list(result.untrained.values())
    return rows[0] if rows and all(row == rows[0] for row in rows) else None


def _line(result: GridResult, point: str) -> str:
    line = result.grid.line
    value = result.points[point].varied.get(line) if line else ""
    words = line.replace("_", " ")
    return f"{'with' if value else 'without'} {words}" if isinstance(value, bool) else str(value)


def grid_metrics(results: Mapping[str, GridResult]) -> dict[str, Any]:
    """All points' accuracies as metrics for `record`: `validation_accuracy[temperature: temperature 0.1]`; and those of
    encoders that were not pretrained: `untrained_validation_accuracy[temperature]`, or of each point, where they
    differ."""
    found = {
        str(Key("validation_accuracy", subset=f"{name}: {point}{', z' if kind == 'z' else ''}")): summary(values)
        for name, result in results.items()
        for kind in result.grid.features
        for point in result.points
        if (values := result.of(point, kind))
    }
    for name, result in results.items():
        if (row := _one_untrained(result)) is not None:
            found[str(Key("validation_accuracy", "untrained", subset=name))] = summary(list(row.values()))
        else:
            for point, own in result.untrained.items():
                key = Key("validation_accuracy", "untrained", subset=f"{name}: {point}")
                found[str(key)] = summary(list(own.values()))
    return found


def grid_facts(settings: Settings, images: Images, n_validation: int) -> tuple[str, str]:
    """What the grids were run on, and how each point was trained, for `conclude`."""
    own, n_images = settings.ablations, settings.data.n_images
    data = f"{images.name}: {n_images:,} images without labels, {own.ablation_labels:,} labels a probe, "
    size = f" and {own.ablation_base_channels} base channels" if hasattr(settings.encoder, "base_channels") else ""
    trained = f"{own.ablation_epochs} epochs{size} unless varied, {own.ablation_seeds} seeds a point"
    return f"{data}{n_validation:,} to validate", trained


def grid_checks(results: Mapping[str, GridResult], n_classes: int, n_validation: int) -> list[dict[str, Any]]:
    """That all runs ended and learned something, for `record`; of few validation images nothing is asked, since with
    these a run may be below chance by chance."""
    accuracies = [v for result in results.values() for point in result.points for v in result.of(point)]
    failures = sum(len(result.failures) for result in results.values())
    chance, lowest = 100 / n_classes, min(accuracies, default=0.0)
    checks = [check("every run of the grids ended", failures == 0, f"{failures} failed", "none failed")]
    if n_validation >= FEW_VALIDATION:
        passed = lowest > chance
        checks.append(check("every run learned something", passed, f"lowest {lowest:.1f} %", f"above {chance:.1f} %"))
    return checks


Found = tuple[Claim, Verdict, bool]  # whether the paper found it


def _findings(results: Mapping[str, GridResult]) -> list[Found]:
    """All claims that could be tried; what two grids claim of the same runs is one."""
    judged_once: dict[tuple, Found] = {}
    for result in results.values():
        for claim in result.grid.claims:
            runs = [
                tuple(result.points[point].settings.run_name for point in selected(result.points, side, result.grid))
                for side in (claim.better, claim.worse)
            ]
            found = claim, verdict(result, claim), bool(result.grid.paper) and not claim.own
            kinds = [str(side.get("judged_on", "h")) for side in (claim.better, claim.worse)]
            judged_once.setdefault((*runs, *kinds), found)
    return [found for found in judged_once.values() if found[1].word != "not run"]


def _surely(found: Sequence[Found]) -> list[bool]:
    """Which findings, confirmed or refuted, are left at a false discovery rate of 5 % among all that were tried
    (Benjamini and Hochberg)."""
    from scipy.stats import false_discovery_control

    # one seed leaves no p, and was no try
    p = [1.0 if math.isnan(judged.p) else judged.p for _, judged, _ in found]
    tried = [judged.word != "undecided" for _, judged, _ in found]
    return [bool(q <= 0.05 and word) for q, word in zip(false_discovery_control(p), tried, strict=True)]


def findings_table(results: Mapping[str, GridResult]) -> str:
    """Every finding that was tried, with its verdict and the difference in points, in Markdown."""
    found = _findings(results)
    lines = ["| finding | whose | here | points, 95 % | p | among all tries |", "|:--|:--|:--|--:|--:|:--|"]
    for (claim, judged, papers), surely in zip(found, _surely(found) if found else [], strict=True):
        word = f"**{judged.word}**" if judged.word != "undecided" else judged.word
        p = "?" if math.isnan(judged.p) else "< 0.001" if judged.p < 0.001 else f"{judged.p:.2g}"
        left = "" if judged.word == "undecided" else "still" if surely else "no longer"
        whose = "paper" if papers else "ours"
        lines.append(f"| {claim.say} | {whose} | {word} | {judged.points:+.2f} ± {judged.shown} | {p} | {left} |")
    return "\n".join(lines)


def grid_answer(results: Mapping[str, GridResult]) -> tuple[str, list[tuple[str, str, str]], str]:
    """What the grids say of the paper's findings and of others, in sentences, the numbers that carry it, and the figure
    that shows the largest difference, for `conclude`."""
    found = _findings(results)
    if not found:
        return "No finding could be tried here.", [("0", "", "findings tried")], ""
    papers, ours = ([judged for _, judged, of_paper in found if of_paper == which] for which in (True, False))
    sides = ((papers, "finding", "of the paper"), (ours, "expectation", "of our own"))
    said = "; ".join(f"of {counted(len(own), what)} {whose}, {_counts(own)}" for own, what, whose in sides if own)
    surely = _surely(found)
    clear = sum(judged.word != "undecided" for _, judged, _ in found)
    claim, largest, _ = max((f for f in found if f[2] or not papers), key=lambda f: abs(f[1].points))
    answer = (
        f"{said[0].upper()}{said[1:]}. Clear when looked at alone: {clear}; when all are looked at together, at a "
        f"false discovery rate of 5 %: {sum(surely)}. The largest difference"
        f"{' that the paper speaks of' if papers else ''}: {_small(claim.say)}, {largest.points:+.2f} ± "
        f"{largest.shown} points (95 %)."
    )
    first, whose = (papers, "findings of the paper") if papers else (ours, "expectations")
    numbers = [
        (f"{sum(judged.word == 'confirmed' for judged in first)} of {len(first)}", "", f"{whose} that hold here"),
        (f"{sum(judged.word == 'refuted' for judged in first)} of {len(first)}", "",
         f"{whose} that are the other way round here"),
        (f"{largest.points:+.2f}", f"± {largest.shown}",
         f"points, the largest difference, of: {_small(claim.say)}"),
    ]  # fmt: skip
    shown = next(name for name, result in results.items() if claim in result.grid.claims)
    return answer, numbers, f"grid_{shown}"


def _counts(judged: Sequence[Verdict]) -> str:
    hold, not_so, open_ = (sum(v.word == word for v in judged) for word in ("confirmed", "refuted", "undecided"))
    holds, is_not, is_open = "holds" if hold == 1 else "hold", *("is" if n == 1 else "are" for n in (not_so, open_))
    one_seed = f" or {'has' if open_ == 1 else 'have'} one seed, which does not tell it"
    unknown = one_seed if any(math.isnan(v.interval) for v in judged) else ""
    return (
        f"{hold} {holds} on these images, {not_so} {is_not} the other way round, and {open_} {is_open} within "
        f"noise{unknown}"
    )


def _small(text: str) -> str:
    return text if text[:2].isupper() and text[1] != " " else text[0].lower() + text[1:]  # NT-Xent, but a head
