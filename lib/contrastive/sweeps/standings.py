"""What a comparison of methods says: how each stands with few labels and with many, and which differ surely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..encoders import RANDOM
from ..evaluation import SCRATCH, Evaluation, Findings, Key, better_from_scratch
from ..evaluation.judging import Judging
from ..evaluation.statistics import Difference
from ..settings import METHODS
from .comparison import Comparison, Entry, Outcome
from .seed_noise import SeedNoise, difference, pooled_noise

SURELY = 0.05  # the chance of calling any difference one that is none
HARDLY = 2.0  # points


@dataclass(frozen=True)
class Sign:
    """What is wrong with a run. what: why it ended early; or the check of its health that it did not pass, of which
    `seen` is what was seen."""

    what: str
    seed: int
    seen: str = ""


@dataclass
class Standings:
    """How the entries of a comparison stand. judging: how images were judged. few: the number of labels that is looked
    at beside the headline's."""

    comparison: Comparison
    judging: Judging
    few: int
    _noise: dict[int, SeedNoise | None] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def found(self) -> dict[str, Findings]:
        """What was found of each entry with a run that ended, by its key."""
        return self._findings({entry.key: self.comparison.outcomes[entry.key] for entry in self.comparison.entries})

    @cached_property
    def references(self) -> dict[str, Findings]:
        """What was found of what needs no method, by encoder."""
        return self._findings(self.comparison.references)

    def _findings(self, outcomes: dict[str, dict[int, Outcome]]) -> dict[str, Findings]:
        ended = {name: list(_evaluations(by_seed).values()) for name, by_seed in outcomes.items()}
        return {name: Findings(own, self.judging, self.few) for name, own in ended.items() if own}

    @property
    def entries(self) -> list[Entry]:
        """Those with a run that ended."""
        return [entry for entry in self.comparison.entries if entry.key in self.found]

    @property
    def contenders(self) -> list[Entry]:
        """Those that learned without labels; if there are none, all. What has read the labels of all images cannot tell
        what few labels give."""
        return [e for e in self.entries if not METHODS[e.method].NEEDS_LABELS] or self.entries

    @property
    def readers(self) -> list[Entry]:
        """The other ones."""
        own = {entry.key for entry in self.contenders}
        return [entry for entry in self.entries if entry.key not in own]

    @property
    def metric(self) -> str:
        """The metric that the report leads with."""
        return next(iter(self.found.values())).metric

    @property
    def headline(self) -> int:
        """The number of labels that the report leads with."""
        return next(iter(self.found.values())).headline

    @property
    def budgets(self) -> list[int]:
        """The numbers of labels."""
        return next(iter(self.found.values())).budgets("linear")

    def name(self, entry: Entry) -> str:
        """What an entry is called: by what tells it from the others."""
        several = len({other.encoder for other in self.comparison.entries}) > 1
        return f"{entry.title} with {entry.encoder}" if several else entry.title

    def mean(self, entry: Entry, n: int) -> float:
        """What an entry's linear probe gets with n labels, in percent."""
        return self.found[entry.key].percent("linear", n)["mean"]

    def ranked(self, n: int, among: Sequence[Entry] | None = None) -> list[Entry]:
        """Entries by what they get with n labels, the best first."""
        return sorted(self.contenders if among is None else among, key=lambda entry: -self.mean(entry, n))

    # --- Differences ----------------------------------------------------------------------------------------------

    def noise(self, n: int) -> SeedNoise | None:
        """How much seeds move what linear probes get with n labels: of methods in good health, and of untrained
        encoders. None where it cannot be told."""
        if n not in self._noise:
            healthy = [self.comparison.outcomes[entry.key] for entry in self.entries if not self.sick(entry)]
            sides = [(own, "linear") for own in healthy]
            sides += [(own, "random_encoder") for own in self.comparison.references.values()]
            rows = []
            for outcomes, arm in sides:
                key, own = str(Key(self.metric, arm, n)), _evaluations(outcomes).values()
                rows.append([float(each.values[key].double().mean()) for each in own if key in each.values])
            most = max(map(len, rows), default=0)
            self._noise[n] = pooled_noise([row for row in rows if len(row) == most], len(self.judging.labels))
        return self._noise[n]

    def _between(
        self, ours: dict[int, Evaluation], theirs: dict[int, Evaluation], arms: tuple[str, str], n: int
    ) -> Difference | None:
        """How much better an arm of one is than an arm of another with n labels, on the seeds that both have; None
        where there are none."""
        keys, both = [str(Key(self.metric, arm, n)) for arm in arms], sorted(ours.keys() & theirs.keys())
        if not both or not all(keys[1] in theirs[i].values for i in both):
            return None
        a, b = (
            np.stack([own[i].values[key].double().numpy() for i in both])
            for own, key in zip((ours, theirs), keys, strict=True)
        )
        return difference(a, b, self.judging.design, self.noise(n))

    def between(self, ours: Entry, other: Entry, n: int) -> Difference | None:
        """How much better one entry is than another with n labels, in points; None where no seed tells."""
        outcomes = self.comparison.outcomes
        sides = _evaluations(outcomes[ours.key]), _evaluations(outcomes[other.key])
        return self._between(*sides, ("linear", "linear"), n)

    def less(self, entry: Entry, arm: str, n: int, encoder: str = "") -> Difference | None:
        """How much better an entry is than an arm that needs no method, by default of its own encoder; None where that
        was not measured."""
        own = _evaluations(self.comparison.outcomes[entry.key])
        other = _evaluations(self.comparison.references.get(encoder or entry.encoder, {}))
        return self._between(own, other, ("linear", arm), n)

    def tied(self, n: int, among: Sequence[Entry] | None = None) -> list[Entry]:
        """Which others are within noise of the best with n labels, the better ones first.

        The best was not known before, so of those that are left, all pairs count, step by step, as in Holm's procedure
        (1979): counting its own differences alone, one of ten that are equal would be called worse in every tenth
        comparison."""
        best, *others = self.ranked(n, among)
        p = {other.key: 1.0 if (d := self.between(best, other, n)) is None else d.p for other in others}
        apart, order = set[str](), sorted(p, key=p.__getitem__)
        for left, key in zip(range(len(order), 0, -1), order, strict=True):
            if p[key] * left * (left + 1) / 2 > SURELY:
                break
            apart.add(key)
        return [entry for entry in others if entry.key not in apart]

    def surely(self, d: Difference | None) -> bool:
        """Whether a method is better by more than noise, also where it was picked from all of them (Bonferroni)."""
        return d is not None and d.points > 0 and d.p * len(self.contenders) <= SURELY

    # --- What needs no method -------------------------------------------------------------------------------------

    def control(self, entry: Entry) -> str:
        """The arm that training has to improve on: the encoder with the weights that it started from."""
        started = entry.settings.encoder.initial_weights != RANDOM and self._has(entry.encoder, "initial_encoder")
        return "initial_encoder" if started else "random_encoder"

    def scratch(self, encoder: str, n: int) -> str:
        """The arm to be beaten with an encoder: the better network from scratch; empty where there is none."""
        own = self.references.get(encoder)
        if own is None or not any(own.has(arm, n, self.metric) for arm in SCRATCH):
            return ""
        return better_from_scratch(own.metrics, n, self.metric)

    def rival(self, arms: Sequence[str], n: int) -> tuple[str, str] | None:
        """The encoder and the arm, of these, that get most with n labels; None where there is none."""
        means = {
            (encoder, arm): own.percent(arm, n)["mean"]
            for encoder, own in self.references.items()
            for arm in arms
            if own.has(arm, n, self.metric)
        }
        return max(means, key=means.__getitem__, default=None)

    def _has(self, encoder: str, arm: str) -> bool:
        return encoder in self.references and self.references[encoder].has(arm, self.few, self.metric)

    @property
    def general(self) -> str:
        """The encoder beside which the network that others trained was measured; empty where there is none."""
        return next((encoder for encoder in self.references if self._has(encoder, "general")), "")

    @property
    def unlearned(self) -> list[str]:
        """Encoders with which labels alone, as many as the headline's, are hardly better than guessing."""
        arms = {encoder: self.scratch(encoder, self.headline) for encoder in self.references}
        return [
            encoder
            for encoder, arm in arms.items()
            if arm
            and (own := self.references[encoder]).percent(arm, self.headline)["mean"] < own.guess[self.metric] + HARDLY
        ]

    # --- Health ---------------------------------------------------------------------------------------------------

    def sick(self, entry: Entry) -> list[Sign]:
        """What is wrong with an entry's runs."""
        return _signs(self.comparison.outcomes[entry.key], entry.settings.runtime.seed)

    def without_reference(self) -> list[tuple[str, Sign]]:
        """What is wrong with what needs no method, each with its encoder."""
        first = self.comparison.entries[0].settings.runtime.seed
        return [(name, sign) for name, by in self.comparison.references.items() for sign in _signs(by, first)]


def _signs(outcomes: dict[int, Outcome], first: int) -> list[Sign]:
    found = []
    for i, own in sorted(outcomes.items()):
        if own.why:
            found.append(Sign(own.why, first + i))
        failed = [item for item in own.checks if not item["passed"]]
        found += [Sign(item["name"].rpartition(" (seed")[0], first + i, item["seen"]) for item in failed]
    return found


def _evaluations(outcomes: dict[int, Outcome]) -> dict[int, Evaluation]:
    """By seed, of the runs that ended."""
    return {i: own.evaluation for i, own in sorted(outcomes.items()) if own.evaluation is not None}
