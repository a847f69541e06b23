"""The answer of a linear evaluation in plain words: which way is best, how sure that is, and what to do next."""

import math
from dataclasses import dataclass

from ..evaluation import Findings
from ..evaluation.alike import APART
from ..evaluation.statistics import Difference
from ..settings import Settings
from .protocol import n_alike
from .tables import NAMES, between, labels_in_words

# Ways that one could take, the one with less to do first: of equals the first is advised
WAYS = ("scratch", "general", "linear", "finetuned", "general_own", "general_finetuned")
IN_WORDS = {
    "general": "ImageNet features",
    "linear": "your own pretraining",
    "finetuned": "your own pretraining, fine-tuned",
    "general_own": "ImageNet features joined with your own pretraining",
    "general_finetuned": "the ImageNet network, fine-tuned",
    "scratch": "training on the labels alone",
}
ASKED_FOR = ("scratch", "general", "linear")  # what people want to see side by side
VERDICTS = {
    "general": "Take ImageNet features.",
    "linear": "Yes: pretrain on your own images.",
    "finetuned": "Yes: pretrain on your own images, then fine-tune.",
    "general_own": "Take ImageNet features and pretrain on your own images: both together are best.",
    "general_finetuned": "Take a network pretrained on ImageNet and fine-tune it.",
    "scratch": "No: train on the labels alone.",
}
WIDE = 10.0  # points on each side, from which on an interval says little
GAIN = 2.0  # points by each doubling of the labels, from which on more labels are worth their price
NEAR = 5.0  # points from the best, within which longer pretraining might get there
LONG = 100  # epochs, beyond which nobody is advised to train longer


@dataclass(frozen=True)
class Way:
    """A way that one could take. name: of WAYS. arm: which was measured for it. value: in percent."""

    name: str
    arm: str
    value: float


def ways(f: Findings) -> list[Way]:
    """The ways that were measured with the headline's labels."""
    found = []
    for name in WAYS:
        arm = f.scratch() if name == "scratch" else name
        if f.has(arm):
            found.append(Way(name, arm, f.percent(arm)["mean"]))
    return found


def best_way(f: Findings) -> Way:
    """The way with the best mean."""
    return max(ways(f), key=lambda way: way.value)


def advised(f: Findings) -> Way:
    """The first way, of those with less to do first, that is not worse than the best by more than noise."""
    best = best_way(f)
    return next(way for way in ways(f) if way == best or not surely(f.difference(best.arm, way.arm)))


def surely(difference: Difference) -> bool:
    """Whether a difference is above 0 by more than noise."""
    return difference.low > 0


def says_nothing(f: Findings) -> bool:
    """Whether no way is better than guessing by more than noise."""
    return f.percent(best_way(f).arm)["low"] <= f.guess[f.metric]


def copies_explain(f: Findings) -> bool:
    """Whether nothing is left of what the linear probe gets when images that look alike are held out together."""
    guess = f.guess[f.metric]
    return f.has(APART) and f.percent("linear")["low"] > guess >= f.percent(APART)["low"]


def _copies(f: Findings) -> str:
    best = best_way(f)
    return (
        "Nothing can be said yet: near-duplicates in several folds may explain what was measured.\n"
        f"With {f.headline:,} labels the best way, {IN_WORDS[best.name]}, gets {_measured(f, best.arm)}. But where "
        f"images that look alike are held out together, the linear probe gets {_measured(f, APART)}, no better than "
        "guessing. "
        "Next: say which images belong together, such as those of one patient, by `group`."
    )


