"""Metrics as values of judged images: one number for each image, whose mean is the metric and whose deviations from it
are the images' influences on it. So means, differences, and their variances over images or groups are all alike."""

from __future__ import annotations

import numpy as np

# Scores or probabilities are float N x classes, higher is more likely; labels are int64 N. All values are float64 N.


def accuracy_values(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the accuracy: 1 for each image whose largest score is at its label, else 0."""
    return (scores.argmax(1) == labels).astype(np.float64)


def balanced_accuracy_values(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the balanced accuracy: the mean recall of the classes that occur."""
    right = accuracy_values(scores, labels)
    occurring, own, counts = np.unique(labels, return_inverse=True, return_counts=True)
    recall = np.bincount(own, weights=right) / counts
    weight = len(labels) / (len(occurring) * counts)
    return recall.mean() + weight[own] * (right - recall[own])


def macro_auc_values(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the macro AUC: the area under the ROC curve of each class against the rest, averaged over the classes that
    occur. nan where it is not defined, since all images are of one class."""
    return multilabel_auc_values(scores, labels[:, None] == np.arange(scores.shape[1]))


def multilabel_auc_values(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the area under the ROC curve, averaged over labels that some images have and some have not.

    Args:
        scores: float N x L.
        labels: 0 or 1, N x L.

    Returns:
        float64 N; nan if no label is so.
    """
    present = np.asarray(labels) != 0
    usable = np.flatnonzero(present.any(0) & ~present.all(0))
    return _mean_of([_auc_values(scores[:, at], present[:, at]) for at in usable], len(scores))


def average_precision_values(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the mean average precision, over labels that some images have.

    Args:
        scores: float N x L.
        labels: 0 or 1, N x L.

    Returns:
        float64 N; nan if no image has any label.
    """
    present = np.asarray(labels) != 0
    usable = np.flatnonzero(present.any(0))
    return _mean_of([_precision_values(scores[:, at], present[:, at]) for at in usable], len(scores))


def _mean_of(values: list[np.ndarray], n: int) -> np.ndarray:
    return np.mean(values, axis=0) if values else np.full(n, np.nan)


def _auc_values(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Of one class. An image's placement is the share of the other side's images that it is on the right side of, ties
    counting half; the AUC is the mean placement of either side (DeLong et al. 1988)."""
    from scipy.stats import rankdata

    n, n_positive = len(scores), int(positive.sum())
    # Its rank among all, less that among its own side, is how many of the other side are below it
    below = rankdata(scores)
    for side in (positive, ~positive):
        below[side] -= rankdata(scores[side])
    placement = np.where(positive, below / (n - n_positive), 1 - below / n_positive)
    auc = placement[positive].mean()
    return auc + np.where(positive, n / n_positive, n / (n - n_positive)) * (placement - auc)


def _precision_values(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Of one label. Average precision is the mean, over the images that have the label, of the precision among those
    that score at least as high. The influence is its derivative by an image's weight: through its own term, and through
    the precision at each image that has the label and scores no higher."""
    n, n_positive = len(scores), int(positive.sum())
    order = np.argsort(scores, kind="stable")
    ranked, has = scores[order], positive[order]
    first = np.searchsorted(ranked, ranked)  # of those that tie: all from here on score at least as high
    past_last = np.searchsorted(ranked, ranked, side="right")
    among = n - first
    found = has[::-1].cumsum()[::-1][first]
    precision = found / among
    mean = precision[has].mean()
    gained = np.where(has, (1 - precision) / among, 0.0).cumsum()[past_last - 1]
    lost = np.where(has, precision / among, 0.0).cumsum()[past_last - 1]
    influence = np.where(has, precision - mean + gained, -lost) / n_positive
    values = np.empty(n)
    values[order] = mean + n * influence
    return values
