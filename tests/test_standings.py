"""How methods stand: who is best, what is within noise of it, and what is above that which needs no method."""

import math

import numpy as np
import pytest
from scipy import stats

from contrastive.evaluation.statistics import INDEPENDENT, Design, paired_difference
from contrastive.sweeps.comparison import Comparison
from contrastive.sweeps.seed_noise import PRIOR, SeedNoise, difference, pooled_noise
from contrastive.sweeps.standings import Standings

from .made_up import judged
from .made_up_methods import FEW, MANY, standings

A, B, C, D = (("simclr", "cnn"), ("byol", "cnn"), ("dino", "cnn"), ("swav", "cnn"))


def keys(entries):
    return [(entry.method, entry.encoder) for entry in entries]


# --- How much seeds move results ----------------------------------------------------------------------------------


def test_pooled_noise_is_the_residual_of_results_by_seeds_on_log_odds():
    rows = [[0.90, 0.92, 0.91], [0.70, 0.75, 0.71], [0.50, 0.52, 0.54]]
    x = [[math.log(p / (1 - p)) for p in row] for row in rows]
    grand = sum(map(sum, x)) / 9
    residuals = [
        x[i][j] - sum(x[i]) / 3 - sum(x[k][j] for k in range(3)) / 3 + grand for i in range(3) for j in range(3)
    ]
    found = pooled_noise(rows, 1000)
    assert (found.variance, found.freedom) == (pytest.approx(sum(r * r for r in residuals) / 4), 4)
    assert pooled_noise([[0.9, 0.8]], 1000) is None
    assert pooled_noise([[0.9], [0.8]], 1000) is None
    assert pooled_noise([], 1000) is None
    # What all got right is as if half an image had been wrong
    assert math.isfinite(pooled_noise([[1.0, 1.0], [0.5, 0.6]], 100).variance)


@pytest.mark.parametrize(("freedom_of_all", "prior"), [(30, PRIOR), (5, 2)])  # of which the two themselves have three
def test_a_difference_counts_what_its_seeds_show_and_what_all_show(freedom_of_all, prior):
    rng = np.random.default_rng(0)
    a, b = ((rng.random((4, 5000)) < share[:, None]).astype(float) for share in (
        np.array([0.80, 0.82, 0.79, 0.81]), np.array([0.70, 0.71, 0.73, 0.69])))  # fmt: skip
    noise = SeedNoise(0.01, freedom_of_all)
    d = a - b
    n, by_seed = d.shape[1], d.mean(1)
    own = by_seed.var(ddof=1) / 4
    # Both means, back from log-odds: a point is p (1 - p) of them
    of_all = 0.01 * sum((x.mean() * (1 - x.mean())) ** 2 for x in (a, b)) / 4
    rows = (prior * of_all + 3 * own) / (prior + 3)
    average, unexplained = d.mean(0), d - by_seed[:, None] - d.mean(0) + d.mean()
    of_images = (average.var(ddof=1) - (unexplained**2).sum() / (n - 1) / 12) / n
    found = difference(a, b, INDEPENDENT, noise)
    freedom = (of_images + rows) ** 2 / (of_images**2 / (n - 1) + rows**2 / (prior + 3))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(of_images + rows)
    assert found.points == pytest.approx(100 * d.mean())
    assert (found.high - found.low) / 2 == pytest.approx(100 * half, rel=0.01)  # nearly: one image more is counted
    assert found.p == pytest.approx(2 * stats.t.sf(d.mean() / math.sqrt(of_images + rows), freedom), rel=0.15)


def test_where_nothing_else_is_known_a_difference_is_that_of_its_own_seeds():
    rng = np.random.default_rng(0)
    a, b = (rng.random((3, 1, 200)) < 0.6 for _ in range(2))
    plain = paired_difference(a, b)
    assert difference(a, b, INDEPENDENT, None) == plain
    assert difference(a, b, INDEPENDENT, SeedNoise(0.01, 2)) == plain  # these two are all that there are
    assert difference(a[:1], b[:1], INDEPENDENT, SeedNoise(0.01, 9)) == paired_difference(a[:1], b[:1])
    one_group = Design(np.zeros(200, int))
    assert difference(a, b, one_group, SeedNoise(0.01, 9)).p == 1.0
    # Of several draws of labels those that both have
    assert difference(np.tile(a, (1, 2, 1)), b, INDEPENDENT, SeedNoise(0.01, 9)).points == plain.points


# --- Who is best --------------------------------------------------------------------------------------------------


def test_the_best_is_found_and_what_is_within_noise_of_it():
    s = standings({A: 0.60, B: 0.80, C: 0.79, D: 0.40})
    assert keys(s.ranked(FEW))[2:] == [A, D]
    assert {*keys(s.ranked(FEW)[:1]), *keys(s.tied(FEW))} == {B, C}
    assert (s.metric, s.headline, s.budgets) == ("accuracy", MANY, [FEW, MANY])
    assert s.between(s.ranked(FEW)[0], s.ranked(FEW)[-1], FEW).points == pytest.approx(40, abs=4)
    alone = standings({A: 0.6})
    assert (keys(alone.ranked(FEW)), alone.tied(FEW)) == ([A], [])
    assert [s.name(entry) for entry in s.entries] == ["SimCLR", "BYOL", "DINO", "SwAV"]
    several = standings({A: 0.6, ("simclr", "resnet9"): 0.6})
    assert [several.name(entry) for entry in several.entries] == ["SimCLR with cnn", "SimCLR with resnet9"]


