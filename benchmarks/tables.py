"""Tables and figures of what `make bench` measured, for its report and for README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contrastive.report.pictures import Sketch, figure, subplots, themed_colour

from .goal import seconds_to_goal

Measured = Mapping[str, Any]
COLOURS = ("blue", "orange", "green", "grey")


def conditions(measured: Measured) -> str:
    """On which machine, data and settings it was measured, in a sentence."""
    machine, settings = measured["machine"], measured["settings"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_GiB']} GiB, {machine['threads']} threads; "
        f"{settings['precision']} here and float32 elsewhere unless it is said; {measured['dataset']['name'].upper()}, "
        f"{settings['n_images']:,} images, batches of {settings['batch_size']}; medians of {measured['rounds']} rounds "
        "in turn, each arm in a process of its own."
    )


def goal_conditions(goal: Measured) -> str:
    """How the times to the goal were taken, in a few sentences."""
    used, seeds = goal["settings"], {name: _seeds(runs) for name, runs in goal["runs"].items()}
    said = (
        f"Time to {goal['goal']:.2f} %: the shortest whole number of epochs, of at most {goal['most_epochs']}, whose "
        f"mean test accuracy gets there ({', '.join(f'{name}: {n} seeds' for name, n in seeds.items())}), found by "
        "doubling and then by halves, which takes it that accuracy grows with length; in batches of "
        f"{used['batch_size']}, with a peak learning rate of {used['lr']:g}; here with the augmentations of policy "
        f"{used['augment']}, lightly with its own."
    )
    if not goal["ratios"]:
        return said
    beyond = max(ratio["beyond"] for ratio in goal["ratios"].values())
    said += (
        " In brackets a 95 % interval: percentiles of the ratio with the seeds of both drawn anew, which moves the "
        "seconds, and which of the measured lengths gets there."
    )
    return said + (f" In {100 * beyond:.1f} % of the draws none does, and the longest counts." if beyond else "")


def _seeds(runs: Measured) -> int:
    return len(next(iter(runs.values()))["accuracy"]["values"])


def speed_table(measured: Measured) -> str:
    """The comparisons in Markdown: what was measured, beside whom, here and there, and the ratio of the medians."""
    rows = [
        *_rate_rows("images/s", measured["throughput"]),
        *_rate_rows("images/s, ResNet-18", measured["resnet18"]["arms"]),
        *_goal_rows(measured["goal"]),
    ]
    for side, part in measured["augmentation"].items():
        arms = {name: arm["views_per_second"]["median"] for name, arm in part["arms"].items()}
        for name, here, there in _beside(arms):
            cells = (f"{rate:,.0f} ({_extra(part, arm)})" for rate, arm in ((here, "ours"), (there, name)))
            rows.append((f"views/s, {side} pixels", name, *cells, f"**{here / there:.2g}x** as many"))
    for n, arms in measured["losses"].items():
        for name, here, there in _beside({name: arm["milliseconds"]["median"] for name, arm in arms.items()}):
            cells = (f"{_ms(ms)} ({arms[arm]['extra_MiB']:,.0f})" for ms, arm in ((here, "ours"), (there, name)))
            rows.append((f"NT-Xent, N = {int(n):,}", name, *cells, f"**{here / there:.2g}** of the time"))
    return _table(("measured", "beside", "here", "there", "ratio"), rows)


def _rate_rows(what: str, rates: Measured) -> list[tuple[str, ...]]:
    """Ours beside each other arm, of images per second."""
    return [
        (what, name, f"{here:,.0f}", f"{there:,.0f}", f"**{here / there:.1f}x** as many")
        for name, here, there in _beside({name: v["median"] for name, v in rates.items()})
    ]


def _goal_rows(goal: Measured) -> list[tuple[str, ...]]:
    """Ours beside each other arm, of the time to the goal; none where ours does not get there."""
    if "ours" not in goal["reached"]:
        return []
    rows: list[tuple[str, ...]] = []
    times = {name: seconds_to_goal(runs, goal["reached"].get(name)) for name, runs in goal["runs"].items()}
    for name, here, there in _beside(times):
        over = "" if name in goal["reached"] else "over "
        ratio = f"over **{there / here:.0f}x** sooner" if over else f"**{_interval(goal['ratios'][name])}** sooner"
        rows.append((f"s to {goal['goal']:.2f} %", name, f"{here:.1f}", f"{over}{there:.0f}", ratio))
    return rows


def _interval(ratio: Measured) -> str:
    """A ratio with its interval."""
    return f"{ratio['ratio']:.0f}x ({ratio['low']:.0f}x to {ratio['high']:.0f}x)"


def _extra(part: Measured, name: str) -> str:
    """The memory that an augmentation takes beyond its views, as a multiple of theirs."""
    return f"{part['arms'][name]['extra_memory']:.1f}"


def augmentation_table(augmentation: Measured) -> str:
    """Views a second and memory by the images' side, in Markdown."""
    rows = [
        (side, str(part["images"]), name, f"{arm['views_per_second']['median']:,.0f}", _extra(part, name))
        for side, part in augmentation.items()
        for name, arm in part["arms"].items()
    ]
    return _table(("side in pixels", "images", "by", "views/s", "extra memory"), rows)


