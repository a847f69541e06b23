"""The answer of a linear evaluation in plain words: which way is best, how sure that is, and what to do next."""

import math

from ..data import counted
from ..evaluation import SCRATCH, Findings, Key
from ..evaluation.alike import APART
from ..evaluation.statistics import Difference
from ..settings import Settings
from .protocol import n_alike
from .tables import NAMES, between, labels_in_words
from .ways import WAYS, Way, advised, best_way, clear, copies_explain, says_nothing, surely, ways, wide

IN_WORDS = {
    "general": "ImageNet features",
    "initial_encoder": "the encoder before your own pretraining",
    "linear": "your own pretraining",
    "finetuned": "fine-tuning after your own pretraining",
    "general_own": "ImageNet features joined with your own pretraining",
    "general_finetuned": "fine-tuning the ImageNet network",
    "scratch": "training on the labels alone",
}
OWN = ("linear", "finetuned")  # by pretraining on one's own images alone
ASKED_FOR = ("scratch", "general", "linear")  # what people want to see side by side
VERDICTS = {
    "general": "Take ImageNet features",
    "initial_encoder": "No: take the encoder as it was before pretraining",
    "linear": "Yes: pretrain on your own images",
    "finetuned": "Yes: pretrain on your own images, then fine-tune",
    "general_own": "Take ImageNet features and pretrain on your own images",
    "general_finetuned": "Take a network pretrained on ImageNet and fine-tune it",
    "scratch": "No: train on the labels alone",
}
FROM_LABELS = "Take the encoder that was trained on labels"  # where it was, and is the way to take
GAIN = 2.0  # points by each doubling of the labels, from which on more labels are worth their price
NEAR = 5.0  # points from the best, within which longer pretraining might get there
BRIEF = 15  # epochs, below which it is advised however far from the best it is
LONG = 100  # epochs, beyond which nobody is advised to train longer


def _copies(f: Findings) -> str:
    best = best_way(f)
    return (
        "Nothing can be said yet: near-duplicates in several folds may explain what was measured.\n"
        f"With {f.headline:,} labels the best way, {IN_WORDS[best.name]}, gets {_measured(f, best.arm)}. But where "
        f"images that look alike are held out together, the linear probe gets {_measured(f, APART)}; guessing gets "
        f"{f.guess[f.metric]:.1f} %. Next: say which images belong together, such as those of one patient, by `group`."
    )


def answer(f: Findings, settings: Settings, read_labels: bool = False) -> str:
    """The answer, in five sentences at most: the verdict on a line of its own, then the others.

    Args:
        f: what was found.
        settings: of the report, resolved.
        read_labels: whether the encoder was trained on labels, so that none is saved.
    """
    start = "This encoder was trained on labels, so nothing here is a saving of labels. " if read_labels else ""
    if says_nothing(f):
        return start + _no_signal(f)
    if copies_explain(f):
        return start + _copies(f)
    way = advised(f)
    saved = "" if read_labels else _labels_saved(f, way)
    more = (_others(f, way), saved, _costs(f), _next(f, way, settings, read_labels))
    return f"{start}{_verdict(f, way, read_labels)}\n{' '.join(part for part in more if part)}"


def _measured(f: Findings, arm: str) -> str:
    """`54.7 % accuracy (95 %: 52.1 to 57.3)`."""
    own = f.percent(arm)
    return f"{own['mean']:.1f} % {NAMES[f.metric]} (95 %: {own['low']:.1f} to {own['high']:.1f})"


def _no_signal(f: Findings) -> str:
    """That nothing is better than guessing, or that it cannot be known yet."""
    best = best_way(f)
    seen = (
        f"With {f.headline:,} labels the best way, {IN_WORDS[best.name]}, gets {_measured(f, best.arm)}; always "
        f"guessing the most frequent class gets {f.guess[f.metric]:.1f} %. So nothing can be said of labels saved."
    )
    if wide(f, best):
        return f"{_too_few(f)} to tell whether anything is better than guessing.\n{seen} Next: label more {_what(f)}."
    return (
        f"No: these labels cannot be told from the images.\n{seen} Next: check whether a person could tell these "
        f"classes from the images; if so, label more {_what(f)}."
    )


