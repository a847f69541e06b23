"""The ways that one could take with few labels, as far as they were measured: which is best, and how sure that is."""

from dataclasses import dataclass

from ..evaluation import Findings
from ..evaluation.alike import APART
from ..evaluation.statistics import Difference

# Ways that one could take, the one with less to do first: of equals the first is advised
WAYS = ("scratch", "general", "initial_encoder", "linear", "finetuned", "general_own", "general_finetuned")
WIDE = 10.0  # points on each side, from which on an interval says little
LEFT = 0.5  # of what the probe gains over guessing, below which hardly anything is left


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
    """The first way, of those with less to do first, that no other one surely beats."""
    every = ways(f)
    return next(w for w in every if not any(surely(f.difference(o.arm, w.arm)) for o in every if o != w))


def clear(f: Findings, way: Way) -> bool:
    """Whether a way surely beats every other one."""
    return all(surely(f.difference(way.arm, other.arm)) for other in ways(f) if other != way)


def surely(difference: Difference) -> bool:
    """Whether a difference is above 0 by more than noise."""
    return difference.low > 0


def wide(f: Findings, way: Way) -> bool:
    """Whether what a way gets is so unsure that it says little."""
    own = f.percent(way.arm)
    return (own["high"] - own["low"]) / 2 > WIDE


def says_nothing(f: Findings) -> bool:
    """Whether no way is better than guessing by more than noise."""
    return f.percent(best_way(f).arm)["low"] <= f.guess[f.metric]


def copies_explain(f: Findings) -> bool:
    """Whether hardly anything is left of what the linear probe gets, and surely less, when images that look alike are
    held out together; and no other way is surely better than that probe, of which this was not asked."""
    if not f.has(APART) or surely(f.difference(best_way(f).arm, "linear")):
        return False
    guess, linear, held_apart = f.guess[f.metric], f.percent("linear"), f.percent(APART)
    left = (held_apart["mean"] - guess) / max(linear["mean"] - guess, 1e-9)
    nothing = held_apart["low"] <= guess < linear["low"] and left < LEFT
    return nothing and surely(f.difference("linear", APART))
