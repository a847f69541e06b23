import numpy as np
import pytest
from scipy import stats as scipy_stats

from contrastive.evaluation.statistics import paired_difference


def tries(rng, seeds, images, easy, spread=0.0, hard=None):
    """Right or wrong, seeds x images: seeds differ by `spread` (in logits), images by `hard` (shared by all seeds)."""
    hard = rng.normal(0, 2, images) if hard is None else hard
    logits = easy + spread * rng.normal(size=(seeds, 1)) + hard
    return (rng.random((seeds, images)) < 1 / (1 + np.exp(-logits))).astype(float)


def test_with_one_seed_the_test_is_mcnemars():
    a, b = np.zeros((1, 100)), np.zeros((1, 100))
    a[0, :30] = b[0, 20:50] = 1
    b[0, 50:60] = 1
    difference = paired_difference(a, b)
    # 20 images only a has right, 30 only b: exact test of a fair coin, as statsmodels and R's mcnemar.exact do
    assert difference.points == pytest.approx(-10)
    assert difference.p == pytest.approx(2 * scipy_stats.binom.cdf(20, 50, 0.5))
    assert paired_difference(a, a).p == 1
    assert (paired_difference(a, a).low, paired_difference(a, a).high) == (0, 0)


def test_with_one_seed_the_interval_is_the_bootstraps():
    rng = np.random.default_rng(1)
    a, b = tries(rng, 1, 500, 2.0), tries(rng, 1, 500, 1.0)
    ours = paired_difference(a, b)
    reference = scipy_stats.bootstrap(((a - b)[0],), np.mean, method="percentile", n_resamples=9999, random_state=0)
    assert ours.low == pytest.approx(100 * reference.confidence_interval.low, abs=0.4)
    assert ours.high == pytest.approx(100 * reference.confidence_interval.high, abs=0.4)


@pytest.mark.parametrize(
    ("seeds", "images", "spread"),
    [(1, 300, 0.0), (5, 300, 0.0), (5, 300, 0.4), (3, 100, 0.2), (2, 300, 0.4)],
)
def test_the_interval_covers_the_truth_in_simulation(seeds, images, spread):
    rng = np.random.default_rng(0)
    # The truth: the difference over all seeds and all images there might be.
    many = np.random.default_rng(9)
    hard, of_seed = many.normal(0, 2, 400_000), spread * many.normal(size=(2, 400_000))
    truth = 100 * np.diff(
        [(1 / (1 + np.exp(-(e + s + hard)))).mean() for e, s in zip((1.5, 2.0), of_seed, strict=True)]
    )
    covered = 0
    for _ in range(300):
        hard = rng.normal(0, 2, images)
        b, a = (tries(rng, seeds, images, easy, spread, hard) for easy in (1.5, 2.0))
        found = paired_difference(a, b)
        covered += found.low <= truth[0] <= found.high
    # So many of 300, give or take three standard errors; more is allowed, since with few seeds the width is cautious
    level = 0.95 if seeds != 2 else 0.90  # with two seeds it is too narrow when they are alike by chance
    assert covered >= 300 * level - 3 * (300 * level * (1 - level)) ** 0.5
    assert covered < 300


@pytest.mark.parametrize("seeds", [1, 5])
def test_p_values_are_below_five_percent_as_often_as_they_should(seeds):
    rng, rejected = np.random.default_rng(0), 0
    for _ in range(300):
        hard = rng.normal(0, 2, 200)
        rejected += (
            paired_difference(*(tries(rng, seeds, 200, 1.5, 0.3 * (seeds > 1), hard) for _ in range(2))).p < 0.05
        )
    assert rejected <= 300 * 0.05 + 3 * (300 * 0.05 * 0.95) ** 0.5


def test_seeds_that_disagree_widen_the_interval():
    a, b = np.ones((4, 1000)), np.ones((4, 1000))
    b[:, :100] = 0  # ten points worse for every seed
    assert paired_difference(a, b).high - paired_difference(a, b).low < 5
    b[0] = 1
    b[1, :200] = 0  # ten points on average
    wide = paired_difference(a, b)
    assert wide.points == pytest.approx(10)
    assert wide.high - wide.low > 20
    assert wide.low < 0 < wide.high
