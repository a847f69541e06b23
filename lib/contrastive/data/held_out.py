"""Which images are held out: test images, where a source has none and labels are enough; else images to look at."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ..settings import UserError
from .manifest import LEAST_TEST, TEST, TRAIN, VAL, Manifest, compare_splits, counted, natural, with_classes

TEST_SHARE = 0.2  # of the images with a label, where a source has no test images
# A test split is drawn where it gets so many images in all and of each class on average, or MANY_TEST: of fewer, an
# accuracy would be known to ten points at best, so all labelled images are cross-validated instead.
ENOUGH_TEST, ENOUGH_OF_CLASS, MANY_TEST = 100, 20, 400
ENOUGH_GROUPS = 100  # of which a fifth is to be tested on
MANY = 80  # images, of which enough can be held out to look at without a label
MOST_HELD_OUT = 2000  # images to look at, where nothing has a label

Alike = Callable[[Sequence[int]], np.ndarray]  # places -> a number for each, equal for copies of each other


def completed(manifest: Manifest, seed: int, where: object, alike: Alike) -> Manifest:
    """The manifest with a split for each row: a missing test split is drawn, and what cannot be used is left out.

    Test images have labels, if any image that is trained on has one. Where these are too few for that, or none, images
    without a label may be held out to look at.

    Args:
        manifest: as the source has it.
        seed: of the draw of the test images.
        where: the source, for messages.
        alike: which images are copies of each other, which a drawn split keeps on one side.

    Raises:
        UserError: when there are no images to train on, or the classes of the splits do not fit together.
    """
    m = with_classes(manifest, where)
    split = np.array([s or TRAIN for s in m.splits], dtype=object)
    if (split == TEST).all():
        m.remarks.append("There are test images only, so they are divided anew.")
        split[:] = TRAIN
    if not (split == TRAIN).any():
        raise UserError(f"{where} has {split[0]} images, but none to train on. Put those into train/.")
    labelled = np.array([label is not None for label in m.labels], dtype=bool)
    if labelled.any() and not labelled[split == TRAIN].any():
        m.remarks.append("Only validation or test images have labels, so none is used.")
        m.labels, labelled = [None] * len(m.names), np.zeros(len(m.names), bool)
    if labelled.any() and (useless := (split == TEST) & ~labelled).any():
        n = int(useless.sum())
        m = m.leave_out(useless, "test images without a label")
        m.remarks.append(f"{counted(n, 'test image has', 'test images have')} no label, so nothing is tested on them.")
        split, labelled = split[~useless], labelled[~useless]
    if labelled.any() and (useless := (split == VAL) & ~labelled).any():
        n = int(useless.sum())
        m.remarks.append(f"{counted(n, 'validation image has', 'validation images have')} no label: for pretraining.")
        split[useless] = TRAIN
    said = np.array([s is not None for s in m.splits], dtype=bool)
    tested = {group for group, s in zip(m.groups, split, strict=True) if group and s == TEST}
    if (torn := ~said & np.array([group in tested for group in m.groups], dtype=bool)).any():  # no table put them there
        m = m.leave_out(torn, "of a group that is in the test images")
        split, labelled = split[~torn], labelled[~torn]
    if not (split == TEST).any():
        split, m = _without_test(m, split, labelled, seed, alike(m.places))
    m.splits = split.tolist()
    compare_splits(m, where)
    return m


def _without_test(
    m: Manifest, split: np.ndarray, labelled: np.ndarray, seed: int, copies: np.ndarray
) -> tuple[np.ndarray, Manifest]:
    """Test images drawn where there are labels enough; images to look at, where there are none or few."""
    known = labelled & (split == TRAIN)  # the source's own validation images are not for us to test on
    n = int(known.sum())
    if why := why_cross_validated(m, known):
        m.remarks.append(
            f"There were no test images, and {counted(n, 'training image has', 'training images have')} a label: "
            f"{why}. So classifiers are cross-validated on the labelled images."
        )
    pool = (split == TRAIN) & (~labelled if why else labelled if n else True)
    if why and pool.sum() < MANY:
        return split, m
    return _draw_test(m, split, pool, bool(n) and not why, seed, copies)


def why_cross_validated(m: Manifest, labelled: np.ndarray) -> str:
    """Why the labelled rows (a mask) are too few to set a fifth of them apart to test on; empty if they are not, or if
    there are none."""
    n, n_classes = int(labelled.sum()), len({label for label in m.labels if label is not None})
    n_test = round(TEST_SHARE * n)
    if not n:
        return ""
    if n_test < MANY_TEST and n_test < max(ENOUGH_TEST, ENOUGH_OF_CLASS * n_classes):
        return f"a fifth of them, to test on, would be fewer than {ENOUGH_TEST}, or than {ENOUGH_OF_CLASS} a class"
    groups = {group or i for i, (group, known) in enumerate(zip(m.groups, labelled, strict=True)) if known}
    if any(m.groups) and len(groups) < ENOUGH_GROUPS:
        return f"they are of {len(groups)} groups, and a fifth of these would be too few to test on"
    return ""


def _draw_test(
    m: Manifest, split: np.ndarray, pooled: np.ndarray, stratified: bool, seed: int, copies: np.ndarray
) -> tuple[np.ndarray, Manifest]:
    """Test images, drawn from some training images (a mask): a fifth of each class, groups whole; or, of images without
    a label, a fifth of all. Copies of them are on their side, or left out."""
    rng = np.random.default_rng([seed, 0x7E57])
    pool = np.flatnonzero(pooled)
    groups = np.array([group or f"\0{i}" for i, group in enumerate(m.groups)], dtype=object)
    if any(m.groups) or not stratified:
        groups = _joined(groups, copies)
    if not stratified:  # no labelled image may have to be left out for one to look at
        pool = pool[~np.isin(groups[pool], groups[[label is not None for label in m.labels]])]
        names = list(dict.fromkeys(groups[pool]))  # in order, so that the draw is the same every time
        size = Counter(groups[pool])
        wanted, chosen = min(round(TEST_SHARE * len(pool)), MOST_HELD_OUT), set()
        for i in rng.permutation(len(names)):
            if wanted < size[names[i]]:
                continue
            chosen.add(names[i])
            wanted -= size[names[i]]
        if any(m.groups) and not chosen and len(names) > 1:  # all are large
            chosen.add(min(names, key=lambda name: size[name]))
        drawn = np.array([i for i in pool if groups[i] in chosen], dtype=int)
        if len(drawn) < LEAST_TEST and any(label is not None for label in m.labels):
            return split, m  # too few to show: training images are shown instead
        said = f"{counted(len(drawn), 'image')}, drawn by seed {seed}, were held out to look at."
    else:
        labels = np.array([str(label) for label in m.labels], dtype=object)
        drawn = _stratified(pool, labels, groups, any(m.groups), rng)
        if not any(m.groups):
            drawn = _with_copies(drawn, pool, copies, labels)
        said = f"There were no test images: {len(drawn):,} of {len(pool):,} labelled images were drawn by seed {seed}."
    if any(m.groups) and not len(drawn):
        said = "There were no test images, and none could be drawn: there are too few groups."
    split = split.copy()
    split[drawn] = TEST
    m.remarks.append(said)
    of_groups, of_copies = (
        (split != TEST) & np.isin(kind, np.unique(kind[split == TEST])) for kind in (groups, copies)
    )
    of_copies &= ~of_groups
    m = m.leave_out(of_groups, "of a group that is in the test images") if of_groups.any() else m
    m = m.leave_out(of_copies[~of_groups], "copies of test images") if of_copies.any() else m
    return split[~(of_groups | of_copies)], m


def _joined(groups: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """A number for each row, equal for rows of one group, for copies, and for what these lead on to."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b = (np.unique(kinds, return_inverse=True)[1] for kinds in (groups, copies))
    n = int(a.max(initial=-1)) + 1
    size = n + int(b.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(a), np.int8), (a, n + b)), shape=(size, size))
    return connected_components(graph, directed=False)[1][a]


