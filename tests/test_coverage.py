"""Simulated data sets, of which the truth is known: 95 % intervals have to hold it about as often as they say.

Two classes of normally distributed features are told apart by a regularised linear discriminant, whose accuracy on all
images there might be is a closed formula. Images of a group have most of their features' noise in common.
"""

import numpy as np
import pytest
from scipy.stats import norm

from contrastive.evaluation.per_image import balanced_accuracy_values, macro_auc_values
from contrastive.evaluation.statistics import Design, interval, paired_difference

SETS, DIMS, ALIKE = 300, 10, 0.9
MEANS = np.stack([np.full(DIMS, side * 1.1 / DIMS**0.5) for side in (-1, 1)])


def draw(rng, n, per_group=1, share=0.5):
    """Features, labels and groups of n images."""
    group = np.repeat(np.arange(n // per_group), per_group)
    labels = (rng.permutation(n // per_group) < round(share * n // per_group)).astype(int)[group]
    alike = ALIKE if per_group > 1 else 0
    shared, own = rng.normal(size=(n // per_group, DIMS))[group], rng.normal(size=(n, DIMS))
    return MEANS[labels] + alike**0.5 * shared + (1 - alike) ** 0.5 * own, labels, group


def fit(x, y, ridge=0.3, dims=DIMS):
    """Weights and offset, of the first features only if so asked."""
    means = np.stack([x[y == c].mean(0) for c in (0, 1)])
    residual = (x - means[y])[:, :dims]
    covariance = residual.T @ residual / len(x)
    covariance = (1 - ridge) * covariance + ridge * np.trace(covariance) / dims * np.eye(dims)
    w = np.zeros(DIMS)
    w[:dims] = np.linalg.solve(covariance, (means[1] - means[0])[:dims])
    return w, -w @ means.mean(0)


def right(model, x, y):
    return ((x @ model[0] + model[1] > 0) == y).astype(float)


def accuracy(model):
    """On all images there might be, of equally many of both classes."""
    margins = (MEANS @ model[0] + model[1]) / np.linalg.norm(model[0])
    return norm.cdf(np.array([-1, 1]) * margins).mean()


def covering(found, truth, factor=1.0):
    return factor * found.low <= truth <= factor * found.high


def check(covered, least=0.90):
    """As often as asked; and not always, or the test would hold for endless intervals."""
    assert least <= np.mean(covered) < 1


@pytest.mark.parametrize("n", [30, 100, 1000])
def test_a_test_split(n):
    rng, covered = np.random.default_rng(0), []
    for _ in range(SETS):
        model = fit(*draw(rng, 60)[:2])
        x, y, _ = draw(rng, n)
        covered.append(covering(interval(right(model, x, y)[None, None]), accuracy(model)))
    check(covered, 0.92)


@pytest.mark.parametrize(("n", "per_group"), [(100, 5), (500, 10)])
def test_a_test_split_with_groups(n, per_group):
    rng, covered, naively = np.random.default_rng(1), [], []
    for _ in range(SETS):
        model = fit(*draw(rng, 60)[:2])
        x, y, group = draw(rng, n, per_group)
        values = right(model, x, y)[None, None]
        covered.append(covering(interval(values, Design(group)), accuracy(model)))
        naively.append(covering(interval(values), accuracy(model)))
    check(covered)
    assert np.mean(naively) < 0.8


@pytest.mark.parametrize("metric", ["balanced", "auc"])
def test_other_metrics_than_accuracy_of_uneven_classes(metric):
    values_of = {"balanced": balanced_accuracy_values, "auc": macro_auc_values}[metric]
    rng, covered = np.random.default_rng(2), []
    for _ in range(SETS):
        model = w, b = fit(*draw(rng, 60)[:2])
        x, y, group = draw(rng, 300, 3, share=0.2)
        scores = np.stack([-x @ w - b, x @ w + b], 1)
        auc = norm.cdf((MEANS[1] - MEANS[0]) @ w / (2**0.5 * np.linalg.norm(w)))
        truth = auc if metric == "auc" else accuracy(model)
        covered.append(covering(interval(values_of(scores, y)[None, None], Design(group)), truth))
    check(covered)


def cross_validated(rng, n, per_group, repeats=5, n_folds=5, **other):
    """Values of 1 x repeats x images, of the discriminant and of another; what their folds' accuracies are on average;
    that of one fitted to all; and the groups."""
    x, y, group = draw(rng, n, per_group)
    values, true = np.zeros((2, 1, repeats, n)), []
    of_group = y[::per_group]
    for repeat in range(repeats):
        fold = np.empty(len(of_group), int)
        fold[np.lexsort((rng.random(len(of_group)), of_group))] = np.arange(len(of_group)) % n_folds
        for k in range(n_folds):
            held = fold[group] == k
            models = fit(x[~held], y[~held]), fit(x[~held], y[~held], **other)
            for arm, model in enumerate(models):
                values[arm, 0, repeat, held] = right(model, x[held], y[held])
            true.append([accuracy(model) for model in models])
    return values, np.mean(true, 0), accuracy(fit(x, y)), group


@pytest.mark.parametrize("per_group", [1, 5])
@pytest.mark.parametrize("repeats", [1, 5])
def test_cross_validation_with_few_labels(per_group, repeats):
    rng, found, naive, folds, full = np.random.default_rng(3), [], [], [], []
    for _ in range(SETS):
        values, true, of_all, group = cross_validated(rng, 60, per_group, repeats)
        groups = group if per_group > 1 else np.zeros(0, int)
        found.append(interval(values[0], Design(groups, 5)))
        naive.append(interval(values[0]))
        folds.append(true[0])
        full.append(of_all)
    expected = np.mean(folds)  # of any 48 labels, which is what cross-validation is known to measure best
    for truth in (folds, full, [expected] * SETS):
        assert np.mean([covering(own, true) for own, true in zip(found, truth, strict=True)]) >= 0.90
    if per_group > 1:
        assert np.mean([covering(own, expected) for own in naive]) < 0.8
    # Not so wide that they say nothing: less than twice as wide as they might be
    needed = 2 * 1.96 * np.std([own.mean - expected for own in found])
    assert np.mean([own.high - own.low for own in found]) < 2 * needed


def test_a_difference_by_cross_validation():
    rng, found, true = np.random.default_rng(4), [], []
    for _ in range(SETS // 2):
        values, of_folds, _, _ = cross_validated(rng, 60, 1, dims=2)
        found.append(paired_difference(*values, Design(n_folds=5)))
        true.append(of_folds[0] - of_folds[1])
    assert np.mean(true) > 0.1
    assert np.mean([covering(own, np.mean(true), 0.01) for own in found]) >= 0.92
    assert np.mean([own.p < 0.05 for own in found]) > 0.2  # and differences are found


@pytest.mark.parametrize("kind", ["seeds", "draws"])
@pytest.mark.parametrize(("rows", "n", "per_group"), [(5, 200, 1), (3, 200, 5), (5, 2000, 1)])
def test_several_seeds_or_draws(kind, rows, n, per_group):
    """Each seed, or draw, is a classifier that was fitted to 20 labels of its own."""
    rng, covered, of_images = np.random.default_rng(5), [], []
    truth = np.mean([accuracy(fit(*draw(rng, 20)[:2])) for _ in range(5000)])
    for _ in range(SETS):
        x, y, group = draw(rng, n, per_group)
        values = np.stack([right(fit(*draw(rng, 20)[:2]), x, y) for _ in range(rows)])
        values = values[:, None] if kind == "seeds" else values[None]
        design = Design(group if per_group > 1 else np.zeros(0, int))
        covered.append(covering(interval(values, design), truth))
        of_images.append(covering(interval(values.mean((0, 1), keepdims=True), design), truth))
    check(covered)
    if n == 2000:  # the images alone are not all that is drawn
        assert np.mean(of_images) < 0.8
