"""Folds of the labelled images, where there are too few to set some apart to test on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .held_out import grouped_fold
from .images import Images

FOLDS, LEAST_LABELS = 5, 8
REPEATS = ((500, 5), (2000, 2))  # up to so many labels, so often; of more, one division is as good as another
LEAST_TO_CHOOSE = 50  # labels: a fifth of fewer would say little


@dataclass(frozen=True)
class Fold:
    """A part of the labelled images that is held out, and the others, on which classifiers are trained.

    train: int64 indices of training images, in an order in which every prefix is a budget. held: int64 places, among
    the labelled images, of those held out. labels, groups: int64, of the images in `train`; groups may be empty.
    """

    train: Tensor
    held: Tensor
    labels: np.ndarray
    groups: np.ndarray
    seed: int

    def budget(self, n: int) -> tuple[Tensor, Tensor]:
        """Indices of n labels: those to fit on and, a fifth of them, whole groups, those to choose with; of fewer than
        LEAST_TO_CHOOSE none."""
        chosen = np.zeros(n, dtype=bool)
        if n >= LEAST_TO_CHOOSE:
            rng = np.random.default_rng([self.seed, n])
            groups = self.groups[:n] if len(self.groups) else np.arange(n)
            chosen[grouped_fold(self.labels[:n], groups, rng)] = True
        some = torch.from_numpy(chosen)
        return self.train[:n][~some], self.train[:n][some]


def n_folds(images: Images) -> int:
    """Into how many folds the labelled images are divided: five, or as many as the class with the most images, or
    groups, has of them. Fewer than two mean that nothing can be cross-validated."""
    labels = images.train_labels[images.labelled].numpy()
    counts = np.bincount(labels)
    if len(images.groups):
        pairs = np.unique(np.stack([labels, images.groups[images.labelled].numpy()]), axis=1)
        counts = np.bincount(pairs[0])
    # Held out whole, a class leaves nothing to learn it from: two classes are needed that are not.
    return int(min(FOLDS, counts.max(initial=0))) if (counts >= 2).sum() >= 2 else 0


def n_repeats(images: Images) -> int:
    """How often the labelled images are divided anew: which of few images come together changes an accuracy."""
    return next((times for most, times in REPEATS if images.n_labels <= most), 1)


def most_labels(images: Images, seeds: Sequence[int]) -> int:
    """The most labels that every fold can train on, with any of the seeds: the largest budget of cross-validation."""
    return min(
        len(fold.train) for seed in seeds for repeat in range(n_repeats(images)) for fold in folds(images, seed, repeat)
    )


def folds(images: Images, seed: int, repeat: int, balanced: bool = True) -> list[Fold]:
    """The labelled images in folds: classes alike in each, as nearly as can be, and groups whole.

    Args:
        images: of which data set; `n_folds` has to be at least 2.
        seed, repeat: another one divides them anew.
        balanced: whether prefixes of a fold's training images are balanced over classes, or drawn at random.

    Returns:
        The folds. Each labelled image is held out once.
    """
    index = images.labelled.numpy()
    labels = images.train_labels.numpy()[index]
    groups = images.groups.numpy()[index] if len(images.groups) else np.zeros(0, dtype=np.int64)
    rng = np.random.default_rng([seed, 0xF01D, repeat])
    return divided(index, labels, groups, n_folds(images), rng, seed, balanced)


def divided(
    index: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    n: int,
    rng: np.random.Generator,
    seed: int,
    balanced: bool,
) -> list[Fold]:
    """Images, int64 indices with their labels and, if not empty, groups, in n folds; see `folds`."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow to import

    kind = StratifiedGroupKFold if len(groups) else StratifiedKFold
    divide = kind(n, shuffle=True, random_state=int(rng.integers(2**31)))
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer images than folds: some folds are without them
        for train, held in divide.split(labels, labels, groups if len(groups) else None):
            order = balanced_order(labels[train], rng)[0] if balanced else rng.permutation(len(train))
            own = train[order]
            parts = torch.from_numpy(index[own]), torch.from_numpy(held)
            found.append(Fold(*parts, labels[own], groups[own] if len(groups) else groups, seed))
    return [fold for fold in found if len(fold.held)]


def balanced_order(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random order of all indices in which every prefix is balanced, as long as no class runs out; and for each, in
    this order, its place within its class, from 0."""
    shuffled = rng.permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)
    for c in np.unique(labels):
        of_class = np.flatnonzero(labels[shuffled] == c)
        turn[of_class] = np.arange(len(of_class))
    order = np.lexsort((rng.random(len(labels)), turn))  # of those with the same turn a random one
    return shuffled[order], turn[order]