def _what(f: Findings) -> str:
    """What is to be labelled for a result to be surer: with a test split, intervals are of its images."""
    kind = "groups" if len(f.judging.groups) else "images"
    return kind if f.judging.n_folds else f"test {kind}"


def _too_few(f: Findings) -> str:
    if f.judging.n_folds:
        return f"Too few {'labelled groups' if len(f.judging.groups) else 'labels'}"
    return f"Too few {_what(f)}"


def _verdict(f: Findings, way: Way, read_labels: bool) -> str:
    """Which way, and what it gets; or that nothing is better by more than noise."""
    verb, measured = _verb(way.name), _measured(f, way.arm)
    got = f"with {f.headline:,} labels {'they' if verb == 'give' else 'that'} {verb} {measured}"
    if clear(f, way):
        return f"{_named(way, read_labels)}: {got}."
    if wide(f, way):
        got = f"with {f.headline:,} labels, {IN_WORDS[way.name]} {verb} {measured}"
        return f"{_too_few(f)} to tell which way is best: {got}, and no other way is better by more than noise."
    if way.name == "scratch":
        return f"No: nothing beats training on the labels alone by more than noise: {got}."
    return f"{_named(way, read_labels)}: {got}, and no other way is better by more than noise."


def _named(way: Way, read_labels: bool) -> str:
    return FROM_LABELS if read_labels and way.name in ("linear", "finetuned") else VERDICTS[way.name]


def _verb(name: str) -> str:
    return "give" if name == "general" else "gives"


def _others(f: Findings, way: Way) -> str:
    """How the other ways compare, the three that people ask for."""
    said = [
        f"{IN_WORDS[other.name]} {_verb(other.name)} {_points(f.difference(other.arm, way.arm))}"
        for other in ways(f)
        if other.name in ASKED_FOR and other != way
    ]
    tried = [n for n in f.budgets("general") if f.has(way.arm, n)]
    if tried and not f.has("general"):  # looking at so many enlarged images would take too long
        n = tried[-1]
        less = _points(f.difference("general", way.arm, n))
        said.append(f"with {n:,} labels, the most they were tried with, ImageNet features give {less}")
    return f"{said[0][0].upper()}{', '.join(said)[1:]}." if said else ""


def _points(d: Difference, than: str = "") -> str:
    """`12.1 points less (95 %: 9.8 to 14.4)`."""
    less = d.points < 0
    low, high = (-d.high, -d.low) if less else (d.low, d.high)
    noise = ", within noise" if low <= 0 else ""
    how = " ".join(filter(None, ("less" if less else "more", than)))
    return f"{abs(d.points):.1f} points {how} (95 %: {low:.1f} to {high:.1f}{noise})"


def _labels_saved(f: Findings, way: Way) -> str:
    """How many labels would do the same without help."""
    if way.name == "scratch":
        return _none_saved(f)
    own = f.saved.get(way.arm, {}).get(str(f.headline))
    if own is None:
        return ""
    needed = own["needed"]
    if needed is None:
        tried = f"more than the {own['most']:,} that were tried"
        few = f.saved[way.arm].get(str(f.few))
        if few and f.few != f.headline and few["needed"] is not None:
            return (
                f"Labels alone would need {tried} for that; for what it gets with {f.few:,}, they need "
                f"{labels_in_words(few['needed'], few)}{between(few)}."
            )
        return f"Labels alone would need {tried} for that."
    return f"Labels alone would need {labels_in_words(needed, own)} for that{between(own)}."


def _none_saved(f: Findings) -> str:
    """Where labels alone are best: that pretraining surely saves none of them, and with how many fewer, the most of
    which that is so, another way surely beats them. Empty if neither is known."""
    n, said = str(f.headline), ""
    highs = [own[n]["high"] for arm, own in f.saved.items() if arm in OWN and n in own]
    if highs and all(high is not None and high <= f.headline for high in highs):
        said = f"So pretraining saves no labels with {f.headline:,}"
    for fewer in sorted({n for arm in SCRATCH for n in f.budgets(arm) if n < f.headline}, reverse=True):
        gains = {w: f.difference(w, f.scratch(fewer), fewer) for w in WAYS if w != "scratch" and f.has(w, fewer)}
        if sure := {name: gain for name, gain in gains.items() if surely(gain)}:
            name = max(sure, key=lambda name: sure[name].points)
            start = f"{said}; with {fewer:,}" if said else f"With {fewer:,} labels"
            return f"{start}, though, {IN_WORDS[name]} {_verb(name)} {_points(sure[name], 'than they alone')}."
    return f"{said}." if said else ""


