"""How classifiers are judged, by a test split or by cross-validation: on which images, and by which labels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..data import Images, Splits, folds, n_folds, n_repeats, split
from ..data.folding import LEAST_TO_CHOOSE
from ..settings import Settings
from .statistics import Design


@dataclass(frozen=True)
class Task:
    """What one classifier may use, and what it is judged on.

    fit, choose: int64 indices of training images, to fit and to choose a penalty with. judged: int64 places among the
    judged images.
    """

    fit: Tensor
    choose: Tensor
    judged: Tensor

    @property
    def labels(self) -> Tensor:
        """Indices of all of its labels."""
        return torch.cat([self.fit, self.choose])


@dataclass
class Judging:
    """How classifiers are judged.

    pixels, labels, groups: of the judged images, uint8, int64 and int64 (empty where there are no groups). names: of
    their files. index: int64, which training images they are; empty where they are test images. n_folds: of
    cross-validation, 0 for a test split.
    """

    images: Images
    settings: Settings
    pixels: Tensor
    labels: Tensor
    groups: Tensor
    names: tuple[str, ...]
    index: Tensor
    n_folds: int
    _tasks: dict[int, list[list[Task]]] = field(default_factory=dict)

    @property
    def design(self) -> Design:
        """What intervals have to know of it."""
        return Design(self.groups.numpy(), self.n_folds)

    def tasks(self, n: int) -> list[list[Task]]:
        """For each draw of n labels (with cross-validation, each repeat), the classifiers that together judge every
        image once."""
        if n not in self._tasks:
            self._tasks[n] = self._folded(n) if self.n_folds else self._drawn(n)
        return self._tasks[n]

    def _folded(self, n: int) -> list[list[Task]]:
        seed, balanced = self.settings.runtime.seed, self.settings.evaluation.budget_draw == "balanced"
        return [
            [Task(*fold.budget(n), fold.held) for fold in folds(self.images, seed, repeat, balanced)]
            for repeat in range(n_repeats(self.images))
        ]

    def _drawn(self, n: int) -> list[list[Task]]:
        # Of more than a tenth of all labels, two draws would hold much the same.
        draws = self.settings.evaluation.label_draws if n <= self.images.n_labels // 10 else 1
        everything = torch.arange(len(self.labels))
        return [[Task(*self.splits(draw).budget(n), everything)] for draw in range(draws)]

    def every_label(self, most: int) -> tuple[Tensor, Tensor]:
        """Indices of all labelled training images, or of `most` of them: to fit on and to choose with."""
        if not self.n_folds:
            return self.splits().budget(min(self.images.n_labels, most))
        seed = self.settings.runtime.seed
        n = min(most, self.images.n_labels)
        if n < LEAST_TO_CHOOSE:
            return self.index[:n], self.index[:0]
        first = folds(self.images, seed, 0)[0]  # one fold is about a fifth, with whole groups
        order = torch.randperm(len(first.held), generator=torch.Generator().manual_seed(seed))  # files may lie by class
        held = self.index[first.held[order]]
        if n == self.images.n_labels:
            return first.train, held
        return first.train[: n - n // 5], held[: n // 5]

    def sample(self, n: int) -> Tensor:
        """Rising int64 places of n judged images, or of all, the same every time."""
        order = np.random.default_rng(0x7E57).permutation(len(self.labels))
        return torch.from_numpy(np.sort(order[:n]))

    def splits(self, draw: int = 0) -> Splits:
        """Which training images serve for what, with that draw of labels."""
        own = self.settings
        balanced = own.evaluation.budget_draw == "balanced"
        return split(self.images, own.data.n_images or 0, own.runtime.seed, draw, balanced)


def how_judged(images: Images, settings: Settings) -> Judging:
    """How classifiers are judged on these images: on the test images where they have labels; else on all labelled
    images, each by the classifiers of the folds that it was held out of."""
    if not images.cross_validated:
        nothing = torch.zeros(0, dtype=torch.int64)
        return Judging(
            images, settings, images.test, images.test_labels, images.test_groups, images.test_names, nothing, 0
        )
    index = images.labelled
    groups = images.groups[index] if len(images.groups) else images.groups
    names = tuple(np.array(images.train_names, dtype=object)[index.numpy()]) if images.train_names else ()
    return Judging(
        images, settings, images.train[index], images.train_labels[index], groups, names, index, n_folds(images)
    )
