"""Which images may be used for what, and which labels a budget holds."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..settings import UserError
from .images import Images

LEAST_TO_CHOOSE = 50  # labels: a fifth of fewer would say little


@dataclass(frozen=True)
class Splits:
    """Which training images are used for what, as int64 indices drawn by seed; the test images stay apart.

    pretrain: the unlabelled images. validation: never pretrained on, of each class about a fifth at most; its
    prefixes are balanced over classes. rest: all other training images, among them those pretrained on; its prefixes
    are balanced too. Balanced means: as long as no class runs out.
    """

    pretrain: Tensor
    validation: Tensor
    rest: Tensor
    n_classes: int

    def budget(self, n: int) -> tuple[Tensor, Tensor]:
        """Indices of the n labels of a budget: those to fit on and, a fifth of them, those to choose with.

        Balanced, and nested: a larger budget holds every smaller one. Only the second part is guaranteed
        never to have been pretrained on. Of fewer than LEAST_TO_CHOOSE labels, or five of each class, none is spared to
        choose with; such a budget is within a larger one if that has a quarter more.
        """
        rounds = n // 5 // self.n_classes if n >= LEAST_TO_CHOOSE else 0  # whole ones, or some class would be left out
        n_choose = max(min(rounds * self.n_classes, len(self.validation)), n - len(self.rest))
        return self.rest[: n - n_choose], self.validation[:n_choose]


def split(images: Images, n_images: int, seed: int, draw: int = 0) -> Splits:
    """Draw by seed the validation images and, from the others, the unlabelled ones. Raises: UserError.

    draw: another one gives the same three sets, with label budgets that are drawn anew from them.
    """
    rng = np.random.default_rng([seed, 0x5EED])
    labels = images.train_labels.numpy()
    order, turn = _balanced_order(labels, rng)
    n_validation = n_validation_images(images)
    validation = order[turn < _spared(labels)[labels[order]]][:n_validation]
    kept = ~np.isin(order, validation)
    # Balanced again: the turns of each class are counted from the first of its images that is left.
    turn -= np.bincount(labels[validation], minlength=labels.max() + 1)[labels[order]]
    rest = order[kept][np.argsort(turn[kept], kind="stable")]
    if n_images > len(rest):
        raise UserError(
            f"parameter n_images={n_images}: {images.name} has {len(rest):,} training images beside the "
            f"{n_validation:,} kept for validation. Ask for at most {len(rest)}."
        )
    pretrain = rng.permutation(rest)[:n_images]  # without a look at the labels
    if draw > 0:
        rng = np.random.default_rng([seed, 0xD4A3, draw])
        validation, rest = (part[_balanced_order(labels[part], rng)[0]] for part in (validation, rest))
    return Splits(torch.from_numpy(pretrain), torch.from_numpy(validation), torch.from_numpy(rest), len(images.classes))


def n_validation_images(images: Images) -> int:
    """A fifth of the training images, at most 5,000 and what each class can spare, in whole rounds of the classes."""
    n = min(5000, len(images.train) // 5, int(_spared(images.train_labels.numpy()).sum()))
    return n // len(images.classes) * len(images.classes)


def _spared(labels: np.ndarray) -> np.ndarray:
    """How many images of each class may serve for validation: a fifth, rounded up, and never the last. If each gave
    equally many, a rare class would be used up."""
    count = np.bincount(labels)
    return np.maximum(np.minimum(-(-count // 5), count - 1), 0)


def _balanced_order(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random order of all indices in which every prefix is balanced, as long as no class runs out; and for each, in
    this order, its place within its class, from 0."""
    shuffled = rng.permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)
    for c in np.unique(labels):
        of_class = np.flatnonzero(labels[shuffled] == c)
        turn[of_class] = np.arange(len(of_class))
    order = np.lexsort((rng.random(len(labels)), turn))  # of those with the same turn a random one
    return shuffled[order], turn[order]


def default_budgets(n_train: int, n_classes: int, n_images: int, full: bool) -> tuple[int, ...]:
    """Numbers of labels to evaluate with, from the data alone.

    Ten of each class, one percent, half and all of the labels, and as many as there are unlabelled images where these
    are few beside them: 100, 600, 5,000, 30,000 and 60,000 of MNIST. full: also one, five and a hundred of each class,
    and ten percent.
    """
    least = n_classes if full else 10 * n_classes
    numbers = {10 * n_classes, n_train // 100, n_train // 2}
    if n_images < n_train // 4:
        numbers.add(n_images)
    if full:
        numbers |= {n_classes, 5 * n_classes, 100 * n_classes, n_train // 10}
    return (*sorted(n for n in numbers if least <= n < n_train), n_train)


def headline_labels(budgets: tuple[int, ...], n_train: int) -> int:
    """The budget that a report leads with: the largest one of at most half of the labels, or the smallest there is."""
    return max((n for n in budgets if n <= n_train // 2), default=budgets[0])
