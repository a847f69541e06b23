"""Comparisons of methods that are made up: what each got right, with each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contrastive import Settings
from contrastive.evaluation.judging import Judging
from contrastive.evaluation.soundness import check
from contrastive.sweeps.comparison import Comparison, Entry, Outcome
from contrastive.sweeps.standings import Standings
from contrastive.training.footprint import StepCost

from .made_up import evaluation, judged

FEW, MANY = 100, 1000
ALONE = {"supervised": 0.5, "supervised_plain": 0.4, "random_encoder": 0.45}
Shares = Mapping[tuple[str, str], float]  # method and encoder -> share that is right, with few labels


def drawn(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    """Of n images, which are right: each by chance."""
    return (rng.random(n) < share).astype(int)


def of_arms(shares: Mapping[str, float], labels: np.ndarray, seed: int, rng: np.random.Generator, gain: float) -> Any:
    """An evaluation in which each arm got so large a share right with few labels, and more with many."""
    right = {
        arm: {FEW: drawn(rng, len(labels), share), MANY: drawn(rng, len(labels), share + gain)}
        for arm, share in shares.items()
    }
    return evaluation(right, labels, MANY, seed)


def ended(evaluation: Any, seed: int, sign: str = "", seconds: float = 60.0) -> Outcome:
    """The outcome of a run that ended; with a sign of a collapse, if one is given."""
    checks = [check(f"no collapse of the features (seed {seed})", not sign, sign or "spread 0.90", "spread above 0.1")]
    return Outcome(evaluation, [{"epoch": 1, "loss": 1.0, "seconds": seconds}], checks)


def standings(
    shares: Shares,
    seeds: int = 3,
    alone: Mapping[str, float] = ALONE,
    collapsed: Mapping[tuple[str, str], str] | None = None,
    failed: Mapping[tuple[str, str], Mapping[int, str]] | None = None,
    seconds: Mapping[tuple[str, str], float] | None = None,
    labels: Sequence[int] | None = None,
    judging: Judging | None = None,
    gain: float = 0.1,
) -> Standings:
    """How methods stand that got such shares right.

    Args:
        shares: of each method with each encoder.
        seeds: runs of each.
        alone: what arms that need no method get.
        collapsed: the sign of a collapse, of those that did.
        failed: why runs failed, by the number of the seed.
        seconds: that runs took, by default a minute.
        labels: of the judged images.
        judging: how they were judged, by default by a test split.
        gain: what more labels add to each share.
    """
    labels = np.arange(400) % 10 if labels is None else np.asarray(labels)
    rng, found = np.random.default_rng(0), Comparison([])
    for (method, encoder), share in shares.items():
        settings = Settings(preset="smoke", method=method, encoder=encoder)
        entry = Entry(method, encoder, settings, StepCost(0.01 * (1 + len(method)), 2**20 * (10 + len(method)), 2**20))
        found.entries.append(entry)
        why = (failed or {}).get((method, encoder), {})
        for i in range(seeds):
            own = of_arms({"linear": share}, labels, i, rng, gain)
            sign, took = (collapsed or {}).get((method, encoder), ""), (seconds or {}).get((method, encoder), 60.0)
            outcome = Outcome(why=why[i]) if i in why else ended(own, i, sign, took)
            found.outcomes.setdefault(entry.key, {})[i] = outcome
    for k, encoder in enumerate(dict.fromkeys(encoder for _, encoder in shares)):
        arms = {arm: share for arm, share in alone.items() if arm != "general" or k == 0}
        found.references[encoder] = {i: Outcome(of_arms(arms, labels, i, rng, gain)) for i in range(seeds)}
    return Standings(found, judging or judged(labels, folds=0), FEW)