def report_table(reports: Measured) -> str:
    """Seconds and memory of whole reports by their commands, in Markdown."""
    rows = [(f"`{name}`", f"{took['seconds']:.0f} s", f"{took['MiB']:,.0f} MiB") for name, took in reports.items()]
    return _table(("command", "from start to end", "most memory"), rows)


def parts_table(measured: Measured) -> str:
    """Where the time of our training step goes, in Markdown."""
    parts = measured["parts"]
    times = {name: value["median"] for name, value in parts["milliseconds"].items()}
    whole, network = times["whole step"], times["encoder, head and optimiser"]
    rate, done = parts["matrix_product"]["per_second"]["median"], parts["operations"]
    rows = [(name, f"{ms:.2f} ms", f"{100 * ms / whole:.1f} %") for name, ms in times.items()]
    rest = "the step less encoder, head and optimiser"
    rows.append((rest, f"{whole - network:.2f} ms", f"{100 * (1 - network / whole):.1f} %"))
    for which, said in (("stock", "stock operations"), ("ours", "operations computed")):
        speed = done[which] / (network / 1000)
        what, share = f"{said}: {done[which] / 1e9:.1f} billion", f"{100 * speed / rate:.0f} % of {rate / 1e9:,.0f}"
        rows.append((what, f"{speed / 1e9:,.0f} GFLOP/s", share))
    return _table(("part", "measured", "share"), rows)


def goal_table(goal: Measured) -> str:
    """Seconds and accuracy of runs of several lengths, in Markdown; the run that reaches the goal is set in bold."""
    rows = []
    for name, runs in goal["runs"].items():
        for epochs, run in runs.items():
            accuracy, seconds = run["accuracy"], run["seconds"]["mean"]
            seeds = len(accuracy["values"])
            text = f"{accuracy['mean']:.2f} ± {accuracy['std']:.2f} %" if seeds > 1 else f"{accuracy['mean']:.2f} %"
            bold = "**" if goal["reached"].get(name) == int(epochs) else ""
            rows.append((name, epochs, str(seeds), f"{bold}{seconds:.1f}{bold}", f"{bold}{text}{bold}"))
    return _table(("arm", "epochs", "seeds", "seconds", f"accuracy, {goal['n_labels']:,} labels"), rows)


def answer(measured: Measured) -> str:
    """What was found, in a few sentences."""
    speed, best, goal = measured["throughput"], _fastest_other(measured), measured["goal"]
    ours, exact, most = (speed[name]["median"] for name in ("ours", "ours, float32", best))
    said = (
        f"Pretraining here takes {ours:,.0f} images/s, {ours / most:.1f} times as many as the fastest of the others "
        f"({best}); in float32, which the others use by default, {exact / most:.1f} times as many."
    )
    sooner = [f"{_interval(ratio)} sooner than {name}" for name, ratio in goal["ratios"].items()]
    return f"{said} A probe gets to {goal['goal']:.2f} % {', '.join(sooner)}." if sooner else said


