"""From pictures and what is known of them to `Images`: prepared, split, counted, and named by a checksum."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..settings import DataSettings, UserError
from ..storage.cache import memo_record
from .arrays import ArrayPictures
from .copied import across_splits, equal_images
from .guards import fit_memory
from .held_out import completed
from .images import Account, Images, as_original, digest_of, inert, names_of_classes, statistics
from .manifest import TEST, TRAIN, VAL, Manifest, compare_splits, counted, natural
from .packed import Packed, pack
from .pictures import LARGEST_SIDE, Pictures, Reading
from .preparation import Preparation

NAMED_DAMAGED = 10  # files that a message names


@dataclass(frozen=True)
class Source:
    """What was found: pictures, a row for each, and how it is called.

    note: what a reader must know of where it came from. classes: names of labels that are numbers from 0.
    """

    name: str
    pictures: Pictures
    manifest: Manifest
    note: str = ""
    classes: tuple[str, ...] = ()
    handwriting: bool = False


def assemble(source: Source, data: DataSettings) -> Images:
    """The images of a source, as settings want them.

    Raises:
        UserError: when files are damaged and that is not allowed for, or there is nothing to train on.
    """
    m = source.manifest
    m.places = list(range(len(m.names)))
    packed = _prepared(source, asked_reading(data))
    if packed.damaged:
        m = _without_damaged(m, packed, source, data.skip_damaged)

    def alike(places: Sequence[int]) -> np.ndarray:
        return equal_images(packed.pixels, places)

    given = TEST in m.splits and len({*m.splits}) > 1  # test images alone are divided anew
    m = completed(m, data.split_seed, source.pictures.where, alike)
    images = _images(source, m, packed)
    # In a draw of our own, equal images were kept together; near copies are found only now.
    ours = not given and images.n_labels > 0
    # Where all labelled images are cross-validated, the others are only looked at: no label is given up for them.
    if (data.drop_copies or ours) and not images.cross_validated and len(copied := across_splits(images)[0]):
        train = np.flatnonzero([split != TEST for split in m.splits])
        dropped = np.zeros(len(m.names), bool)
        dropped[train[copied]] = True
        m = m.leave_out(dropped, "near copies of test images" if ours else "copies of test images (drop_copies)")
        compare_splits(m, source.pictures.where)
        images = _images(source, m, packed)
    return images


def asked_reading(data: DataSettings) -> Reading:
    """How pictures are to be prepared, as settings have it."""
    return Reading(data.image_size, data.fit, data.background, data.window)


def _prepared(source: Source, reading: Reading) -> Packed:
    """Pixels of one shape: small arrays that have it already as they are, all else from the cache."""
    pictures = source.pictures
    if isinstance(pictures, ArrayPictures) and reading.image_size is None and pictures.ready(LARGEST_SIDE):
        pixels = pictures.parts[0] if len(pictures.parts) == 1 else np.concatenate(pictures.parts)
        height, width = pixels.shape[2:]
        return Packed(pixels, Preparation(height, width, pixels.shape[1], reading.fit, reading.background))
    return pack(pictures, reading)


def _without_damaged(m: Manifest, packed: Packed, source: Source, skip: bool) -> Manifest:
    """The rows whose pictures could be read. Raises: UserError, naming the others, unless they may be skipped."""
    if not skip:
        named = [f"{m.names[i]} {why}" for i, why in list(packed.damaged.items())[:NAMED_DAMAGED]]
        more = f"; and {len(packed.damaged) - len(named):,} more" if len(packed.damaged) > len(named) else ""
        raise UserError(
            f"{counted(len(packed.damaged), 'file')} in {source.pictures.where} cannot be read: {'; '.join(named)}"
            f"{more}. Replace or remove what is damaged, or go on without it: -p skip_damaged=true."
        )
    damaged = np.zeros(len(m.names), bool)
    damaged[list(packed.damaged)] = True
    m = m.leave_out(damaged, "damaged")
    if not m.names:
        raise UserError(f"{source.pictures.where}: no picture can be read.")
    return m


def _images(source: Source, m: Manifest, packed: Packed) -> Images:
    split = np.array(m.splits, dtype=object)
    train, test = np.flatnonzero(split != TEST), np.flatnonzero(split == TEST)
    names = sorted({label for label in m.labels if label is not None}, key=natural)
    number: dict[str | None, int] = {name: i for i, name in enumerate(names)} | {None: -1}
    labels = torch.tensor([number[label] for label in m.labels], dtype=torch.int64)
    places = np.array(m.places, dtype=np.int64)
    parts = [_rows(packed.pixels, places[index]) for index in (train, test)]
    groups, test_groups, group_names = _groups(m, train, test)
    straddling = int(np.isin(np.unique(groups), test_groups).sum())
    validation = torch.from_numpy(np.flatnonzero(split[train] == VAL))
    decisive = [labels[train], labels[test], *(x for x in (validation, groups) if len(x))]
    facts = _facts(packed, [*parts, *decisive], [places[train], places[test]])
    shown = names
    if source.classes and all(name.isdigit() and int(name) < len(source.classes) for name in names):
        shown = [source.classes[int(name)] for name in names]
    account = _account(source, m, packed, dict(zip(names, names_of_classes(shown), strict=True)))
    note = " ".join([text for text in (source.note, *account.remarks) if text])
    images = Images(
        source.name, parts[0], labels[train], parts[1], labels[test], names_of_classes(shown), tuple(facts["mean"]),
        tuple(facts["std"]), facts["sha256"], note, source.handwriting, validation, groups, test_groups,
        group_names, straddling, tuple(m.names[i] for i in train), tuple(m.names[i] for i in test), packed.preparation,
        account,
    )  # fmt: skip
    return as_original(images)


def _rows(pixels: np.ndarray, places: np.ndarray) -> Tensor:
    """Some of the pixels; where they lie together, without a copy of them."""
    if len(places) and places[-1] - places[0] == len(places) - 1 and (np.diff(places) == 1).all():
        chosen = pixels[places[0] : places[-1] + 1]
    else:
        fit_memory(len(places) * int(np.prod(pixels.shape[1:])), "what was chosen of the images")
        chosen = pixels[places]
    return torch.from_numpy(np.require(chosen, requirements=["C", "W"]))


def _groups(m: Manifest, train: np.ndarray, test: np.ndarray) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The training and the test images' groups as numbers, each without one being its own; and the groups' names."""
    if not any(m.groups):
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), ()
    names = [m.groups[i] or f"\0{i}" for i in range(len(m.names))]
    number = {name: i for i, name in enumerate(dict.fromkeys(names[i] for i in (*train, *test)))}
    of_train, of_test = (torch.tensor([number[names[i]] for i in part], dtype=torch.int64) for part in (train, test))
    return of_train, of_test, tuple("" if name.startswith("\0") else inert(name)[:40] for name in number)