def _with_copies(drawn: np.ndarray, pool: np.ndarray, copies: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rows drawn from a pool, such that copies go where the first of them went, and no class goes as a whole."""
    first = dict(zip(copies[pool[::-1]].tolist(), pool[::-1].tolist(), strict=True))
    held = np.isin([first[kind] for kind in copies[pool].tolist()], drawn)
    for label in set(labels[pool]):
        own = labels[pool] == label
        if held[own].all():  # a class of few different images, of which one has to be left to train on
            held &= copies[pool] != copies[pool][own][0]
    return pool[held]


def _stratified(
    pool: np.ndarray, labels: np.ndarray, groups: np.ndarray, grouped: bool, rng: np.random.Generator
) -> np.ndarray:
    """About a fifth of the rows in `pool`, of each class as large a share as can be."""
    if grouped:
        return pool[grouped_fold(labels[pool], groups[pool], rng)]
    drawn = []
    for label in sorted(set(labels[pool]), key=natural):
        of_class = rng.permutation(pool[labels[pool] == label])
        n = min(max(round(TEST_SHARE * len(of_class)), 1), len(of_class) - 1)
        drawn.append(of_class[:n])
    return np.sort(np.concatenate(drawn))


def grouped_fold(labels: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places of about a fifth of the rows, groups whole, of each class as nearly a fifth as can be; none if there is
    only one group."""
    from sklearn.model_selection import StratifiedGroupKFold  # takes seconds to import, so only where it is needed

    n_groups, largest = len(np.unique(groups)), int(np.unique(labels, return_counts=True)[1].max(initial=0))
    n_folds = min(round(1 / TEST_SHARE), n_groups, largest)
    if n_folds < 2:
        return np.zeros(0, dtype=np.int64)
    seed = int(rng.integers(2**31))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer images than folds: as near as can be is what we want
        folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels, groups)
        held = np.isin(np.arange(len(labels)), next(iter(folds))[1])
    for label in np.unique(labels):
        own = labels == label
        if held[own].all():  # a class of few groups, of which one has to be left to train on
            held &= groups != groups[own][0]
    return np.flatnonzero(held)