def answer(f: Findings, settings: Settings, read_labels: bool = False) -> str:
    """The answer: the verdict on a line of its own, then four sentences at most.

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
    way, best = advised(f), best_way(f)
    more = (_others(f, way), _labels_saved(f, way), _costs(f, way), _next(f, way, settings))
    return f"{start}{_verdict(f, way, best)}\n{' '.join(part for part in more if part)}"


def _measured(f: Findings, arm: str) -> str:
    """`54.7 % accuracy (95 %: 52.1 to 57.3)`."""
    own = f.percent(arm)
    return f"{own['mean']:.1f} % {NAMES[f.metric]} (95 %: {own['low']:.1f} to {own['high']:.1f})"


def _no_signal(f: Findings) -> str:
    """That nothing is better than guessing, or that it cannot be known yet."""
    best = best_way(f)
    own, what = f.percent(best.arm), "groups" if len(f.judging.groups) else "images"
    seen = (
        f"With {f.headline:,} labels the best way, {IN_WORDS[best.name]}, gets {_measured(f, best.arm)}; always "
        f"guessing the most frequent class gets {f.guess[f.metric]:.1f} %. So nothing can be said of labels saved."
    )
    if (own["high"] - own["low"]) / 2 > WIDE:
        return f"Too few labels to tell whether anything is better than guessing.\n{seen} Next: label more {what}."
    return (
        f"No: these labels cannot be told from the images.\n{seen} Next: check whether a person could tell these "
        f"classes from the images; if so, label more {what}."
    )


def _verdict(f: Findings, way: Way, best: Way) -> str:
    """Which way, and what it gets; or that nothing is better by more than noise."""
    own = f.percent(way.arm)
    what = f"with {f.headline:,} labels, {IN_WORDS[way.name]} {_verb(way.name)} {_measured(f, way.arm)}"
    if way == best:
        runner_up = max((w for w in ways(f) if w != best), key=lambda w: w.value, default=None)
        clear = runner_up is None or surely(f.difference(best.arm, runner_up.arm))
        return f"{VERDICTS[way.name]} W{what[1:]}{'' if clear else ', the best by less than noise'}."
    if (own["high"] - own["low"]) / 2 > WIDE:
        return f"Too few labels to tell which way is best: {what}, and nothing is better by more than noise."
    if way.name == "scratch":
        return f"No: nothing beats training on the labels alone by more than noise. W{what[1:]}."
    return f"{VERDICTS[way.name]} W{what[1:]}; nothing is better by more than noise."


def _verb(name: str) -> str:
    return "give" if name == "general" else "gives"


def _others(f: Findings, way: Way) -> str:
    """How the other ways compare, the three that people ask for."""
    said = [
        f"{IN_WORDS[other.name]} {_verb(other.name)} {_points(f.difference(other.arm, way.arm))}"
        for other in ways(f)
        if other.name in ASKED_FOR and other != way
    ]
    return f"{said[0][0].upper()}{', '.join(said)[1:]}." if said else ""


def _points(d: Difference) -> str:
    """`12.1 points less (95 %: 9.8 to 14.4)`."""
    less = d.points < 0
    low, high = (-d.high, -d.low) if less else (d.low, d.high)
    noise = ", within noise" if low <= 0 else ""
    return f"{abs(d.points):.1f} points {'less' if less else 'more'} (95 %: {low:.1f} to {high:.1f}{noise})"


def _labels_saved(f: Findings, way: Way) -> str:
    """How many labels would do the same without help."""
    if way.name == "scratch":
        linear = f.saved.get("linear", {}).get(str(f.headline))
        if linear is None or linear["needed"] is None or linear["needed"] > f.headline:
            return ""
        return "So pretraining saves no labels here."
    own = f.saved.get(way.arm, {}).get(str(f.headline))
    if own is None:
        return ""
    needed = own["needed"]
    if needed is None:
        tried = f"more than the {own['most']:,} that there are"
        few = f.saved[way.arm].get(str(f.few))
        if few and f.few != f.headline and few["needed"] is not None:
            return (
                f"Labels alone would need {tried} for that; for what it gets with {f.few:,}, they need "
                f"{labels_in_words(few['needed'], few)}{between(few)}."
            )
        return f"Labels alone would need {tried} for that."
    return f"Labels alone would need {labels_in_words(needed, own)} for that{between(own)}."


def _costs(f: Findings, way: Way) -> str:
    """What the way costs to compute."""
    costs, trained = f.costs, f.pretraining_seconds
    general, scratch = costs.get("general"), costs.get(f.scratch())
    said = []
    if general and general > 1:  # else it was kept from before
        said.append(f"ImageNet features {seconds(general)}")
    if trained:
        said.append(f"pretraining {seconds(trained)}")
    if scratch and scratch > 1:
        said.append(f"all networks from labels {seconds(scratch)}")
    return f"Computing took: {', '.join(said)}." if said else ""


def seconds(n: float) -> str:
    """A time for people."""
    return f"{n:.0f} s" if n < 100 else f"{n / 60:.0f} min"


def _next(f: Findings, way: Way, settings: Settings) -> str:
    """What to do next."""
    own, linear, epochs = f.percent(way.arm), f.percent("linear")["mean"], settings.optimiser.epochs
    parts = []
    if n_alike(f.judging):
        parts.append("say which images belong together (`group`), since many are near copies")
    before, gain = _gain(f, way)
    if (own["high"] - own["low"]) / 2 > WIDE:
        what = "groups" if len(f.judging.groups) else "images"
        parts.append(f"label more {what}: four times as many halve the uncertainty")
    elif gain > GAIN:
        parts.append(f"label more: from {before:,} to {f.headline:,} labels, each doubling gained {gain:.1f} points")
    if epochs < LONG and linear > best_way(f).value - NEAR and way.name != "general":
        parts.append(f"pretrain longer (-p epochs={4 * epochs}): it was {epochs} epochs only")
    if way.name.startswith("general") and not parts:
        parts.append("use them as they are")
    return f"Next: {'; or '.join(parts)}." if parts else "Next: nothing, this is as good as it gets with these means."


def _gain(f: Findings, way: Way) -> tuple[int, float]:
    """A number of labels that is half of the headline's or less, and what each doubling since gained, in points."""
    before = max((n for n in f.budgets(way.arm) if 2 * n <= f.headline), default=0)
    if not before:
        return 0, 0.0
    gained = f.percent(way.arm)["mean"] - f.percent(way.arm, before)["mean"]
    return before, gained / math.log2(f.headline / before)


def key_numbers(f: Findings) -> list[tuple[str, str, str]]:
    """The numbers that carry the answer, for `conclude`: each way, and guessing."""
    tiles = []
    for way in ways(f):
        if way.name in ASKED_FOR:
            own = f.percent(way.arm)
            tiles.append((f"{own['mean']:.1f} %", f"{own['low']:.1f} to {own['high']:.1f}", TILES[way.name]))
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
    n = len(f.judging.labels)
    return f"{NAMES[f.metric]} with {f.headline:,} labels; 95 % interval from {n:,} {what}{groups}{seeds}"