def key_numbers(measured: Measured) -> list[tuple[str, str, str]]:
    """The numbers that carry `answer`, for `conclude`."""
    rates = {"here": measured["throughput"]["ours"], (best := _fastest_other(measured)): measured["throughput"][best]}
    tiles = [(f"{v['median']:,.0f}", f"{v['min']:,.0f} to {v['max']:,.0f}", f"images/s, {name}")
             for name, v in rates.items()]  # fmt: skip
    n, arms = max(((int(n), arms) for n, arms in measured["losses"].items() if len(arms) > 1), key=lambda pair: pair[0])
    costs = [(f"{_ms(arm['milliseconds']['median'])} ms", "", f"NT-Xent and its gradient on {n:,} images, {name}")
             for name, arm in arms.items()]  # fmt: skip
    return tiles + costs[:2]


def _fastest_other(measured: Measured) -> str:
    speed = measured["throughput"]
    return max((name for name in speed if not name.startswith("ours")), key=lambda name: speed[name]["median"])


def _beside(values: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Each other arm: its name, our value, its value."""
    return [(name, values["ours"], value) for name, value in values.items() if name != "ours"]


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, (":--", *("--:" for _ in head[1:])), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@figure
def measured_bars(values: Mapping[str, Mapping[str, float]], quantity: str) -> Sketch:
    """Medians of repeated measurements as bars, the first one's in colour, with lines from smallest to largest."""
    drawn, axes = subplots(size=(7.0, 0.42 * len(values) + 0.9))
    for y, v in enumerate(values.values()):
        axes.barh(y, v["median"], color=themed_colour("blue" if y == 0 else "grey"), height=0.62, lw=0)
        axes.plot([v["min"], v["max"]], [y, y], color=themed_colour("ink"), lw=1.5)
        axes.annotate(f"{v['median']:,.0f}", (v["max"], y), (5, 0), textcoords="offset points", va="center")
    axes.set(xlabel=quantity)
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    said = ", ".join(f"{name} {v['median']:,.0f}" for name, v in values.items())
    what = f"{quantity[0].upper()}{quantity[1:]}"
    return Sketch(
        drawn,
        f"{what}: {said}.",
        f"{what}: medians; thin lines span the smallest and the largest.",
        [{"what": name} | {which: v[which] for which in ("median", "min", "max")} for name, v in values.items()],
    )


@figure
def loss_scaling(losses: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Sketch:
    """Time and extra memory of implementations of a loss (number of images -> name -> measurements)."""
    drawn, panels = subplots(1, 2, (7.8, 3.4))
    names = list(dict.fromkeys(name for arms in losses.values() for name in arms))
    said, rows = [], []
    for name, colour, marker in zip(names, COLOURS, "osD^", strict=False):
        sizes = [n for n in losses if name in losses[n]]
        time = [losses[n][name]["milliseconds"]["median"] for n in sizes]
        memory = [max(losses[n][name]["extra_MiB"], 0.1) for n in sizes]
        for axes, values in zip(panels, (time, memory), strict=True):
            axes.plot([int(n) for n in sizes], values, marker + "-", color=themed_colour(colour), ms=4, label=name)
        said.append(f"{name} {time[-1]:,.1f} ms and {memory[-1]:,.0f} MiB for {int(sizes[-1]):,} images")
        rows += [
            {"what": name, "images": int(n), "milliseconds": t, "extra_MiB": m}
            for n, t, m in zip(sizes, time, memory, strict=True)
        ]
    for axes, label in zip(panels, ("time of value and gradient (ms)", "extra memory (MiB)"), strict=True):
        axes.set(xscale="log", yscale="log", xlabel="images in the batch", ylabel=label)
        axes.set_xticks([int(n) for n in losses], [f"{int(n):,}" for n in losses])
        axes.xaxis.minorticks_off()
    panels[0].legend(frameon=False)
    return Sketch(
        drawn,
        f"Cost of NT-Xent by batch size. At the largest measured: {'; '.join(said)}.",
        "Time (left) and extra memory (right) of NT-Xent and its gradient; both axes are logarithmic.",
        rows,
    )
