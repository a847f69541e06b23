"""What a source holds: a row an image, with its name, and its label, group and split where they are known."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..settings import UserError
from .images import inert

TRAIN, VAL, TEST = "train", "val", "test"
LEAST_TEST = 8  # images
MAX_CLASSES = 1000
NAMED_CLASSES = 5  # that a remark names
NO_LABEL = ("", "nan", "-1", "na", "n/a", "#n/a", "<na>", "null")  # what stands for no label, in lower case


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


def compare_splits(m: Manifest, where: object) -> None:
    """Say what is lacking on one side of the splits, or is on both. Raises: UserError when there is nothing to train
    on, of all or of one class."""
    if TRAIN not in m.splits:
        raise UserError(f"{where} has no images to train on that are left. Add some.")
    _compare_classes(m, where)
    _compare_groups(m)


def with_classes(m: Manifest, where: object) -> Manifest:
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


def plain(name: str) -> str:
    """A name without case, blanks, hyphens and the like, for comparison."""
    return "".join(c for c in name.casefold() if c.isalnum())


def value(text: str, kind: str = "label") -> str:
    """What a cell says; empty for nothing. Numbers without `.0`, which spreadsheets and pandas add."""
    text = text.strip()
    if whole := re.fullmatch(r"([+-]?\d+)\.0*", text):
        text = whole.group(1)
    return "" if kind != "split" and text.lower() in NO_LABEL else text


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
    if not having[TEST]:
        _say_what_cannot_be_held_out(m)
        return
    if missing := [inert(label) for label in sorted(having[TRAIN] - having[TEST], key=natural)]:
        one = len(missing) == 1
        m.remarks.append(
            f"{'Class' if one else 'Classes'} {listed(missing)} {'has' if one else 'have'} no test images, so how well "
            f"{'it is' if one else 'they are'} recognised is not measured."
        )


def _say_what_cannot_be_held_out(m: Manifest) -> None:
    """Say which classes have one labelled image, or one group: held out, they leave nothing to learn them from."""
    having: dict[str, set[object]] = {}
    for i, (label, group) in enumerate(zip(m.labels, m.groups, strict=True)):
        if label is not None:
            having.setdefault(label, set()).add(group or i)
    alone = [inert(label) for label in sorted(having, key=natural) if len(having[label]) == 1]
    if alone and len(having) > 1:
        one = len(alone) == 1
        m.remarks.append(
            f"{'Class' if one else 'Classes'} {listed(alone)} {'has' if one else 'have'} one labelled image, or one "
            f"group, so how well {'it is' if one else 'they are'} recognised cannot be measured. Label more of them."
        )


def _compare_groups(m: Manifest) -> None:
    """Say whether the source's own validation images are of groups that are trained on."""
    of = {part: {g for g, s in zip(m.groups, m.splits, strict=True) if g and s == part} for part in (TRAIN, VAL)}
    if n := len(of[TRAIN] & of[VAL]):
        m.remarks.append(f"{counted(n, 'group is', 'groups are')} in both training and validation images.")
