"""Which images may be used for what, and which labels a budget holds."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..settings import UserError
from .folding import LEAST_LABELS, LEAST_TO_CHOOSE, balanced_order, most_labels, n_folds
from .held_out import grouped_fold
from .images import Images
from .manifest import LEAST_TEST

MOST_VALIDATION = 5000
MANY_LABELS = 20_000  # somebody who has fewer asks about all that there are
OF_EACH_CLASS = (2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Splits:
    """Which training images are used for what, as int64 indices drawn by seed; the test images stay apart.

    pretrain: the unlabelled images. validation: never pretrained on. Those that the source sets aside, else of each
    class about a fifth at most, groups whole; where nothing has a label, a fifth of all. Its prefixes are balanced over
    classes. rest: all other training images that have a label, among them such as are pretrained on; its prefixes are
    balanced too. Balanced means: as long as no class runs out.
    """

    pretrain: Tensor
    validation: Tensor
    rest: Tensor
    n_classes: int
    balanced: bool = True

    def budget(self, n: int) -> tuple[Tensor, Tensor]:
        """Indices of the n labels of a budget: those to fit on and, a fifth of them, those to choose with.

        Balanced, or random, and nested: a larger budget holds every smaller one. Only the second part is guaranteed
        never to have been pretrained on. Of fewer than LEAST_TO_CHOOSE labels, or five of each class, none is spared to
        choose with; such a budget is within a larger one if that has a quarter more.
        """
        fifth = n // 5 if n >= LEAST_TO_CHOOSE else 0
        if self.balanced:  # in whole rounds, or some class would be left out
            fifth = fifth // self.n_classes * self.n_classes
        n_choose = max(min(fifth, len(self.validation)), n - len(self.rest))
        return self.rest[: n - n_choose], self.validation[:n_choose]


def split(images: Images, n_images: int, seed: int, draw: int = 0, balanced: bool = True) -> Splits:
    """Draw by seed the validation images and, from the others, the unlabelled ones.

    Args:
        images: of which data set.
        n_images: how many to pretrain on.
        seed: of all draws.
        draw: another one gives the same three sets, with label budgets that are drawn anew from them.
        balanced: whether label budgets are balanced over classes, which only somebody can have who knows all labels, or
            drawn at random.

    Raises:
        UserError: when there are not so many images to pretrain on.
    """
    rng = np.random.default_rng([seed, 0x5EED])
    validation, rest, unlabelled = _parts(images, rng)
    pool = np.concatenate([rest, unlabelled])
    if n_images > len(pool):
        raise UserError(
            f"parameter n_images={n_images}: {images.name} has {len(pool):,} training images beside the "
            f"{len(validation):,} kept for validation. Ask for at most {len(pool)}."
        )
    pretrain = rng.permutation(pool)[:n_images]  # without a look at the labels
    labels = images.train_labels.numpy()
    if not balanced:
        rng = np.random.default_rng([seed, 0xF1A7, draw])
        validation, rest = rng.permutation(validation), rng.permutation(rest)
    elif draw > 0:
        rng = np.random.default_rng([seed, 0xD4A3, draw])
        validation, rest = (part[balanced_order(labels[part], rng)[0]] for part in (validation, rest))
    parts = [torch.from_numpy(part) for part in (pretrain, validation, rest)]
    return Splits(parts[0], parts[1], parts[2], len(images.classes), balanced)


def n_unlabelled(images: Images, seed: int) -> int:
    """How many images a run with that seed can be pretrained on."""
    _, rest, unlabelled = _parts(images, np.random.default_rng([seed, 0x5EED]))
    return len(rest) + len(unlabelled)


def why_no_evaluation(images: Images) -> str:
    """Why a classifier cannot be fitted and judged with the labels that there are, in a sentence; empty if it can."""
    n, n_classes, n_test = images.n_labels, len(images.classes), len(images.test)
    if n == 0:
        why = [remark for remark in images.account.remarks if remark.endswith("none is used.")]
        return " ".join([f"No image of {images.name} has a label that can be used.", *why])
    if images.cross_validated:
        if n < LEAST_LABELS:
            return (
                f"{images.name} has {n:,} images with a label, too few to cross-validate a classifier on: at least "
                f"{LEAST_LABELS} are needed."
            )
        if n_folds(images) < 2:
            what = "groups" if len(images.groups) else "images"
            return (
                f"Of {images.name} no classifier can be cross-validated: two classes with two labelled {what} each are "
                "needed, or nothing is left to learn a class from when one is held out."
            )
        if most_labels(images, range(1)) < n_classes:
            return (
                f"{images.name} has {n:,} images with a label, of {n_classes:,} classes: too few to cross-validate a "
                "classifier on, which needs one of each class beside those held out."
            )
    elif n_test < LEAST_TEST:
        return f"{images.name} has {n_test} test images with a label: at least {LEAST_TEST} are needed."
    elif len(kinds := images.test_labels.unique()) == 1:
        return (
            f"All test images of {images.name} are {images.classes[int(kinds)]}, so nothing can be told apart there. "
            "Add some of another class, or leave them out: then classifiers are cross-validated."
        )
    return ""


def why_no_validation(images: Images) -> str:
    """Why settings cannot be compared on validation images, in a sentence; empty if they can."""
    if why := why_no_evaluation(images):
        return why
    validation, rest, _ = _parts(images, np.random.default_rng([0, 0x5EED]))
    if min(len(validation), len(rest)) < len(images.classes):
        return (
            f"{images.name} has {images.n_labels:,} training images with a label, of {len(images.classes):,} classes: "
            "too few to spare a fifth of each class for validation. Five of each are enough."
        )
    return ""


def _parts(images: Images, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the validation images, of the others that have a label, and of those that have none."""
    labels, groups = images.train_labels.numpy(), images.groups.numpy()
    everything = np.arange(len(labels))
    known = everything[labels >= 0]
    order, turn = balanced_order(labels[known], rng)
    order = known[order]
    if len(images.validation):
        validation = images.validation.numpy()
        validation = _by_turns(order[np.isin(order, validation)], labels) if len(known) else validation
    elif not len(known):
        n = min(MOST_VALIDATION, len(labels) // 5)
        validation = _whole_groups(groups, n, rng) if len(groups) else rng.permutation(everything)[:n]
    elif len(groups):
        validation = _grouped_validation(images, known, rng)
        validation = _by_turns(order[np.isin(order, validation)], labels)
    else:
        validation = order[turn < _spared(labels[known])[labels[order]]][: _n_validation(images)]
    apart = np.isin(everything, validation)
    # No image of their groups may be pretrained on
    of_groups = np.isin(groups, groups[validation]) if len(groups) else apart
    rest = _by_turns(order[~apart[order]], labels)
    return validation, rest, everything[(labels < 0) & ~of_groups]


def _n_validation(images: Images) -> int:
    """A fifth of the labelled training images, at most MOST_VALIDATION and what each class can spare, in whole rounds
    of the classes."""
    labels = images.train_labels.numpy()
    known = labels[labels >= 0]
    n = min(MOST_VALIDATION, len(known) // 5, int(_spared(known).sum()))
    return n // len(images.classes) * len(images.classes)


def _grouped_validation(images: Images, known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About a fifth of the labelled images, of each class alike, in whole groups; at least one group is left."""
    labels, groups = images.train_labels.numpy()[known], images.groups.numpy()[known]
    return known[grouped_fold(labels, groups, rng)]


def _whole_groups(groups: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of at most n rows, drawn in whole groups."""
    chosen: list[int] = []
    names, sizes = np.unique(groups, return_counts=True)
    for i in rng.permutation(len(names)):
        if len(chosen) + sizes[i] <= n:
            chosen += np.flatnonzero(groups == names[i]).tolist()
    return np.array(chosen, dtype=np.int64)


def _spared(labels: np.ndarray) -> np.ndarray:
    """How many images of each class may serve for validation: a fifth, rounded up, and never the last. If each gave
    equally many, a rare class would be used up."""
    count = np.bincount(labels)
    return np.maximum(np.minimum(-(-count // 5), count - 1), 0)


def _by_turns(index: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Some images in an order in which every prefix is balanced, as long as no class runs out; within a class, and
    within a turn, in the order in which they come."""
    own, turn = labels[index], np.empty(len(index), dtype=np.int64)
    for c in np.unique(own):
        turn[own == c] = np.arange((own == c).sum())
    return index[np.argsort(turn, kind="stable")]


def default_budgets(n_labels: int, n_classes: int, n_images: int, full: bool) -> tuple[int, ...]:
    """Numbers of labels to evaluate with, from the data alone.

    Of fewer than MANY_LABELS 2, 5, 10, 20, 50 and so on of each class, half of all and all. Of more: ten of each class,
    one percent, and as many as there are unlabelled images where these are few beside them, else ten percent, which is
    100, 600 and 5,000 of MNIST: what more labels give is seldom asked, and a network for each takes a minute. full:
    also one, five and a hundred of each class, ten percent, half and all.
    """
    if n_labels < MANY_LABELS:
        kept = {n for n in (n_labels // 2,) if n >= 2 * n_classes} | {n_labels}
        numbers = {k * n_classes for k in OF_EACH_CLASS if k * n_classes < n_labels}
        # so near to half or all of the labels, another number of them says nothing new
        return tuple(sorted(kept | {n for n in numbers if not any(0.75 < n / other < 4 / 3 for other in kept)}))
    numbers = {10 * n_classes, n_labels // 100, n_images if n_images < n_labels // 4 else n_labels // 10}
    if full:
        numbers |= {n_classes, 5 * n_classes, 100 * n_classes, n_labels // 10, n_labels // 2, n_labels}
    least = n_classes if full else 10 * n_classes
    return tuple(sorted(n for n in numbers if least <= n <= n_labels))


def headline_labels(budgets: tuple[int, ...], images: Images) -> int:
    """The budget that a report leads with: all labels where they are few; else the largest one of at most half of them,
    or the smallest there is."""
    if images.cross_validated or images.n_labels < MANY_LABELS:
        return budgets[-1]
    return max((n for n in budgets if n <= images.n_labels // 2), default=budgets[0])
