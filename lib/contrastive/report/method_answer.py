"""The answer of 04_methods in plain words: which method, with which encoder, on these images; and how sure that is."""

from collections.abc import Mapping, Sequence

from ..data import counted
from ..evaluation import SCRATCH
from ..evaluation.statistics import Difference
from ..settings import Settings
from ..sweeps.comparison import ONCE, Entry
from ..sweeps.standings import Standings
from .advice import seconds
from .method_section import CONTROLS, NAMED, reference_rows, training_seconds
from .tables import NAMES

# What needs no method -> the arms that show it; what training has to beat, the least first
RIVALS: dict[str, tuple[str, ...]] = {"an untrained network": tuple(CONTROLS), "labels alone": SCRATCH}
CHEAPER = 0.8  # of the best one's time, from which on a method that is as good is worth a word


def method_answer(s: Standings) -> str:
    """How methods and encoders stand on these images, in sentences: the first is the verdict, on a line of its own."""
    best = s.ranked(s.few)[0]
    verdict, gain = _verdict(s, best)
    parts = [_beside_others(s, best), _many_labels(s, best), _by_encoder(s)]
    parts += [_price(s, best), _luck(s)] if gain else []
    parts += [_readers(s), _problems(s)]
    return f"{verdict}\n{' '.join(part for part in parts if part)}"


def _verdict(s: Standings, best: Entry) -> tuple[str, bool]:
    """Which method; or that none gains anything, or none stands out. And whether there is a gain."""
    others, tied, start = len(s.contenders) - 1, s.tied(s.few), f"with {s.few:,} labels"
    named = f"{s.name(best)}, the best of {others + 1}," if others else s.name(best)
    for what, arms in RIVALS.items():
        rival = s.rival(arms, s.few)
        if rival is not None and not s.surely(s.less(best, rival[1], s.few, rival[0])):
            theirs = s.references[rival[0]].percent(rival[1], s.few)["mean"]
            gets = f"{start}, {named} gets {_measured(s, best)}, {_with(s, what, rival[0])} {theirs:.1f} %"
            return f"No gain over {what}: {gets}.", False
    return _choice(s, best, tied, others), True


def _choice(s: Standings, best: Entry, tied: list[Entry], others: int) -> str:
    start, named = f"with {s.few:,} labels", f"{s.name(best)}, the best of {others + 1},"
    if not others:
        return f"Yes, it helps: {start}, {s.name(best)} gets {_measured(s, best)}."
    if not tied:
        less = f"{_each(others)} gets less, by more than noise"
        return f"Take {s.name(best)}: {start}, it gets {_measured(s, best)}, and {less}."
    if len(tied) == others:
        return (
            f"None stands out: {start}, {named} gets {_measured(s, best)}, and {_each(others)} is within noise of that."
        )
    some = f"{len(tied)} of the {others} others {'is' if len(tied) == 1 else 'are'} within noise of that"
    return f"{s.name(best)} is first, but not alone: {start}, it gets {_measured(s, best)}; {some}: {_list(s, tied)}."


def _each(others: int) -> str:
    return "the other one" if others == 1 else f"each of the {others} others"


def _with(s: Standings, what: str, encoder: str) -> str:
    """What needs no method, with the encoder where there are several."""
    return f"{what} with {encoder}" if len(s.references) > 1 else what


def _measured(s: Standings, entry: Entry) -> str:
    own = s.found[entry.key].percent("linear", s.few)
    return f"{own['mean']:.1f} % {NAMES[s.metric]} (95 %: {own['low']:.1f} to {own['high']:.1f})"


def _list(s: Standings, entries: Sequence[Entry]) -> str:
    more = f" and {len(entries) - NAMED} more" if len(entries) > NAMED else ""
    return ", ".join(s.name(entry) for entry in entries[:NAMED]) + more


def _many_labels(s: Standings, best: Entry) -> str:
    """Who is best with the headline's number of labels."""
    if s.headline == s.few or len(s.contenders) < 2:
        return ""
    there, tied, others = s.ranked(s.headline)[0], s.tied(s.headline), len(s.contenders) - 1
    who = "it is best again" if there == best else f"{s.name(there)} is best"
    if len(tied) == others:
        how = "and none is worse by more than noise"
    elif not tied:
        how = f"and {_each(others)} gets less, by more than noise"
    else:
        how = f"and {len(tied)} of the {others} others {'is' if len(tied) == 1 else 'are'} within noise of that"
    return f"With {s.headline:,} labels {who}: {s.mean(there, s.headline):.1f} %, {how}."