def _facts(packed: Packed, parts: Sequence[Tensor], places: Sequence[np.ndarray]) -> dict[str, Any]:
    """Checksum, mean and standard deviation, computed once for pixels that are kept in a file."""

    p = packed.preparation
    # What an encoder will have to do to other pictures is part of what it was trained on; the usual leaves no trace.
    usual = Preparation(p.height, p.width, p.channels)
    unusual = "" if p == usual else json.dumps(p.as_json(), sort_keys=True)

    def compute() -> dict[str, Any]:
        train, test, train_labels, test_labels, *others = parts
        digest = digest_of((train, train_labels, test, test_labels, *others))
        digest.update(unusual.encode())
        mean, std = statistics(train)
        return {"sha256": digest.hexdigest(), "mean": list(mean), "std": list(std)}

    if not packed.digest:
        return compute()
    known = digest_of([*parts[2:], *(torch.from_numpy(index) for index in places)]).hexdigest()
    decisive = {"version": 1, "pixels": packed.digest, "rows": known, "preparation": unusual}
    return memo_record("pixels", decisive, compute, "hashing the images")


def _account(source: Source, m: Manifest, packed: Packed, shown: dict[str, str]) -> Account:
    counts = Counter(zip(m.splits, m.labels, strict=True))
    order = [*shown, None]
    rows = tuple(
        (str(split), "" if label is None else shown[label], counts[split, label])
        for split in (TRAIN, VAL, TEST)
        for label in order
        if counts[split, label] or (label is not None and split != VAL)
    )
    left_out = tuple((inert(where), why, n) for (where, why), n in sorted(m.left_out.items()) if n)
    prepared = packed.preparation.in_words(fitted=bool(packed.reason)) + (f"; {packed.reason}" if packed.reason else "")
    done = tuple(sorted(packed.remarks.items()))
    damaged = tuple((inert(source.pictures.names[i]), inert(why)) for i, why in packed.damaged.items())
    return Account(rows, left_out, tuple(m.remarks), done, prepared, damaged)
