"""Metrics as values of images: their means against scikit-learn's, their deviations against plain definitions."""

import time

import numpy as np
import pytest
from sklearn import metrics

from contrastive.evaluation.per_image import (
    accuracy_values,
    balanced_accuracy_values,
    macro_auc_values,
)

N, CLASSES = 90, 4


@pytest.fixture(params=["distinct", "tied"])
def case(request):
    """Scores N x classes and labels N, of which class 2 does not occur and class 3 is rare."""
    rng = np.random.default_rng(5)
    labels = rng.choice([0, 1, 3], N, p=[0.5, 0.4, 0.1])
    scores = rng.normal(size=(N, CLASSES)) + 1.2 * np.eye(CLASSES)[labels]
    return (np.round(scores) if request.param == "tied" else scores), labels


def reference(name, scores, labels, weight=None):
    """The metric by scikit-learn, of weighted images."""
    if name == "accuracy":
        return metrics.accuracy_score(labels, scores.argmax(1), sample_weight=weight)
    if name == "balanced":
        return metrics.recall_score(
            labels, scores.argmax(1), labels=np.unique(labels), average="macro", sample_weight=weight
        )
    columns = labels[:, None] == np.arange(scores.shape[1])
    usable = [at for at in range(columns.shape[1]) if columns[:, at].any()]
    return np.mean([metrics.roc_auc_score(columns[:, at], scores[:, at], sample_weight=weight) for at in usable])


SINGLE = [("accuracy", accuracy_values), ("balanced", balanced_accuracy_values), ("auc", macro_auc_values)]


def check(name, values_of, scores, labels):
    """The mean is the metric; deviations are N times its derivative by each image's weight, as scikit-learn has it."""
    values = values_of(scores, labels)
    assert values.shape == (N,)
    assert values.dtype == np.float64
    assert values.mean() == pytest.approx(reference(name, scores, labels), abs=1e-9)
    step, found = 1e-4, []
    for i in range(N):
        up, down = (reference(name, scores, labels, 1 + sign * step * (np.arange(N) == i)) for sign in (1, -1))
        found.append((up - down) / (2 * step))
    assert np.ptp(values) > 0.5  # not all alike
    assert values - values.mean() == pytest.approx(N * np.array(found), abs=1e-6)


@pytest.mark.parametrize(("name", "values_of"), SINGLE)
def test_of_single_labels(case, name, values_of):
    check(name, values_of, *case)


def test_they_are_what_scikit_learn_calls_by_these_names(case):
    scores, labels = case
    balanced = metrics.balanced_accuracy_score(np.append(labels, 2), np.append(scores.argmax(1), 2))
    with_all = np.vstack([scores, 99 * np.eye(CLASSES)[2]]), np.append(labels, 2)
    assert balanced_accuracy_values(*with_all).mean() == pytest.approx(balanced, abs=1e-9)
    probabilities = np.exp(with_all[0] - with_all[0].max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    auc = metrics.roc_auc_score(with_all[1], probabilities, multi_class="ovr", average="macro")
    assert macro_auc_values(probabilities, with_all[1]).mean() == pytest.approx(auc, abs=1e-9)


def placements(scores, positive):
    """DeLong's, by a plain double loop: of each image against each of the other side."""
    found = np.zeros(len(scores))
    for i in range(len(scores)):
        others = [scores[j] for j in range(len(scores)) if positive[j] != positive[i]]
        sign = 1 if positive[i] else -1
        wins = [1.0 if sign * (scores[i] - other) > 0 else 0.5 if scores[i] == other else 0.0 for other in others]
        found[i] = sum(wins) / len(others)
    return found


def test_the_variance_of_an_auc_is_delongs(case):
    scores, labels = case[0][:, :2], np.minimum(case[1], 1)
    margin = scores[:, 1] - scores[:, 0]
    placed, positive = placements(margin, labels == 1), labels == 1
    n1, n0 = positive.sum(), (~positive).sum()
    delong = placed[positive].var(ddof=1) / n1 + placed[~positive].var(ddof=1) / n0
    values = macro_auc_values(scores - scores[:, ::-1], labels)  # of two classes, both have the same
    deviations = values - values.mean()
    ours = sum((deviations[side] ** 2).sum() / N**2 * side.sum() / (side.sum() - 1) for side in (positive, ~positive))
    assert ours == pytest.approx(delong, rel=1e-9)
    auc = metrics.roc_auc_score(positive, margin)
    assert values[positive] == pytest.approx(auc + N / n1 * (placed[positive] - auc))


@pytest.mark.parametrize(("name", "values_of"), SINGLE)
def test_the_variance_is_that_of_the_jackknife(case, name, values_of):
    """Leaving out one image at a time, with scikit-learn's metric. Of a class of few images the jackknife has a little
    more: its images are divided by one less than there are."""
    scores, labels = case
    left = np.array([reference(name, np.delete(scores, i, 0), np.delete(labels, i)) for i in range(N)])
    jackknife = (N - 1) / N * ((left - left.mean()) ** 2).sum()
    assert values_of(scores, labels).var(ddof=1) / N == pytest.approx(
        jackknife, rel=1e-9 if name == "accuracy" else 0.25
    )


def test_where_nothing_is_defined_there_is_no_number():
    scores = np.random.default_rng(0).normal(size=(6, 3))
    assert np.isnan(macro_auc_values(scores, np.zeros(6, int))).all()


def test_many_images_of_many_classes_take_little_time():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(10_000, 100)), rng.integers(0, 100, 10_000)
    start = time.perf_counter()
    values = macro_auc_values(scores, labels)
    seconds = time.perf_counter() - start
    assert seconds < 10
    assert abs(values.mean() - 0.5) < 0.02