def shares_of(rng, means, seeds, n, spread):
    """What is right, methods x seeds x images: each has a level, its seeds vary, and images are hard for all alike."""
    hard, seed = rng.normal(0, 1.5, n), rng.normal(0, 0.1, seeds)
    found = []
    for mean, width in zip(means, spread, strict=True):
        own, by_seed = rng.normal(0, 0.6, n), rng.normal(0, width, seeds)
        both = rng.normal(0, 0.6, (seeds, n))
        odds = mean + hard + own + (seed + by_seed)[:, None] + both
        found.append((rng.random((seeds, n)) < 1 / (1 + np.exp(-odds))).astype(float))
    return found


class Known(Standings):
    """Standings of which the values are given, by the order of the entries."""

    def given(self, values):
        self.values, self._noise = values, {}
        self._noise[FEW] = pooled_noise([own.mean(1) for own in values], values[0].shape[1])
        return self

    def mean(self, entry, n):
        return self.values[self.comparison.entries.index(entry)].mean()

    def between(self, ours, other, n):
        a, b = (self.values[self.comparison.entries.index(entry)] for entry in (ours, other))
        return difference(a, b, INDEPENDENT, self.noise(n))

    @property
    def contenders(self):
        return self.comparison.entries


@pytest.mark.parametrize(
    ("means", "spread"),
    [
        ([1.5] * 8, [0.15] * 8),
        ([1.5] * 8, [0.05, 0.05, 0.1, 0.1, 0.1, 0.2, 0.3, 0.3]),
        ([2.3, 1.5, 1.5, 1.5], [0.1] * 4),
    ],
)
def test_methods_that_are_equal_are_seldom_told_apart_and_a_better_one_is_found(means, spread):
    """The chance of calling any difference one that is none is a twentieth, however many are looked at."""
    rng, times, wrong, right = np.random.default_rng(3), 400, 0, 0
    names = ("simclr", "byol", "dino", "swav", "mocov2", "mocov3", "simsiam", "vicreg")[: len(means)]
    s = Known(standings({(name, "cnn"): 0.5 for name in names}, seeds=1).comparison, judged(np.arange(9), 0), FEW)
    for _ in range(times):
        s.given(shares_of(rng, means, 3, 500, spread))
        best, tied = s.ranked(FEW)[0], s.tied(FEW)
        order = s.comparison.entries.index
        apart = [entry for entry in s.comparison.entries if entry != best and entry not in tied]
        wrong += any(means[order(entry)] == means[order(best)] for entry in apart)
        right += order(best) == 0 and len(apart) == len(means) - 1
    assert wrong <= stats.binom.ppf(0.999, times, 0.05)  # of one that holds what it promises
    if len(set(means)) > 1:
        assert right > 0.7 * times


def test_all_pairs_count_step_by_step():
    p = {"byol": 0.001, "dino": 0.009, "swav": 0.02, "mocov2": 0.04}
    s = standings({A: 0.9, **{(name, "cnn"): 0.5 for name in p}}, seeds=1)
    s.between = lambda ours, other, n: paired_difference(np.ones((1, 9)), np.zeros((1, 9))).__class__(
        1, 0, 2, p[other.method]
    )

    def tied():
        return {entry.method for entry in s.tied(FEW)}

    assert tied() == {"dino", "swav", "mocov2"}  # 10 pairs of five, then 6 of four: 0.054
    p["dino"] = 0.008
    assert tied() == {"swav", "mocov2"}  # then 3 of three: 0.06
    p["swav"] = 0.016
    assert tied() == set()  # then one pair is left


# --- Runs that failed ---------------------------------------------------------------------------------------------


def test_entries_are_compared_on_the_seeds_that_both_have():
    s = standings({A: 0.6, B: 0.6}, failed={A: {0: "no"}, B: {1: "no"}})
    a, b = s.entries
    values = [s.comparison.outcomes[entry.key][2].evaluation.values[f"linear_accuracy@{FEW}"] for entry in (a, b)]
    assert s.between(a, b, FEW).points == pytest.approx(100 * float((values[0] - values[1]).mean()), abs=1e-4)
    apart = standings({A: 0.9, B: 0.1}, seeds=2, failed={A: {0: "no"}, B: {1: "no"}})
    assert apart.between(*apart.entries, FEW) is None
    assert keys(apart.tied(FEW)) == [B]  # nothing tells them apart
    gone = standings({A: 0.9, B: 0.1}, seeds=2, failed={A: {0: "no", 1: "no"}})
    assert keys(gone.entries) == [B]
    assert [(sign.what, sign.seed) for sign in gone.sick(gone.comparison.entries[0])] == [("no", 0), ("no", 1)]


