"""What 04_methods shows: how methods and encoders stand on these images, what they cost, and what went wrong."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation import ARMS, check
from ..evaluation.metrics import Key
from ..evaluation.statistics import Difference
from ..sweeps.comparison import Entry
from ..sweeps.standings import Sign, Standings
from . import method_plots
from .method_plots import Standing
from .pictures import Picture
from .tables import in_points, with_interval

NAMED = 4  # of many, how many a sentence names
LEADING = 12  # methods in the figure that leads
MIB = 2**20
CONTROLS = {"random_encoder": "random weights", "initial_encoder": "first weights"}  # arm -> name of its row


# --- Figures ------------------------------------------------------------------------------------------------------


def shown_budgets(s: Standings) -> list[int]:
    """The numbers of labels that figures show: few, the headline's, and one between them."""
    between = [n for n in s.budgets if s.few < n < s.headline]
    return sorted({s.few, s.headline, *between[len(between) // 2 :][:1]})


def leading_picture(s: Standings, dataset: str) -> Picture:
    """The best methods with few labels, and what needs none."""
    entries = s.ranked(s.few)[:LEADING]
    rows = [*_rows(s, entries), *reference_rows(s, list(dict.fromkeys(e.encoder for e in entries)))]
    return method_plots.standing_dots(rows, shown_budgets(s), s.metric, dataset, name="methods")


def whole_picture(s: Standings, dataset: str) -> Picture | None:
    """All of them, the best first; None where the figure that leads has shown them."""
    if len(s.contenders) <= LEADING and not s.readers:
        return None
    rows = [*_rows(s, s.ranked(s.few)), *_rows(s, s.ranked(s.few, s.readers)), *reference_rows(s)]
    return method_plots.standing_dots(rows, shown_budgets(s), s.metric, dataset, name="all_methods")


def _rows(s: Standings, entries: Sequence[Entry]) -> list[Standing]:
    best = {entry.key for entry in [s.ranked(s.few)[0], *s.tied(s.few)]}
    return [
        Standing(
            _called(s, entry),
            {n: s.found[entry.key].percent("linear", n) for n in s.budgets},
            "reference" if entry in s.readers else "tied" if entry.key in best else "method",
        )
        for entry in entries
    ]


def _called(s: Standings, entry: Entry) -> str:
    return s.name(entry) + (" (all labels)" if entry in s.readers else "")


def reference_rows(s: Standings, encoders: Sequence[str] | None = None) -> list[Standing]:
    """Of each encoder the better network from scratch and what it gives before training; and ImageNet features."""
    rows = []
    several = len({entry.encoder for entry in s.comparison.entries}) > 1
    for encoder, own in s.references.items():
        if encoders is not None and encoder not in encoders:
            continue
        whose = f", {encoder}" if several else ""
        scratch = {n: own.percent(arm, n) for n in s.budgets if (arm := s.scratch(encoder, n))}
        rows.append(Standing(f"labels alone{whose}", scratch, "reference"))
        for arm, name in CONTROLS.items():
            values = {n: own.percent(arm, n) for n in s.budgets if own.has(arm, n, s.metric)}
            rows.append(Standing(f"{name}{whose}", values, "reference"))
    if s.general:
        own = s.references[s.general]
        values = {n: own.percent("general", n) for n in s.budgets if own.has("general", n, s.metric)}
        rows.append(Standing("ImageNet features", values, "reference"))
    return [row for row in rows if row.values]


def matrix_picture(s: Standings) -> Picture | None:
    """Methods by encoders; None where there is one of either."""
    if len({entry.method for entry in s.contenders}) < 2 or len({entry.encoder for entry in s.contenders}) < 2:
        return None
    means, gains = {}, {}
    for entry in s.contenders:
        pair = entry.title, entry.encoder
        means[pair] = s.mean(entry, s.few)
        if (above := s.less(entry, s.control(entry), s.few)) is not None:
            gains[pair] = above.points
    return method_plots.standing_matrix(means, gains, s.few, s.metric, name="methods_by_encoders")


# --- Tables -------------------------------------------------------------------------------------------------------


def _table(s: Standings, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, after columns of methods and of encoders, which are left out where there is one."""
    several = len({entry.encoder for entry in s.comparison.entries}) > 1
    lines = [["method", "encoder", *columns], [":--", ":--", *["--:"] * len(columns)], *rows]
    lines = lines if several else [[line[0], *line[2:]] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _head(s: Standings, entry: Entry) -> list[str]:
    """An entry's method and encoder, with what a reader must know of its runs."""
    outcomes = s.comparison.outcomes[entry.key]
    ended = sum(own.evaluation is not None for own in outcomes.values())
    partly = f" ({ended} of {len(outcomes)} seeds)" if ended < len(outcomes) else ""
    return [entry.title + (" (all labels)" if entry in s.readers else "") + partly, entry.encoder]


def standings_table(s: Standings) -> str:
    """What each gets with every number of labels, with its interval, the best first, in Markdown; the best of a column
    and what is within noise of it in bold."""
    bold = {n: {entry.key for entry in [s.ranked(n)[0], *s.tied(n)]} for n in s.budgets}
    rows = []
    for entry in [*s.ranked(s.few), *s.ranked(s.few, s.readers)]:
        cells = {n: with_interval(s.found[entry.key].percent("linear", n)) for n in s.budgets}
        rows.append([*_head(s, entry), *(f"**{c}**" if entry.key in bold[n] else c for n, c in cells.items())])
    for row in reference_rows(s):
        what, _, encoder = row.name.partition(", ")
        numbers = [with_interval(row.values[n]) if n in row.values else "–" for n in s.budgets]
        rows.append([f"*{what}*", encoder, *numbers])
    return _table(s, [f"{n:,} labels" for n in s.budgets], rows)


def gains_table(s: Standings) -> str:
    """How many points each is above the same encoder before training, and above the better network from scratch, with
    few labels and the headline's, in Markdown; differences that are more than noise in bold."""
    numbers = sorted({s.few, s.headline})
    whom = ("above untrained", "above labels alone")
    rows = []
    for entry in [*s.ranked(s.few), *s.ranked(s.few, s.readers)]:
        control = [_cell(s.less(entry, s.control(entry), n)) for n in numbers]
        alone = [_cell(s.less(entry, s.scratch(entry.encoder, n), n)) for n in numbers]
        rows.append([*_head(s, entry), *control, *alone])
    return _table(s, [f"{what}, {n:,} labels" for what in whom for n in numbers], rows)


def _cell(difference: Difference | None) -> str:
    return "–" if difference is None else in_points(vars(difference))


def costs_table(s: Standings) -> str:
    """What each took, in Markdown: epochs, the time of a run, images a second; and a step's time and memory, beside
    those of SimCLR with the same encoder, or of the first method."""
    entries, rows = s.comparison.entries, []
    base = next((entry for entry in entries if entry.method == "simclr"), entries[0])
    usual = {entry.encoder: entry.cost for entry in entries if entry.method == base.method}
    for entry in entries:
        cost, of_base = entry.cost, usual[entry.encoder]
        row = [*_head(s, entry), f"{entry.settings.optimiser.epochs:,}", _time(training_seconds(s, entry))]
        if isinstance(cost, str):
            rows.append([*row, "–", "–", "–", "–"])
            continue
        times = (
            ["", ""]
            if isinstance(of_base, str)
            else [f" (×{cost.seconds / of_base.seconds:.2f})", f" (×{cost.bytes / of_base.bytes:.2f})"]
        )
        row += [f"{entry.settings.optimiser.batch_size / cost.seconds:,.0f}", f"{1e3 * cost.seconds:,.3g} ms{times[0]}"]
        rows.append([*row, f"{cost.bytes / MIB:,.3g} MiB{times[1]}", f"{cost.lasting / MIB:,.3g} MiB"])
    columns = ["epochs", "a run", "images/s", "a step", "memory of a step", "lasting memory"]
    lines = [_table(s, columns, rows), "", f"In brackets: times as much as {base.title} with the same encoder."]
    lines += [
        f"- {s.name(entry)}: no step could be taken: {entry.cost}" for entry in entries if isinstance(entry.cost, str)
    ]
    return "\n".join(lines)


def training_seconds(s: Standings, entry: Entry) -> float | None:
    """That a run of an entry took on average; None if none ended."""
    seconds = [own.seconds for own in s.comparison.outcomes[entry.key].values() if own.history]
    return statistics.fmean(seconds) if seconds else None


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.3g} s" if seconds < 100 else f"{seconds / 60:,.3g} min"


# --- Results ------------------------------------------------------------------------------------------------------


def method_metrics(s: Standings) -> dict[str, Any]:
    """The numbers as metrics for `record`: `linear_accuracy@100[byol, cnn]` of each entry, and of what needs no method
    `supervised_accuracy@100[cnn]`."""
    found = {}
    for name, own in [*s.found.items(), *s.references.items()]:
        for text, value in own.metrics.items():
            key = Key.parse(text)
            if key.arm in ARMS:
                found[str(Key(key.metric, key.arm, key.labels, name))] = value
    return found


def costs(s: Standings) -> dict[str, float]:
    """The seconds that a run of each entry trained, for `record`."""
    taken = {entry.key: training_seconds(s, entry) for entry in s.comparison.entries}
    return {name: round(seconds, 1) for name, seconds in taken.items() if seconds is not None}


def method_checks(s: Standings) -> list[dict[str, Any]]:
    """That runs ended, and that none collapsed, for `record`: each names what did not, and its sign."""
    signs = {s.name(entry): s.sick(entry) for entry in s.comparison.entries}
    for encoder, sign in s.without_reference():
        signs.setdefault(f"labels alone with {encoder}", []).append(sign)
    failed = {name: [sign for sign in own if not sign.seen] for name, own in signs.items()}
    collapsed = {name: [sign for sign in own if sign.seen] for name, own in signs.items()}
    return [
        _check("all runs ended", failed, "all ended", "no failure"),
        _check("no run collapsed", collapsed, "losses left chance, features and projections spread", "no collapse"),
    ]


def _check(name: str, signs: Mapping[str, Sequence[Sign]], fine: str, expected: str) -> dict[str, Any]:
    bad = {whose: own for whose, own in signs.items() if own}
    said = [f"{whose}: {_in_words(own[:1])}" for whose, own in bad.items()]
    more = f"; and {len(said) - NAMED} more" if len(said) > NAMED else ""
    return check(name, not bad, "; ".join(said[:NAMED]) + more if bad else fine, expected)


def problems_list(s: Standings) -> str:
    """What failed or collapsed, and by what it was noticed, in Markdown."""
    signs = {s.name(entry): s.sick(entry) for entry in s.comparison.entries}
    lines = [f"- **{name}**: {_in_words(own)}" for name, own in signs.items() if own]
    lines += [f"- **labels alone with {encoder}**: {_in_words([sign])}" for encoder, sign in s.without_reference()]
    lines += [
        f"- **labels alone with {encoder}** are hardly better than guessing "
        f"({s.references[encoder].guess[s.metric]:.1f} %), so to be above them says little."
        for encoder in s.unlearned
    ]
    return "\n".join(lines) or "No run failed, and none collapsed: losses left chance, features and projections spread."


def _in_words(signs: Sequence[Sign]) -> str:
    """`features collapsed (spread 0.03, effective rank 1; seeds 0, 1)`, of each sign what was seen first."""
    said = []
    for what in dict.fromkeys(sign.what for sign in signs):
        own = [sign for sign in signs if sign.what == what]
        seeds = f"seed{'s' * (len(own) > 1)} {', '.join(str(sign.seed) for sign in own)}"
        name = what.replace("no collapse of the ", "collapse of the ").replace(
            "the loss left", "the loss did not leave"
        )
        said.append(f"{name} ({'; '.join(filter(None, (own[0].seen, seeds)))})")
    return "; ".join(said)
