import numpy as np
import pytest
from scipy import stats as scipy_stats

from contrastive.evaluation.statistics import Design, interval, paired_difference


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
    assert paired_difference(a[:, None], b[:, None]) == difference  # seeds x draws x images


@pytest.mark.parametrize(("better", "worse", "n"), [(0, 0, 40), (5, 1, 40), (40, 0, 40), (30, 12, 400)])
def test_with_one_seed_the_interval_is_agrestis_and_mins(better, worse, n):
    a, b = np.zeros((1, n)), np.zeros((1, n))
    a[0, :better] = b[0, n - worse :] = 1
    found = paired_difference(a, b)
    middle = (better - worse) / (n + 2)  # half a pair was added to each of the four kinds there are
    error = ((better + worse + 1 - (better - worse) ** 2 / (n + 2)) / (n + 2) ** 2) ** 0.5
    low, high = scipy_stats.t.interval(0.95, n - 1, middle, error)
    # Our variance has one degree of freedom less, and the pair added differs as much as the one that differs most
    assert found.low == pytest.approx(100 * max(low, -1), abs=60 / n)
    assert found.high == pytest.approx(100 * min(high, 1), abs=60 / n)
    assert found.low <= found.points <= found.high
    assert found.high - found.low > 100 / n


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


def exact(right, n):
    found = scipy_stats.binomtest(right, n).proportion_ci(method="exact")
    return found.low, found.high


@pytest.mark.parametrize(("right", "n"), [(0, 500), (3, 500), (250, 500), (499, 500), (500, 500), (9_900, 10_000)])
def test_the_interval_of_an_accuracy_is_the_exact_one(right, n):
    found = interval((np.arange(n) < right)[None, None])
    assert found.mean == right / n
    assert (found.low, found.high) == pytest.approx(exact(right, n), abs=0.0005)
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_images_that_are_copies_count_once():
    rng = np.random.default_rng(0)
    a, b = (tries(rng, 3, 200, easy)[:, None] for easy in (2.0, 1.0))
    design = Design(rng.permutation(200).repeat(6))
    once, again = interval(a), interval(a.repeat(6, 2), design)
    assert (again.low, again.high) == pytest.approx((once.low, once.high), abs=1e-3)
    assert vars(paired_difference(a.repeat(6, 2), b.repeat(6, 2), design)) == pytest.approx(
        vars(paired_difference(a, b)), rel=1e-6
    )
    naive = interval(a.repeat(6, 2))
    assert naive.high - naive.low < 0.7 * (once.high - once.low)


def test_the_variance_over_groups_is_the_bootstraps():
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 8, 150)
    group = np.arange(150).repeat(sizes)
    values = rng.normal(size=150)[group] + rng.normal(size=len(group))  # of any kind, not 0 or 1
    sums = np.bincount(group, weights=values)
    drawn = rng.integers(0, 150, (4000, 150))
    error = (sums[drawn].sum(1) / sizes[drawn].sum(1)).std()
    found = interval(values[None, None], Design(group), bounded=False)
    half = scipy_stats.t.ppf(0.975, sizes.sum() ** 2 / (sizes**2).sum() - 1) * error
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06 * half)
    order = rng.permutation(len(group))
    shuffled = interval(values[None, None, order], Design(group[order]), bounded=False)
    assert vars(shuffled) == pytest.approx(vars(found))


@pytest.mark.parametrize(("repeats", "n_folds", "factor"), [(5, 5, 1.45), (1, 5, 2.25), (10, 10, 0.1 + 10 / 9)])
def test_cross_validation_is_corrected_as_nadeau_and_bengio_do(repeats, n_folds, factor):
    rng = np.random.default_rng(2)
    values = tries(rng, repeats, 5000, 1.0)[None]
    found = interval(values, Design(n_folds=n_folds))
    error = (factor * np.mean(values[0].var(1, ddof=1)) / 5000) ** 0.5
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.02)
    # Their own way: the folds' results, of which there are repeats x folds
    folds = values.reshape(repeats * n_folds, -1).mean(1)
    theirs = ((1 / len(folds) + 1 / (n_folds - 1)) * folds.var(ddof=1)) ** 0.5
    assert theirs == pytest.approx(error, rel=0.5)


def test_of_one_seed_draws_are_random_and_of_several_their_means():
    rng = np.random.default_rng(3)
    values = tries(rng, 5, 100, 1.0, 0.5)
    assert vars(interval(values[None])) == pytest.approx(vars(interval(values[:, None])))
    several = tries(rng, 12, 100, 1.0, 0.5).reshape(4, 3, 100)
    assert vars(interval(several)) == pytest.approx(vars(interval(several.mean(1))))
    # Of draws the first are compared
    a, b = several, tries(rng, 8, 100, 0.5).reshape(4, 2, 100)
    assert paired_difference(a, b) == paired_difference(a[:, :2], b)
    assert paired_difference(b, a).points == -paired_difference(a, b).points


@pytest.mark.parametrize("n_folds", [0, 5])
@pytest.mark.parametrize(("seeds", "draws"), [(1, 1), (1, 3), (2, 1), (3, 2)])
@pytest.mark.parametrize("groups", [(), (0, 1), (0, 0, 0, 0, 0, 1), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("share", [0, 0.1, 0.75, 1])
def test_twelve_images_have_wide_intervals(n_folds, seeds, draws, groups, share):
    design = Design(np.resize(np.array(groups, int), 12 if groups else 0), n_folds)
    values = (np.random.default_rng(4).random((seeds, draws, 12)) < share).astype(float)
    found = interval(values, design)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.high - found.low > (0.6 if max(groups, default=9) == 1 else 0.15)
    difference = paired_difference(values, np.zeros_like(values), design)
    assert -100 <= difference.low <= difference.points <= difference.high <= 100
    assert 0 <= difference.p <= 1
    assert difference.high - difference.low > 15
    apart = interval(values, design, bounded=False)
    assert np.isfinite([apart.low, apart.high]).all()


def test_one_group_says_nothing_of_others():
    values, one = np.ones((1, 1, 12)), Design(np.zeros(12, int))
    assert vars(interval(values, one)) == {"mean": 1, "low": 0, "high": 1}
    assert interval(values, one, bounded=False).high == np.inf
    assert vars(paired_difference(values, 0 * values, one)) == {"points": 100, "low": -100, "high": 100, "p": 1}


def test_groups_have_to_be_of_the_images():
    with pytest.raises(ValueError, match="groups of 3 images"):
        interval(np.ones((1, 1, 12)), Design(np.arange(3)))


def test_what_is_not_defined_has_no_interval():
    found = interval(np.full((1, 1, 12), np.nan))
    assert np.isnan([found.mean, found.low, found.high]).all()