def test_signs_of_a_collapse_are_named_with_their_seeds():
    s = standings({A: 0.6, B: 0.1}, seeds=2, collapsed={B: "spread 0.01"})
    assert s.sick(s.entries[0]) == []
    assert [(sign.what, sign.seed, sign.seen) for sign in s.sick(s.entries[1])] == [
        ("no collapse of the features", 0, "spread 0.01"), ("no collapse of the features", 1, "spread 0.01"),
    ]  # fmt: skip


def test_noise_is_that_of_methods_in_good_health_and_of_untrained_encoders():
    s = standings({A: 0.6, B: 0.7, C: 0.1}, collapsed={C: "spread 0.01"})
    own = [[float(s.comparison.outcomes[f"{m}, cnn"][i].evaluation.values[f"linear_accuracy@{FEW}"].mean())
            for i in range(3)] for m in ("simclr", "byol")]  # fmt: skip
    random = [float(own.evaluation.values[f"random_encoder_accuracy@{FEW}"].mean())
              for own in s.comparison.references["cnn"].values()]  # fmt: skip
    expected = pooled_noise([*own, random], 400)
    assert (s.noise(FEW).variance, s.noise(FEW).freedom) == (pytest.approx(expected.variance, rel=1e-5), 4)
    assert standings({A: 0.6, B: 0.7}, seeds=1).noise(FEW) is None
    partly = standings({A: 0.6, B: 0.7}, failed={A: {0: "no"}})
    assert partly.noise(FEW).freedom == 2  # of BYOL and the untrained encoder, three seeds
    s = standings({A: 0.6, B: 0.7})
    del s.comparison.references["cnn"][0]
    assert s.noise(FEW).freedom == 2  # of the two methods


# --- What needs no method -----------------------------------------------------------------------------------------


def test_methods_are_compared_with_what_needs_none():
    s = standings(
        {A: 0.6, ("byol", "resnet9"): 0.8}, alone={"supervised": 0.5, "supervised_plain": 0.7, "general": 0.9}
    )
    simclr, byol = s.entries
    assert s.scratch("cnn", FEW) == "supervised_plain"
    assert s.less(simclr, "supervised_plain", FEW).points == pytest.approx(-10, abs=5)
    assert s.less(byol, "general", FEW) is None  # measured beside one encoder
    assert (s.general, s.less(byol, "general", FEW, s.general).points) == ("cnn", pytest.approx(-10, abs=5))
    assert s.rival(("general", "supervised"), FEW) == ("cnn", "general")
    assert s.rival(("pca",), FEW) is None
    assert s.less(simclr, "random_encoder", FEW) is None
    assert s.scratch("vit_tiny", FEW) == ""
    assert (
        Standings(Comparison(s.comparison.entries, s.comparison.outcomes), s.judging, FEW).rival(("general",), FEW)
        is None
    )


def test_the_best_of_many_has_to_be_better_by_more_to_be_surely_better():
    few, many = (
        standings({(name, "cnn"): 0.5 for name in names}) for names in (("simclr",), ("simclr", "byol", "dino"))
    )
    d = few.less(few.entries[0], "random_encoder", FEW)
    d = d.__class__(2.0, 0.5, 3.5, 0.03)
    assert few.surely(d)
    assert not many.surely(d)
    assert not few.surely(d.__class__(-2.0, -3.5, -0.5, 0.001))
    assert not few.surely(None)


def test_what_reads_labels_does_not_compete_unless_all_do():
    s = standings({A: 0.6, ("supcon", "cnn"): 0.95})
    assert (keys(s.ranked(FEW)), keys(s.readers), s.tied(FEW)) == ([A], [("supcon", "cnn")], [])
    alone = standings({("supervised", "cnn"): 0.6, ("supcon", "cnn"): 0.95})
    assert (keys(alone.ranked(FEW))[0], alone.readers) == (("supcon", "cnn"), [])


def test_where_first_weights_were_given_these_are_to_be_beaten():
    s = standings({A: 0.6, B: 0.7}, alone={"random_encoder": 0.3, "initial_encoder": 0.65})
    assert {s.control(entry) for entry in s.entries} == {"random_encoder"}
    entry = s.entries[0]
    object.__setattr__(entry, "settings", entry.settings.replace(initial_weights="weights.pt"))
    assert s.control(entry) == "initial_encoder"
    assert s.less(entry, s.control(entry), FEW).points < 0


def test_networks_from_labels_that_learned_nothing_are_noticed():
    alone = {"supervised": 0.09, "supervised_plain": 0.1, "random_encoder": 0.4}
    assert standings({A: 0.6}, alone=alone, gain=0.0).unlearned == ["cnn"]
    assert standings({A: 0.6}).unlearned == []


def test_two_classes_and_folds_are_judged_as_elsewhere():
    labels = np.repeat([0, 1], [90, 30])
    s = standings({A: 0.9, B: 0.6}, labels=labels, judging=judged(labels, folds=5))
    assert s.metric == "balanced_accuracy"
    assert keys(s.ranked(FEW)) == [A, B]
    assert s.tied(FEW) == []
