import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from contrastive.evaluation.labels_saved import label_savings, labels_needed
from contrastive.evaluation.statistics import Design

from .test_statistics import tries


def test_labels_needed_interpolates_between_powers():
    curve = np.array([[80.0, 90.0], [80.0, 90.0], [80.0, 90.0], [90.0, 80.0], [80.0, 80.0], [80.0, 80.0]])
    needed = labels_needed([100, 10_000], curve, np.array([85.0, 79.0, 91.0, 85.0, 80.0, 85.0]))
    assert needed.tolist() == pytest.approx([1000, 100, math.inf, 100, 100, math.inf])
    # Of a curve that falls again, where it gets there first
    assert labels_needed([1, 10, 100, 1000], np.array([5.0, 7.0, 5.0, 9.0]), np.array(6.0)) == pytest.approx(10**0.5)


@pytest.mark.parametrize(("seeds", "spread"), [(5, 0.1), (5, 0.4), (3, 0.4), (2, 0.4)])
def test_label_savings_cover_the_truth_in_simulation(seeds, spread):
    def accuracy(logit):
        return (1 / (1 + np.exp(-(logit + all_images)))).mean()

    # Of seeds there might be as well as of images
    all_images = np.random.default_rng(9).normal(0, math.hypot(2, spread), 400_000)
    logits = {100: 0.5, 1000: 1.5, 10_000: 2.5}
    truth = labels_needed(list(logits), np.array([accuracy(logit) for logit in logits.values()]), accuracy(1.2))
    rng, covered = np.random.default_rng(0), 0
    for i in range(200):
        hard = rng.normal(0, 2, 400)
        ours = tries(rng, seeds, 400, 1.2, spread, hard)
        others = {n: tries(rng, seeds, 400, logit, spread, hard) for n, logit in logits.items()}
        found = label_savings(ours, others, 50, seed=i)
        covered += found.low <= truth <= found.high
        assert found.low <= found.needed <= found.high
    assert 184 <= covered < 200


def test_label_savings_of_one_point_have_students_interval():
    """On a curve that is a straight line over the logarithm, with images that are all alike but for the seeds."""
    images = 20_000
    shares = np.array([0.50, 0.52, 0.55, 0.49])
    ours = np.zeros((4, images))
    for row, share in zip(ours, shares, strict=True):
        row[: round(share * images)] = 1
    line = {n: np.tile(np.arange(images) < share * images, (4, 1)) for n, share in ((1, 0.0), (10_000, 1.0))}
    found = label_savings(ours, line, 50)
    low, high = scipy_stats.t.interval(0.95, 3, shares.mean(), scipy_stats.sem(shares))
    assert math.log(found.needed, 10_000) == pytest.approx(shares.mean())
    # The images of the sample add a little: the standard error by them is 0.0035, by the seeds 0.0132
    assert math.log(found.low, 10_000) == pytest.approx(low, abs=0.006)
    assert math.log(found.high, 10_000) == pytest.approx(high, abs=0.006)


def test_label_savings_know_their_limits():
    low, high = np.zeros((1, 100)), np.ones((1, 100))
    better = label_savings(high, {10: low, 100: low}, 10)
    assert (better.needed, better.low, better.high) == (math.inf, math.inf, math.inf)
    worse = label_savings(low, {10: high, 100: high}, 10)
    assert (worse.needed, worse.low, worse.high, worse.least, worse.most) == (10, 10, 10, 10, 100)


def curves(rng, seeds, draws, images, hard=None):
    """Ours, and the others by number of labels, seeds x draws x images."""
    hard = rng.normal(0, 2, images) if hard is None else hard

    def right(easy):
        return tries(rng, seeds * draws, len(hard), easy, 0.1, hard).reshape(seeds, draws, -1)

    return right(1.2), {100: right(0.5), 1000: right(1.5), 10_000: right(2.5)}


def test_label_savings_of_images_that_are_copies_count_them_once():
    ours, others = curves(np.random.default_rng(0), 1, 1, 300)
    once = label_savings(ours, others, 50)
    many = {n: values.repeat(4, 2) for n, values in others.items()}
    again = label_savings(ours.repeat(4, 2), many, 50, Design(np.arange(300).repeat(4)))
    assert vars(again) == pytest.approx(vars(once), rel=1e-6)
    naive = label_savings(ours.repeat(4, 2), many, 50)
    assert naive.high / naive.low < (once.high / once.low) ** 0.7


@pytest.mark.parametrize(("draws", "n_folds"), [(1, 0), (3, 0), (3, 5)])
def test_label_savings_with_groups_cover_the_truth_in_simulation(draws, n_folds):
    all_images = np.random.default_rng(9).normal(0, 2, 400_000)
    shares = [(1 / (1 + np.exp(-(logit + all_images)))).mean() for logit in (0.5, 1.5, 2.5, 1.2)]
    truth = labels_needed([100, 1000, 10_000], np.array(shares[:3]), np.array(shares[3]))
    rng, covered = np.random.default_rng(1), []
    for i in range(100):
        ours, others = curves(rng, 1, draws, 0, hard=rng.normal(0, 2, 80).repeat(5))
        found = label_savings(ours, others, 50, Design(np.arange(80).repeat(5), n_folds), seed=i)
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= 0.9


def test_label_savings_by_cross_validation_are_less_sure():
    ours, others = curves(np.random.default_rng(2), 1, 5, 400)
    split, folds = (label_savings(ours, others, 50, Design(n_folds=n)) for n in (0, 5))
    single = label_savings(ours[:, :1], {n: values[:, :1] for n, values in others.items()}, 50)
    assert folds.needed == split.needed
    ratio = math.log(folds.high / folds.low) / math.log(single.high / single.low)
    assert ratio == pytest.approx(1.45**0.5, rel=0.25)


def test_label_savings_use_the_draws_that_all_have_and_seeds_x_images():
    rng = np.random.default_rng(3)
    ours, others = curves(rng, 2, 3, 100)
    others[1000] = others[1000][:, :1]
    first = {n: values[:, 0] for n, values in others.items()}
    assert label_savings(ours, others, 50) == label_savings(ours[:, 0], first, 50)


def test_label_savings_of_few_images_are_never_sure():
    high, low = np.ones((1, 1, 12)), np.zeros((1, 1, 12))
    one = label_savings(high, {10: low, 100: high}, 10, Design(np.zeros(12, int)))
    assert (one.low, one.high) == (10, math.inf)
    alike = label_savings(high, {10: high, 100: high}, 10)
    assert alike.needed == 10
    assert alike.high > 10
