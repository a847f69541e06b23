"""Splits that are drawn: stratified, by seed, groups whole; what has no label is pretrained on, and no more."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contrastive import Settings, load_images, pretrain, resolve
from contrastive.data import Images, n_unlabelled, split, why_no_evaluation
from contrastive.data.manifest import TEST, TRAIN, VAL, Manifest, completed
from contrastive.training import start

from .source_cases import put
from .trainings import take_steps

TINY = dict(preset="smoke", epochs=1, base_channels=2, precision="float32", device="cpu")
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
    counts = {"a": 1, "b": 2, "c": 7, "d": 50, "e": 333}
    labels = [c for c, n in counts.items() for _ in range(n)] + [None] * 100
    kept, test, m = drawn(labels, seed=seed)
    assert kept == list(range(len(labels)))
    of_class = {c: sum(labels[i] == c for i in test) for c in counts}
    assert of_class == {"a": 0, "b": 1, "c": 1, "d": 10, "e": 67}
    assert all(labels[i] is not None for i in test)
    assert drawn(labels, seed=seed)[1] == test
    assert drawn(labels, seed=seed + 1)[1] != test
    assert f"drawn by seed {seed}" in m.remarks[0]


def test_what_is_drawn_does_not_depend_on_other_rows_or_names():
    labels = ["a", "b"] * 50
    test = drawn(labels)[1]
    assert drawn(["1", "2"] * 50)[1] == test  # however classes are called, in the same order
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


@pytest.mark.parametrize("seed", range(20))
def test_groups_do_not_straddle(seed):
    rng = np.random.default_rng(seed)
    groups = [f"p{g}" for g in rng.integers(0, 40, 400)]
    labels = [("a", "b", "c", None)[i] for i in rng.choice(4, 400, p=[0.5, 0.2, 0.05, 0.25])]
    kept, test, m = drawn(labels, groups, seed)
    in_test = {groups[i] for i in test}
    assert not in_test & {groups[i] for i in set(kept) - set(test)}
    n_labelled = sum(label is not None for label in labels)
    assert 0.1 < len(test) / n_labelled < 0.3
    assert {labels[i] for i in test} == {"a", "b", "c"}
    assert 400 - len(kept) == m.left_out.total()
    assert all(groups[i] in in_test and labels[i] is None for i in set(range(400)) - set(kept))

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
    n = data.draw(st.integers(2, 40))
    rows = [
        data.draw(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([None, "p", "q", "r", "s"]), PARTS))
        for _ in range(n)
    ]
    rows += [("a", None, TRAIN), ("b", None, TRAIN)] * 2
    labels, groups, given_splits = zip(*rows, strict=True)
    kept, test, m = drawn(labels, groups, splits=given_splits)
    assert len(kept) + m.left_out.total() == len(rows)
    assert set(m.splits) <= {TRAIN, VAL, TEST}
    assert all(labels[i] is not None for i in test)
    assert all(labels[i] is not None for i, s in zip(kept, m.splits, strict=True) if s == VAL)
    in_train = {labels[i] for i, s in zip(kept, m.splits, strict=True) if s == TRAIN}
    assert {"a", "b"} <= in_train
    if own := [i for i in range(len(rows)) if given_splits[i] == TEST and labels[i] is not None]:
        assert test == own
    else:  # drawn
        in_test, others = ({groups[i] for i in some if groups[i]} for some in (test, set(kept) - set(test)))
        assert not in_test & others


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


# --- No label is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [{}, {"method": "byol"}, {"method": "mocov2", "queue_size": 150}])
def test_pretraining_without_labels_gives_the_same_bits(method):
    images = load_images("digits")
    none = [torch.full_like(labels, -1) for labels in (images.train_labels, images.test_labels)]
    bare = dataclasses.replace(images, train_labels=none[0], test_labels=none[1], classes=())
    index = split(images, 320, 0).pretrain
    results = []
    for data in (images, bare):
        found, _ = resolve(Settings(dataset="digits", n_images=320, batch_size=64, **TINY, **method), data)
        training = start(found, data.format, data.train[index], data.train_labels[index])
        assert training.labels is None
        losses, _ = take_steps(training, 4)
        results.append((losses, [p.clone() for p in training.method.parameters()]))
    assert results[0][0] == results[1][0]
    assert len(set(results[0][0])) == 4  # it did something
    for a, b in zip(results[0][1], results[1][1], strict=True):
        assert torch.equal(a, b)


def test_a_folder_without_labels_is_pretrained_on(tmp_path, fresh_runs):
    (tmp_path / "x").mkdir()
    rng = np.random.default_rng(0)
    for i in range(60):
        Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(tmp_path / "x" / f"{i}.png")
    run = pretrain(Settings(dataset=str(tmp_path / "x"), **TINY), progress=False)
    assert run.settings.data.n_images == 39  # of 60, a fifth held out to look at, and a fifth of the rest
    assert np.isfinite(run.history[-1]["loss"])


def test_a_label_more_leaves_the_pixels(tmp_path):
    put(tmp_path, {".": 20, "labels.csv": "image,label\n" + "".join(f"{i:02}.png,{'ab'[i % 2]}\n" for i in range(10))})
    before = load_images(tmp_path)
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("11.png,a\n12,b\n")
    after = load_images(tmp_path)
    assert (before.n_labels + len(before.test), after.n_labels + len(after.test)) == (10, 12)
    pixels = [
        {name: x.numpy().tobytes() for part, names in ((d.train, d.train_names), (d.test, d.test_names))
         for x, name in zip(part, names, strict=True)} for d in (before, after)
    ]  # fmt: skip
    assert pixels[0] == pixels[1]


def test_one_group_to_train_on_leaves_none_to_validate(tmp_path):
    images = images_of([0, 1] * 30, groups=[0] * 60)
    assert "too few to spare" in why_no_evaluation(images)
    assert why_no_evaluation(images_of([0, 1] * 30, groups=np.arange(60) // 4)) == ""
