"""What a source holds: a row an image, with its name, and its label, group and split where they are known."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..settings import UserError
from .images import inert

TRAIN, VAL, TEST = "train", "val", "test"
TEST_SHARE = 0.2  # of the images with a label, where a source has no test images
MOST_HELD_OUT = 2000  # images to look at, where nothing has a label
MAX_CLASSES = 1000


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
        """All rows but these (a mask), which are counted by split."""
        for i in np.flatnonzero(rows):
            self.left_out[self.splits[i] or TRAIN, why] += 1
        return self.take(np.flatnonzero(~rows))


def natural(text: str) -> tuple[int, float, str]:
    """A key to sort names of classes by: numbers by their size, and before words."""
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)


def counted(n: int, one: str, many: str | None = None) -> str:
    """`1 image`, `2,000 images`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def completed(manifest: Manifest, seed: int, where: object) -> Manifest:
    """The manifest with a split for each row: a missing test split is drawn, and what cannot be used is left out.

    With labels, all test images have one; without any label, some images are held out to look at.

    Args:
        manifest: as the source has it.
        seed: of the draw of the test images.
        where: the source, for messages.

    Raises:
        UserError: when there are no images to train on, or the classes of the splits do not fit together.
    """
    m = _with_classes(manifest, where)
    split = np.array([s or TRAIN for s in m.splits], dtype=object)
    labelled = np.array([label is not None for label in m.labels], dtype=bool)
    if not (split != TEST).any():
        raise UserError(f"{where} has test images, but none to train on. Put those into train/.")
    to_learn = labelled & (split == TRAIN)
    if labelled.any() and not to_learn.any():
        m.remarks.append("Only validation or test images have labels, so none is used.")
        m.labels, labelled = [None] * len(m.names), np.zeros(len(m.names), bool)
    if labelled.any() and (useless := (split == TEST) & ~labelled).any():
        m = m.leave_out(useless, "test images without a label")
        split, labelled = split[~useless], labelled[~useless]
    if not (split == TEST).any():
        split, m = _draw_test(m, split, labelled, seed)
    m.splits = split.tolist()
    _compare_classes(m, where)
    return m


def _with_classes(m: Manifest, where: object) -> Manifest:
    """Without labels that tell nothing apart. Raises: UserError when there are too many classes."""
    classes = {label for label in m.labels if label is not None}
    if len(classes) > MAX_CLASSES:
        raise UserError(
            f"{where} has {len(classes):,} different labels; at most {MAX_CLASSES:,} can be told apart. If they are "
            "patients or the like, they are groups: see the parameter group."
        )
    if len(classes) == 1:
        m.remarks.append(f"All labels are {inert(classes.pop())}: there is nothing to tell apart, so none is used.")
        m.labels = [None] * len(m.names)
    return m


def _compare_classes(m: Manifest, where: object) -> None:
    """Say which classes have no test images. Raises: UserError when one has no training images."""
    having: dict[str, set[str]] = {TRAIN: set(), VAL: set(), TEST: set()}
    for label, split in zip(m.labels, m.splits, strict=True):
        if label is not None:
            having[str(split)].add(label)
    for part in (TEST, VAL):
        if unknown := sorted(having[part] - having[TRAIN], key=natural):
            raise UserError(
                f"{where}: class {unknown[0]!r} has {part} images, but none to train on. Add some, or take its "
                f"{part} images away."
            )
    for label in sorted(having[TRAIN] - having[TEST], key=natural):
        m.remarks.append(f"Class {inert(label)} has no test images, so how well it is recognised is not measured.")


def _draw_test(m: Manifest, split: np.ndarray, labelled: np.ndarray, seed: int) -> tuple[np.ndarray, Manifest]:
    """Test images, drawn from the training images: a fifth of each class, groups whole; or, where nothing has a label,
    a fifth of all."""
    rng = np.random.default_rng([seed, 0x7E57])
    pool = np.flatnonzero((split == TRAIN) & (labelled if labelled.any() else True))
    groups = np.array([group or f"\0{i}" for i, group in enumerate(m.groups)], dtype=object)
    if not labelled.any():
        names = list(dict.fromkeys(groups[pool]))  # in order, so that the draw is the same every time
        size = Counter(groups[pool])
        wanted, chosen = min(round(TEST_SHARE * len(pool)), MOST_HELD_OUT), set()
        for i in rng.permutation(len(names)):
            if wanted < size[names[i]]:
                continue
            chosen.add(names[i])
            wanted -= size[names[i]]
        drawn = np.array([i for i in pool if groups[i] in chosen], dtype=int)
        said = f"{counted(len(drawn), 'image')}, drawn by seed {seed}, were held out to look at."
    else:
        labels = np.array([str(label) for label in m.labels], dtype=object)
        drawn = _stratified(pool, labels, groups, any(m.groups), rng)
        said = f"There were no test images: {len(drawn):,} of {len(pool):,} labelled images were drawn by seed {seed}."
    split = split.copy()
    split[drawn] = TEST
    m.remarks.append(said)
    if any(m.groups):
        both = (split != TEST) & np.isin(groups, np.unique(groups[drawn]))
        if both.any():
            m = m.leave_out(both, "without a label, of a group that is in the test images")
            split = split[~both]
    return split, m


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

    n_groups = len(np.unique(groups))
    if n_groups < 2:
        return np.zeros(0, dtype=np.int64)
    n_folds, seed = min(round(1 / TEST_SHARE), n_groups), int(rng.integers(2**31))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer images than folds: as near as can be is what we want
        folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels, groups)
        return next(iter(folds))[1]
