"""Whether a cross-validated result stands when images that look alike are held out together."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..data.folding import Fold, divided

APART = "linear_apart"  # what the linear probe is called, when images that look alike are held out together
TOGETHER = 5  # images, on average
MOST = 5000  # images: of more, all distances do not fit the memory


def clusters(features: Tensor, size: int = TOGETHER) -> np.ndarray:
    """A number for each image, int64 N, equal for images that look alike, so many of them on average.

    By agglomerative clustering with average linkage of cosine distances: what is nearest is joined first, so
    near-duplicates come together however many there are of each.

    Args:
        features: float32 N x D.
        size: images of a cluster, on average.
    """
    from sklearn.cluster import AgglomerativeClustering  # slow to import

    x = F.normalize(features.cpu().double(), dim=1).numpy()
    n_clusters = max(len(x) // size, 2)
    return AgglomerativeClustering(n_clusters, metric="cosine", linkage="average").fit_predict(x).astype(np.int64)


def apart(features: Tensor, labels: Tensor, index: Tensor, n_folds: int, seed: int) -> list[Fold]:
    """Folds of labelled images that hold out images that look alike together.

    Args:
        features: float32 N x D, of the labelled images.
        labels: int64 N.
        index: int64 N, which training images they are.
        n_folds: at most so many.
        seed: of the folds.
    """
    kinds = clusters(features)
    most = max(len(np.unique(kinds[labels.numpy() == c])) for c in labels.unique().tolist())
    n = min(n_folds, most)
    if n < 2:
        return []
    return divided(index.numpy(), labels.numpy(), kinds, n, np.random.default_rng([seed, 0xA11CE]), seed, True)


def can_be_told(n_images: int) -> bool:
    """Whether there are images enough, and not too many, to look at what is alike."""
    return 10 * TOGETHER <= n_images <= MOST