def _beside_others(s: Standings, best: Entry) -> str:
    """How the best stands against what needs no method, with few labels."""
    said = []
    for what, arms in {**RIVALS, "ImageNet features": ONCE}.items():
        if (rival := s.rival(arms, s.few)) is None:
            continue
        if (d := s.less(best, rival[1], s.few, rival[0])) is not None:
            said.append(_gap(s, d, what if arms == ONCE else _with(s, what, rival[0])))
    return f"That is {', '.join(said)}." if said else ""


def _gap(s: Standings, d: Difference, whom: str) -> str:
    """`12.1 points more than labels alone (95 %: 9.8 to 14.4)`."""
    less = d.points < 0
    low, high = (-d.high, -d.low) if less else (d.low, d.high)
    noise = ""
    if low <= 0:
        noise = ", within noise"
    elif not less and not s.surely(d):
        noise = f", which the best of {len(s.contenders)} may get by luck"
    return f"{abs(d.points):.1f} points {'less' if less else 'more'} than {whom} (95 %: {low:.1f} to {high:.1f}{noise})"


def _by_encoder(s: Standings) -> str:
    """Which method is best with each encoder, where there are several of both."""
    encoders = list(dict.fromkeys(entry.encoder for entry in s.contenders))
    if len(encoders) < 2 or len({entry.method for entry in s.contenders}) < 2:
        return ""
    ranked = s.ranked(s.few)
    best = [next(entry for entry in ranked if entry.encoder == encoder) for encoder in encoders]
    if len({entry.method for entry in best}) == 1:
        return f"With every encoder {best[0].title} is first."
    more = f" and so on for {len(best) - NAMED} more" if len(best) > NAMED else ""
    return f"Who is first depends on the encoder: {', '.join(s.name(entry) for entry in best[:NAMED])}{more}."


def _price(s: Standings, best: Entry) -> str:
    """What the best takes to train, and what is as good and takes less."""
    times = {entry.key: training_seconds(s, entry) or 0.0 for entry in s.contenders}
    own, tied = times[best.key], s.tied(s.few)
    said = f"{s.name(best)} trained for {seconds(own)} a run" if own >= 1 else ""
    cheap = min(tied, key=lambda entry: times[entry.key], default=best)
    if said and times[cheap.key] < CHEAPER * own:
        said += f"; {s.name(cheap)}, within noise of it, for {seconds(times[cheap.key])}"
    return f"{said}." if said else ""


def _luck(s: Standings) -> str:
    n = len(s.contenders)
    return f"The best of {n} is best partly by luck, so its number is a little too good." if n > 1 else ""


def _readers(s: Standings) -> str:
    titles = list(dict.fromkeys(entry.title for entry in s.readers))
    verb = (
        "has read the labels of all images, and so stands" if len(titles) == 1 else "have read all labels, and so stand"
    )
    return f"{' and '.join(titles)} {verb} apart." if titles else ""


def _problems(s: Standings) -> str:
    sick = [entry for entry in s.comparison.entries if s.sick(entry)]
    return f"Failed or collapsed, at least with one seed: {_list(s, sick)}." if sick else ""


def method_numbers(s: Standings) -> list[tuple[str, str, str]]:
    """The numbers that carry the answer, for `conclude`: the best, and what needs no method, with few labels."""
    best = s.ranked(s.few)[0]
    rows: list[tuple[str, Mapping[str, float]]] = [(s.name(best), s.found[best.key].percent("linear", s.few))]
    rows += [(row.name, row.values[s.few]) for row in reference_rows(s, [best.encoder]) if s.few in row.values]
    return [(f"{own['mean']:.1f} %", f"{own['low']:.1f} to {own['high']:.1f}", name) for name, own in rows]


def method_facts(settings: Settings, s: Standings) -> tuple[str, str]:
    """On what, and how, the methods were trained, for `conclude`."""
    own, entries = settings.comparison, s.comparison.entries
    epochs = sorted({entry.settings.optimiser.epochs for entry in entries})
    shown = " to ".join(f"{n:,}" for n in dict.fromkeys((epochs[0], epochs[-1])))
    length = (
        f"{own.minutes:g} minutes each"
        if own.minutes
        else counted(epochs[-1], "epoch").replace(f"{epochs[-1]:,}", shown)
    )
    n_methods, n_encoders = (len({getattr(entry, part) for entry in entries}) for part in ("method", "encoder"))
    n = entries[0].settings.data.n_images or 0
    data = f"{s.judging.images.name}: {n:,} images without labels, judged on {len(s.judging.labels):,}"
    size = f"{counted(n_methods, 'method')}, {counted(n_encoders, 'encoder')}, {counted(own.method_seeds, 'seed')}"
    return data, f"{size}, {length}"
