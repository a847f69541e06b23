"""How far the probabilities of a classifier can be believed, and how well they rank."""

import math

import numpy as np


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error in percent, over equal bins of the largest probability (1706.04599, section 2)."""
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    # The bins are open on the left, as in the paper
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=right - sure.astype(float), minlength=bins)
    return float(100 * np.abs(gaps).sum() / len(labels))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that logits, N x classes, are to be divided by for the least cross entropy (1706.04599); 1 if all
    are right, as those of few images may be: then the cross entropy falls without end as the temperature does."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    if (logits.argmax(1) == labels).all():
        return 1.0

    def cross_entropy(log_temperature: float) -> float:
        scaled = log_softmax(logits / math.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    return math.exp(minimize_scalar(cross_entropy, bounds=(-4, 4), method="bounded").x)


def macro_auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve, each class against the rest, averaged over the classes that occur; in percent."""
    from sklearn.metrics import roc_auc_score

    occurring = [c for c in np.unique(labels) if 0 < (labels == c).sum() < len(labels)]
    if not occurring:
        return math.nan
    return 100 * float(np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in occurring]))
