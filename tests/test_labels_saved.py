import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from contrastive.evaluation.labels_saved import label_savings, labels_needed

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
