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
    occurring = np.unique(labels)
    if len(occurring) < 2:
        return np.full(len(labels), np.nan)
    return np.mean([_auc_values(scores[:, c], labels == c) for c in occurring], axis=0)


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
