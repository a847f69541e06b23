"""Splits that are drawn: stratified, by seed, groups whole; what has no label is pretrained on, and no more."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive import load_images
from contrastive.data import Images, n_unlabelled, split, why_no_evaluation, why_no_validation
from contrastive.data.held_out import completed
from contrastive.data.manifest import TEST, TRAIN, VAL, Manifest

from .source_cases import put

PARTS = st.sampled_from([None, TRAIN, VAL, TEST])


def manifest(labels, groups=None, splits=None):
    n = len(labels)
    columns = [list(column or [None] * n) for column in (labels, groups, splits)]
    return Manifest([f"{i}.png" for i in range(n)], *columns, places=list(range(n)))


def drawn(labels, groups=None, seed=0, splits=None, copies=None):
    """The rows that are left, and those of them that are test images. copies: a number for each row; by default no row
    is a copy of another."""
    numbers = np.arange(len(labels)) if copies is None else np.asarray(copies)
    m = completed(manifest(labels, groups, splits), seed, "here", lambda places: numbers[list(places)])
    kept = [int(name.removesuffix(".png")) for name in m.names]
    return kept, [i for i, s in zip(kept, m.splits, strict=True) if s == TEST], m


def images_of(labels, groups=(), validation=()):
    """Grey images with these labels, a tensor each."""
    labels, of = torch.as_tensor(labels), torch.as_tensor
    pixels = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    names = tuple(map(str, range(int(labels.max()) + 1)))
    test = labels[labels >= 0][:8]
    return Images(
        "x", pixels, labels, pixels[: len(test)], test, names, (0.5,), (0.5,), "",
        groups=of(groups, dtype=torch.int64), validation=of(validation, dtype=torch.int64),
    )  # fmt: skip


# --- Test images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_a_fifth_of_each_class_is_drawn(seed):
    counts = {"a": 1, "b": 2, "c": 7, "d": 50, "e": 440}
    labels = [c for c, n in counts.items() for _ in range(n)] + [None] * 100
    kept, test, m = drawn(labels, seed=seed)
    assert kept == list(range(len(labels)))
    of_class = {c: sum(labels[i] == c for i in test) for c in counts}
    assert of_class == {"a": 0, "b": 1, "c": 1, "d": 10, "e": 88}
    assert all(labels[i] is not None for i in test)
    assert drawn(labels, seed=seed)[1] == test
    assert drawn(labels, seed=seed + 1)[1] != test
    assert m.remarks == [
        f"There were no test images: 100 of 500 labelled images were drawn by seed {seed}.",
        "Class a has no test images, so how well it is recognised is not measured.",
    ]


def test_what_is_drawn_does_not_depend_on_other_rows_or_names():
    labels = ["a", "b"] * 250
    test = drawn(labels)[1]
    assert len(test) == 100
    assert drawn(["1", "2"] * 250)[1] == test  # however classes are called, in the same order
    unlabelled = [*labels, *[None] * 30]
    assert drawn(unlabelled)[1] == test


def test_without_labels_a_fifth_is_held_out():
    kept, test, _ = drawn([None] * 100)
    assert (len(kept), len(test)) == (100, 20)
    assert len(drawn([None] * 20_000)[1]) == 2000
    assert drawn([None] * 100, seed=1)[1] != test


def test_test_images_of_the_source_stay():
    labels, splits = ["a", "b"] * 10, [TRAIN] * 16 + [TEST] * 4
    for seed in (0, 1):
        assert drawn(labels, seed=seed, splits=splits)[1] == [16, 17, 18, 19]


FEW = "a fifth of them, to test on, would be fewer than 100, or than 20 a class"


@pytest.mark.parametrize(
    ("n", "n_classes", "n_groups", "n_test", "why"),
    [
        (497, 2, None, 0, FEW),
        (498, 2, None, 100, ""),  # 99.6
        (497, 5, None, 0, FEW),
        (498, 5, None, 100, ""),
        (597, 6, None, 0, FEW),
        (598, 6, None, 120, ""),
        (1997, 30, None, 0, FEW),
        (1998, 30, None, 400, ""),  # many are enough, however few a class has
        (600, 2, 99, 0, "they are of 99 groups, and a fifth of these would be too few to test on"),
        (600, 2, 100, 120, ""),
        (497, 2, 497, 0, FEW),
    ],
)
def test_a_split_is_drawn_where_there_are_labels_enough(n, n_classes, n_groups, n_test, why):
    labels = [f"c{i % n_classes}" for i in range(n)]
    groups = [f"p{i // n_classes % n_groups}" for i in range(n)] if n_groups else None
    kept, test, m = drawn(labels, groups)
    assert len(kept) == n
    assert abs(len(test) - n_test) <= (n_classes if n_test else 0)  # each class gives a fifth of its own, rounded
    said = f"There were no test images: {len(test)} of {n:,} labelled images were drawn by seed 0."
    if why:
        said = (
            f"There were no test images, and {n:,} training images have a label: {why}. So classifiers are "
            "cross-validated on the labelled images."
        )
    assert m.remarks == [said]


def test_only_what_could_be_tested_on_counts_for_a_split():
    # Neither groups that have no label, nor validation images of the source
    labels, groups = ["a", "b"] * 300 + [None] * 100, [f"p{i % 99}" for i in range(600)] + [f"u{i}" for i in range(100)]
    _, test, m = drawn(labels, groups)
    assert "of 99 groups" in m.remarks[0]
    assert len(test) == 20
    assert min(test) >= 600  # to look at
    assert drawn(["a", "b"] * 300, [None if i % 2 else f"p{i % 9}" for i in range(600)])[1]  # images without: their own
    _, test, m = drawn(["a", "b"] * 300, splits=[TRAIN] * 200 + [VAL] * 400)
    assert test == []
    assert m.remarks[0].startswith("There were no test images, and 200 training images have a label: a fifth of them")
    assert len(drawn(["a", "b"] * 500, splits=[TRAIN] * 500 + [VAL] * 500)[1]) == 100


@pytest.mark.parametrize("seed", range(20))
def test_groups_do_not_straddle(seed):
    rng = np.random.default_rng(seed)
    groups = [f"p{g}" for g in rng.integers(0, 150, 800)]
    labels = [("a", "b", "c", None)[i] for i in rng.choice(4, 800, p=[0.5, 0.2, 0.05, 0.25])]
    kept, test, m = drawn(labels, groups, seed)
    in_test = {groups[i] for i in test}
    assert not in_test & {groups[i] for i in set(kept) - set(test)}
    n_labelled = sum(label is not None for label in labels)
    assert 0.1 < len(test) / n_labelled < 0.3
    assert {labels[i] for i in test} == {"a", "b", "c"}
    assert 800 - len(kept) == m.left_out.total() > 0
    assert all(groups[i] in in_test and labels[i] is None for i in set(range(800)) - set(kept))

    number = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    of_class = {"a": 0, "b": 1, "c": 2, None: -1}
    images = images_of([of_class[label] for label in labels], [number[g] for g in groups])
    splits = split(images, 50, seed)
    taken = {groups[i] for i in splits.validation.tolist()}
    assert not taken & {groups[i] for i in [*splits.rest.tolist(), *splits.pretrain.tolist()]}
    assert 0.1 < len(splits.validation) / n_labelled < 0.3


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_known_the_splits_keep_their_promises(data):
    n, times, n_groups = (data.draw(some) for some in (st.integers(2, 40), *map(st.sampled_from, ((1, 40), (1, 40)))))
    drawn_groups = data.draw(st.sampled_from([[None], [None, "p", "q", "r", "s"]]))
    parts = data.draw(st.sampled_from([PARTS, st.sampled_from([None, TRAIN, VAL])]))
    some = [
        data.draw(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from(drawn_groups), parts)) for _ in range(n)
    ]
    some += [("a", None, TRAIN), ("b", None, TRAIN)] * 2
    rows = [
        (label, group and f"{group}{i % n_groups}", part) for i in range(times) for label, group, part in some
    ]  # so many that a split is drawn, or not
    labels, groups, given_splits = zip(*rows, strict=True)
    kept, test, m = drawn(labels, groups, splits=given_splits)
    assert len(kept) + m.left_out.total() == len(rows)
    assert set(m.splits) <= {TRAIN, VAL, TEST}
    assert all(labels[i] is not None for i, s in zip(kept, m.splits, strict=True) if s == VAL)
    in_train = {labels[i] for i, s in zip(kept, m.splits, strict=True) if s == TRAIN}
    assert {"a", "b"} <= in_train
    if own := [i for i in range(len(rows)) if given_splits[i] == TEST and labels[i] is not None]:
        assert test == own
        return
    in_test, others = ({groups[i] for i in some if groups[i]} for some in (test, set(kept) - set(test)))
    assert not in_test & others
    known = [i for i in range(len(rows)) if labels[i] and given_splits[i] in (None, TRAIN)]
    of_groups = {groups[i] or i for i in known}
    if 0.2 * len(known) >= 100 and (len(of_groups) >= 100 or not any(groups)):
        assert test
        assert all(labels[i] is not None for i in test)
    else:  # no label is lost, and no more than 7 of them are of no use to look at
        assert all(labels[i] is None for i in test)
        assert {i for i in range(len(rows)) if labels[i]} <= set(kept)
        assert len(test) == 0 or len(test) >= 8


# --- What serves for what -------------------------------------------------------------------------------------------


# As the splits of fully labelled data were before labels, groups and validation images could be given
KNOWN = {
    ("digits", 0, 0): "e5d164f285ae", ("digits", 7, 2): "cd9eb9ff099f",
    ("rare", 0, 0): "e4cacb38c83d", ("rare", 7, 2): "2cda50269298",
    ("letters", 0, 0): "123cb010d40c", ("letters", 7, 2): "76e9a3c8dbe9",
    ("few", 0, 0): "5215012402b1", ("few", 7, 2): "7b242a6aab5f",
}  # fmt: skip


@pytest.mark.parametrize("case", KNOWN)
def test_splits_of_fully_labelled_data_are_what_they_always_were(case):
    images = {
        "digits": lambda: load_images("digits"),
        "rare": lambda: images_of(np.repeat(range(5), [1, 2, 6, 40, 951])),
        "letters": lambda: images_of(np.tile(range(26), 60)),
        "few": lambda: images_of(np.repeat(range(3), 20)),
    }[case[0]]()
    splits, digest = split(images, 30, case[1], case[2]), hashlib.sha256()
    for part in (splits.pretrain, splits.validation, splits.rest):
        digest.update(part.numpy().tobytes())
    assert digest.hexdigest()[:12] == KNOWN[case]


@pytest.mark.parametrize("seed", range(5))
def test_unlabelled_images_are_pretrained_on_and_nothing_else(seed):
    labels = np.where(np.arange(500) % 5 < 2, np.arange(500) % 3, -1)
    images = images_of(labels)
    splits = split(images, n_unlabelled(images, seed), seed)
    known = set(np.flatnonzero(labels >= 0).tolist())
    validation, rest, unlabelled = (set(x.tolist()) for x in (splits.validation, splits.rest, splits.pretrain))
    assert validation | rest == known
    assert not validation & rest
    assert unlabelled == set(range(500)) - validation
    assert len(validation) == 39  # a fifth of 200, in whole rounds of 3 classes
    for n in (30, 100, len(known)):
        fit, choose = splits.budget(n)
        both = [*fit.tolist(), *choose.tolist()]
        assert len(set(both)) == n
        assert set(both) <= known
        assert set(choose.tolist()) <= validation
        counts = np.bincount(labels[both], minlength=3)
        assert counts.max() - counts.min() <= 2


@pytest.mark.parametrize("groups", [(), np.arange(100) // 7])
def test_without_any_label_there_are_images_to_pretrain_on_and_to_validate_on(groups):
    images = images_of(np.full(100, -1), groups)
    splits = split(images, n_unlabelled(images, 0), 0)
    assert len(splits.rest) == 0
    assert not set(splits.validation.tolist()) & set(splits.pretrain.tolist())
    assert 14 <= len(splits.validation) <= 20
    assert len(splits.validation) + len(splits.pretrain) == 100
    assert "No image of x has a label" in why_no_evaluation(images)
    if len(groups):
        assert not set(groups[splits.validation]) & set(groups[splits.pretrain])


def test_validation_images_of_the_source_are_the_validation_images():
    validation = np.arange(60, 90)
    images = images_of(np.arange(200) % 4, validation=validation)
    for seed in (0, 1):
        splits = split(images, 170, seed)
        assert sorted(splits.validation.tolist()) == validation.tolist()
        assert sorted(splits.pretrain.tolist()) == sorted(set(range(200)) - set(validation))
        assert np.bincount(np.arange(200)[splits.validation[:8]] % 4).tolist() == [2, 2, 2, 2]


def test_images_without_labels_decide_nothing_for_those_with_labels():
    labels = np.arange(100) % 4
    plain = split(images_of(labels), 30, 0)
    more = split(images_of(np.concatenate([labels, np.full(50, -1)])), 30, 0)
    assert torch.equal(plain.validation, more.validation)
    assert torch.equal(plain.rest, more.rest)


@pytest.mark.parametrize(("n", "n_test"), [(10, 0), (500, 100)])
def test_a_label_more_leaves_the_pixels(tmp_path, n, n_test):
    rows = [f"{i:02}.png,{'ab'[i % 2]}\n" for i in range(n)]
    put(tmp_path, {".": n + 10, "labels.csv": "".join(["image,label\n", *rows])})
    before = load_images(tmp_path)
    with (tmp_path / "labels.csv").open("a") as file:
        file.write(f"{n + 1}.png,a\n{n + 2},b\n")
    after = load_images(tmp_path)
    assert (before.n_labels, len(before.test)) == (n - n_test, n_test)
    assert (after.n_labels, len(after.test)) == (n - n_test + 2, n_test)
    pixels = [
        {name: x.numpy().tobytes() for part, names in ((d.train, d.train_names), (d.test, d.test_names))
         for x, name in zip(part, names, strict=True)} for d in (before, after)
    ]  # fmt: skip
    assert pixels[0] == pixels[1]


def test_one_group_to_train_on_leaves_none_to_validate():
    images = images_of([0, 1] * 30, groups=[0] * 60)
    assert "too few to spare" in why_no_validation(images)
    assert why_no_evaluation(images) == ""  # its own test images judge
    assert why_no_validation(images_of([0, 1] * 30, groups=np.arange(60) // 4)) == ""
