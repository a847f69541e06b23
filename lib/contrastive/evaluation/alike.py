"""Whether a cross-validated result stands when images that look alike are held out together."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..data.folding import Fold, divided

APART = "linear_apart"  # what the linear probe is called, when images that look alike are held out together
TOGETHER = 5  # images, on average
LEAST = 4 * TOGETHER  # images of each class: of fewer, hardly any would be left to learn it from
MOST = 5000  # images: of more, all distances do not fit the memory


def clusters(features: Tensor, labels: Tensor, size: int = TOGETHER) -> np.ndarray:
    """A number for each image, int64 N, equal for images of one class that look alike, so many of them on average.

    By agglomerative clustering of each class with complete linkage of cosine distances: what is nearest is joined
    first, so near-duplicates come together however many there are of each, and no cluster takes in most of a class.

    Args:
        features: float32 N x D.
        labels: int64 N. Classes are divided each for itself: held out whole, none could be recognised.
        size: images of a cluster, on average.
    """
    from sklearn.cluster import AgglomerativeClustering  # slow to import

    x, known = F.normalize(features.cpu().double(), dim=1).numpy(), labels.cpu().numpy()
    found, n = np.empty(len(x), dtype=np.int64), 0
    for c in np.unique(known):
        own = known == c
        n_clusters = max(int(own.sum()) // size, 1)
        found[own] = n
        if n_clusters > 1:
            found[own] += AgglomerativeClustering(n_clusters, metric="cosine", linkage="complete").fit_predict(x[own])
        n += n_clusters
    return found


def apart(features: Tensor, labels: Tensor, index: Tensor, n_folds: int, seed: int) -> list[Fold]:
    """Folds of labelled images that hold out images that look alike together.

    Args:
        features: float32 N x D, of the labelled images.
        labels: int64 N; see `can_be_told`.
        index: int64 N, which training images they are.
        n_folds: at most so many.
        seed: of the folds.
    """
    kinds, rng = clusters(features, labels), np.random.default_rng([seed, 0xA11CE])
    n = min(n_folds, int(labels.bincount().max()) // TOGETHER)
    return divided(index.numpy(), labels.numpy(), kinds, n, rng, seed, True)


def can_be_told(labels: Tensor) -> bool:
    """Whether there are images enough of each class, int64 N, and not too many, to look at what is alike."""
    counts = labels.bincount()
    return len(labels) <= MOST and bool((counts[counts > 0] >= LEAST).all())
