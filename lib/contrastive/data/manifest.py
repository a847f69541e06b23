"""What a source holds: a row an image, with its name, and its label, group and split where they are known."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..settings import UserError
from .images import inert

TRAIN, VAL, TEST = "train", "val", "test"
TEST_SHARE = 0.2  # of the images with a label, where a source has no test images
LEAST_TEST = 8  # images
MANY = 80  # images, of which enough can be held out to look at without a label
MOST_HELD_OUT = 2000  # images to look at, where nothing has a label
MAX_CLASSES = 1000
NAMED_CLASSES = 5  # that a remark names


@dataclass
class Manifest:
    """Rows as columns, in the order of the pixels.

    names: file names below the root, or numbers. labels: names of classes; None where there is none. groups: what must
    not be on both sides of a split, such as a patient. splits: train, val or test; None where the source does not say.
    left_out: (where, why) -> how many files or images are not used. remarks: what a reader has to know. places: of the
    pixels among all that were prepared.
    """

    names: list[str]
    labels: list[str | None]
    groups: list[str | None]
    splits: list[str | None]
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def take(self, keep: Sequence[int] | np.ndarray) -> Manifest:
        """Some of the rows."""
        names, labels, groups, splits, places = (
            [column[i] for i in keep] for column in (self.names, self.labels, self.groups, self.splits, self.places)
        )
        return Manifest(names, labels, groups, splits, self.left_out, self.remarks, places)  # type: ignore[arg-type]

    def leave_out(self, rows: np.ndarray, why: str) -> Manifest:
        """All rows but these (a mask), which are counted by split and class."""
        for i in np.flatnonzero(rows):
            split, label = self.splits[i] or TRAIN, self.labels[i]
            self.left_out[split if label is None else f"{split}/{label}", why] += 1
        return self.take(np.flatnonzero(~rows))


def natural(text: str) -> tuple[int, float, str]:
    """A key to sort names of classes by: numbers by their size, and before words."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    return (0, number, text) if math.isfinite(number) else (1, 0.0, text)  # nan cannot be sorted


def counted(n: int, one: str, many: str | None = None) -> str:
    """`1 image`, `2,000 images`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


Alike = Callable[[Sequence[int]], np.ndarray]  # places -> a number for each, equal for copies of each other


def completed(manifest: Manifest, seed: int, where: object, alike: Alike) -> Manifest:
    """The manifest with a split for each row: a missing test split is drawn, and what cannot be used is left out.

    With labels, all test images have one; without any label, some images are held out to look at.

    Args:
        manifest: as the source has it.
        seed: of the draw of the test images.
        where: the source, for messages.
        alike: which images are copies of each other, which a drawn split keeps on one side.

    Raises:
        UserError: when there are no images to train on, or the classes of the splits do not fit together.
    """
    m = _with_classes(manifest, where)
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
        m = m.leave_out(useless, "test images without a label")
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
        n = int(labelled.sum())
        if n > 0 and round(TEST_SHARE * n) < LEAST_TEST and len(m.names) >= MANY:  # a report could show nothing
            m.remarks.append(
                f"{counted(n, 'image has', 'images have')} a label: too few to test on, so none is used yet."
            )
            m.labels, labelled = [None] * len(m.names), np.zeros(len(m.names), bool)
        split, m = _draw_test(m, split, labelled, seed, alike(m.places))
    m.splits = split.tolist()
    compare_splits(m, where)
    return m


def compare_splits(m: Manifest, where: object) -> None:
    """Say what is lacking on one side of the splits, or is on both. Raises: UserError when there is nothing to train
    on, of all or of one class."""
    if TRAIN not in m.splits:
        raise UserError(f"{where} has no images to train on that are left. Add some.")
    _compare_classes(m, where)
    _compare_groups(m)


def _with_classes(m: Manifest, where: object) -> Manifest:
    """Without labels that tell nothing apart. Raises: UserError when there are too many classes."""
    classes = {label for label in m.labels if label is not None}
    if len(classes) > MAX_CLASSES:
        raise UserError(
            f"{where} has {len(classes):,} different labels; at most {MAX_CLASSES:,} can be told apart. If they are "
            "patients or the like, they are groups: see the parameter group."
        )
    labelled = sum(label is not None for label in m.labels)
    said = ""
    if len(classes) == 1:
        said = f"All labels are {inert(classes.pop())}: there is nothing to tell apart, so none is used."
    elif labelled and len(classes) == labelled:
        said = f"No two of the {labelled:,} labels are alike, so they are no classes, and none is used."
    if said:
        m.remarks.append(said)
        m.labels = [None] * len(m.names)
        return m
    alike: dict[str, list[str]] = {}
    for label in sorted(classes, key=natural):
        alike.setdefault(" ".join(label.split()).casefold(), []).append(inert(label))
    if pairs := [" and ".join(names) for names in alike.values() if len(names) > 1]:
        m.remarks.append(f"Classes that differ only in capitals or blanks are taken for several: {listed(pairs)}.")
    return m


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - NAMED_CLASSES
    return ", ".join(names[:NAMED_CLASSES]) + (f" and {more:,} more" if more > 0 else "")


def _compare_classes(m: Manifest, where: object) -> None:
    """Say which classes have no test images. Raises: UserError when one has no training images."""
    having: dict[str, set[str]] = {TRAIN: set(), VAL: set(), TEST: set()}
    for label, split in zip(m.labels, m.splits, strict=True):
        if label is not None:
            having[str(split)].add(label)
    for part in (TEST, VAL):
        if unknown := sorted(having[part] - having[TRAIN], key=natural):
            like = [name for name in having[TRAIN] if name.casefold() == unknown[0].casefold()]
            hint = f" (there is {like[0]!r})" if like else ""
            raise UserError(
                f"{where}: class {unknown[0]!r} has {part} images, but none to train on{hint}. Add some, or take its "
                f"{part} images away."
            )
    if missing := [inert(label) for label in sorted(having[TRAIN] - having[TEST], key=natural)]:
        one = len(missing) == 1
        m.remarks.append(
            f"{'Class' if one else 'Classes'} {listed(missing)} {'has' if one else 'have'} no test images, so how well "
            f"{'it is' if one else 'they are'} recognised is not measured."
        )


def _compare_groups(m: Manifest) -> None:
    """Say whether the source's own validation images are of groups that are trained on."""
    of = {part: {g for g, s in zip(m.groups, m.splits, strict=True) if g and s == part} for part in (TRAIN, VAL)}
    if n := len(of[TRAIN] & of[VAL]):
        m.remarks.append(f"{counted(n, 'group is', 'groups are')} in both training and validation images.")


def _draw_test(
    m: Manifest, split: np.ndarray, labelled: np.ndarray, seed: int, copies: np.ndarray
) -> tuple[np.ndarray, Manifest]:
    """Test images, drawn from the training images: a fifth of each class, groups whole; or, where nothing has a label,
    a fifth of all. Copies of them are on their side, or left out."""
    rng = np.random.default_rng([seed, 0x7E57])
    pool = np.flatnonzero((split == TRAIN) & (labelled if labelled.any() else True))
    groups = np.array([group or f"\0{i}" for i, group in enumerate(m.groups)], dtype=object)
    if any(m.groups) or not labelled.any():
        groups = _joined(groups, copies)
    if not labelled.any():
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