def _costs(f: Findings) -> str:
    """What the ways cost to compute; not what was kept from before, which cost nothing now."""
    spent = {
        "ImageNet features": f.costs.get("general", 0.0),
        "pretraining": f.pretraining_seconds,
        "networks from labels alone": sum(f.costs.get(arm, 0.0) for arm in SCRATCH),
    }
    said = [f"{what} {seconds(n)}" for what, n in spent.items() if n > 1]
    return f"Computing took: {', '.join(said)}." if said else ""


def seconds(n: float) -> str:
    """A time for people."""
    return f"{n:.0f} s" if n < 100 else f"{n / 60:.0f} min"


def _next(f: Findings, way: Way, settings: Settings, read_labels: bool) -> str:
    """What to do next."""
    epochs, parts = settings.optimiser.epochs, []
    if n_alike(f.judging):
        parts.append("say which images belong together (`group`), since many are near copies")
    before, gain = _gain(f, way)
    if wide(f, way):
        parts.append(f"label more {_what(f)}: four times as many halve the uncertainty")
    elif gain > GAIN:
        parts.append(f"label more: from {before:,} to {f.headline:,} labels, each doubling gained {gain:.1f} points")
    near = epochs < BRIEF or f.percent("linear")["mean"] > best_way(f).value - NEAR
    if epochs < LONG and near and way.name != "general" and not read_labels:
        parts.append(f"pretrain longer (-p epochs={4 * epochs}): it was {counted(epochs, 'epoch')} only")
    if parts:
        return f"Next: {'; or '.join(parts)}."
    return "Next: use them as they are." if way.name == "general" else "Next: nothing, as far as these ways go."


def _gain(f: Findings, way: Way) -> tuple[int, float]:
    """A number of labels that is half of the headline's or less, and what each doubling since gained, in points."""
    before = max((n for n in f.budgets(way.arm) if 2 * n <= f.headline), default=0)
    if not before:
        return 0, 0.0
    gained = f.percent(way.arm)["mean"] - f.percent(way.arm, before)["mean"]
    return before, gained / math.log2(f.headline / before)


def key_numbers(f: Findings) -> list[tuple[str, str, str]]:
    """The numbers that carry the answer, for `conclude`: the ways that people ask for, the one that is advised, and
    guessing."""
    tiles, shown = [], (*ASKED_FOR, advised(f).name)
    for way in ways(f):
        if way.name in shown:
            own, what = f.percent(way.arm), TILES.get(way.name, IN_WORDS[way.name])
            if f.metric == "balanced_accuracy" and f.has(way.arm, metric="macro_auc"):  # which needs no threshold
                what += f"; AUC {f.percent(way.arm, metric='macro_auc')['mean']:.1f} %"
            tiles.append((f"{own['mean']:.1f} %", f"{own['low']:.1f} to {own['high']:.1f}", what))
    name = f"{NAMES[f.metric]} by guessing"
    tiles.append((f"{f.guess[f.metric]:.1f} %", "", name))
    return tiles


TILES = {
    "scratch": "labels alone: the same network from scratch",
    "general": "ImageNet features, frozen, with a linear classifier",
    "linear": "your own pretraining, frozen, with a linear classifier",
}


def spread(f: Findings) -> str:
    """What the spreads are, and what the numbers are of, in words."""
    what = "cross-validated images" if f.judging.n_folds else "test images"
    seeds = f", {len(f.evaluations)} seeds" if len(f.evaluations) > 1 else ", one seed"
    groups = ", whole groups" if len(f.judging.groups) else ""
    n, folds = len(f.judging.labels), f.judging.n_folds
    of = f" (of {n:,}, one part in {folds} is held out at a time)" if folds else ""
    drawn = {f.values(Key(f.metric, way.arm, f.headline)).shape[1] for way in ways(f)}
    paired = "; differences are of the first draw of labels, which all ways had" if len(drawn) > 1 else ""
    return f"{NAMES[f.metric]} with {f.headline:,} labels{of}; 95 % interval from {n:,} {what}{groups}{seeds}{paired}"
