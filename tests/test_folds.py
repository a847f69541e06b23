"""Cross-validation of few labels: folds, budgets within them, what cannot be cross-validated, images to look at."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedGroupKFold

from contrastive import Settings, UserError, load_images, resolve
from contrastive.data import folds, most_labels, n_folds, n_repeats, why_no_evaluation, why_no_validation
from contrastive.training import check_evaluation

from .few_images import images_of, without_test
from .source_cases import put, rows_of
from .test_drawn_splits import drawn
from .test_drawn_splits import images_of as grey

RNG = np.random.default_rng(0)


def few(labels, groups=()):
    """Grey images with these labels (-1 for none), and no test images."""
    images = grey(labels, groups)
    return dataclasses.replace(images, test=images.test[:0], test_labels=images.test_labels[:0])


PATIENTS = RNG.integers(0, 40, 200)  # of 200 images; about half of them have one class only
KINDS = {
    "12 labels in 3 classes": ([0, 1, 2] * 4, (), 4),
    "two of each of two classes": ([0, 0, 1, 1, 2, 3, 4, 0], (), 3),
    "95 : 5": ([0] * 95 + [1] * 5, (), 5),
    "97 : 3": ([0] * 97 + [1] * 3, (), 5),
    "a class of one image": ([0, 1] * 6 + [2], (), 5),
    "few labels among many images": (np.where(np.arange(300) % 10 == 3, np.arange(300) // 10 % 3, -1), (), 5),
    "patients": (np.where(RNG.random(200) < 0.2, 2, PATIENTS % 2), PATIENTS, 5),
    "patients, of whom some have no label": (np.where(PATIENTS < 30, PATIENTS % 3, -1), PATIENTS, 5),
    "groups of some images only": (np.arange(60) % 2, [*[0] * 12, *[1] * 12, *range(2, 38)], 5),
    "a group that is a class": ([*[0] * 10, *[1, 2] * 10], [*[0] * 10, *range(1, 21)], 5),
    "two groups a class": ([*[0] * 10, *[1] * 10], np.arange(20) // 5, 2),
    "a large group": ([0, 1] * 50, [*[0] * 60, *[1 + i // 4 for i in range(40)]], 5),
}  # fmt: skip
EVERY = pytest.mark.parametrize("kind", KINDS)


@EVERY
@pytest.mark.parametrize(("seed", "repeat"), [(0, 0), (0, 1), (7, 4)])
def test_each_label_is_held_out_once_and_groups_whole(kind, seed, repeat):
    labels, groups, n = KINDS[kind]
    images, labels, groups = few(labels, groups), np.array(labels), np.array(groups)
    known = np.flatnonzero(labels >= 0)
    found = folds(images, seed, repeat)
    assert len(found) == n_folds(images) == n
    assert why_no_evaluation(images) == ""
    assert sorted(i for fold in found for i in fold.held.tolist()) == list(range(len(known)))
    for fold in found:
        held, train = known[fold.held], fold.train.numpy()
        assert sorted(train) == sorted(set(known) - set(held))
        assert (fold.labels == labels[train]).all()
        if len(groups):
            assert (fold.groups == groups[train]).all()
            assert not {*groups[held]} & {*groups[train]}
        else:
            assert len(fold.groups) == 0
        assert len(np.unique(fold.labels)) >= 2


@EVERY
def test_classes_are_alike_in_each_fold(kind):
    labels, groups = np.array(KINDS[kind][0]), KINDS[kind][1]
    for repeat in range(5):
        held = np.array([np.bincount(labels[labels >= 0][f.held], minlength=labels.max() + 1)
                         for f in folds(few(labels, groups), 3, repeat)])  # fmt: skip
        if not len(groups):
            assert (held.max(0) - held.min(0)).max() <= 1  # each class by itself
        for c in np.unique(labels[labels >= 0]):  # a class is not held out whole, unless it is of one image, or group
            alone = len(np.unique(np.array(groups)[labels == c] if len(groups) else np.flatnonzero(labels == c))) == 1
            assert (held[:, c] == held[:, c].sum()).any() == alone


def unlike(labels, parts, k):
    """How much shares of classes differ between parts: a standard deviation, over parts, mean over classes."""
    counts = np.array([np.bincount(labels[part], minlength=k) for part in parts])
    return (counts / counts.sum(0)).std(0).mean()


def test_with_groups_classes_are_as_alike_as_scikit_learn_has_them():
    labels, groups = (np.array(x) for x in KINDS["patients"][:2])
    ours = [unlike(labels, [f.held.numpy() for f in folds(few(labels, groups), s, 0)], 3) for s in range(20)]
    theirs = [
        unlike(labels, [held for _, held in StratifiedGroupKFold(5, shuffle=True, random_state=100 + s).split(
            labels, labels, groups)], 3) for s in range(8)
    ]  # fmt: skip
    by_chance = [
        unlike(labels, [np.flatnonzero(np.isin(groups, part)) for part in np.array_split(RNG.permutation(40), 5)], 3)
        for _ in range(8)
    ]
    assert np.mean(ours) <= 1.15 * np.mean(theirs)
    assert np.mean(ours) < 0.6 * np.mean(by_chance)


def test_folds_follow_from_seed_and_repeat():
    for name in ("few labels among many images", "patients"):
        images = few(*KINDS[name][:2])
        seen = {}
        for seed in (0, 1):
            for repeat in (0, 1, 2):
                a, b = ([(f.held.tolist(), f.train.tolist()) for f in folds(images, seed, repeat)] for _ in "ab")
                assert a == b
                seen[seed, repeat] = str(sorted(held for held, _ in a))
        assert len(set(seen.values())) == 6


# --- Budgets --------------------------------------------------------------------------------------------------------


@EVERY
def test_budgets_of_a_fold_are_nested_balanced_and_of_other_images(kind):
    labels, groups, _ = KINDS[kind]
    images, labels, groups = few(labels, groups), np.array(labels), np.array(groups)
    known = np.flatnonzero(labels >= 0)
    for fold in folds(images, 1, 0):
        held, before = {*known[fold.held]}, set()
        in_fold = np.bincount(labels[fold.train], minlength=labels.max() + 1)
        for n in range(1, len(fold.train) + 1):
            fit, choose = (part.tolist() for part in fold.budget(n))
            both = {*fit, *choose}
            assert len(fit) + len(choose) == len(both) == n
            assert before < both
            assert not both & held
            counts, before = np.bincount(labels[[*both]], minlength=len(in_fold)), both
            assert (counts >= np.minimum(in_fold, counts.max() - 1)).all()  # in whole rounds, until a class runs out
            assert n >= 50 or not choose


@pytest.mark.parametrize("kind", ["95 : 5", "97 : 3", "patients", "a large group"])
def test_of_fifty_labels_and_more_a_fifth_chooses(kind):
    labels, groups, _ = KINDS[kind]
    labels, groups = np.array(labels), np.array(groups)
    images = few(labels, groups)
    for fold in folds(images, 0, 0):
        for n in (50, 55, len(fold.train)):
            if not 50 <= n <= len(fold.train):
                continue
            (fit, choose), again = fold.budget(n), fold.budget(n)
            assert torch.equal(choose, again[1])
            assert {*labels[fit]} == {*labels[torch.cat([fit, choose])]}  # no class is without images to fit on
            if len(groups):
                assert not {*groups[fit]} & {*groups[choose]}
            if kind != "a large group":
                assert 0.12 * n <= len(choose) <= 0.28 * n
                of_n, chosen = (np.bincount(labels[part]) for part in (torch.cat([fit, choose]), choose))
                assert (chosen[np.flatnonzero(of_n >= 5)] > 0).all()
    assert {len(fold.budget(50)[1]) for fold in folds(few([0, 1] * 50), 0, 0)} == {10}


def test_random_budgets_are_drawn_from_the_same_folds():
    images = few([0] * 95 + [1] * 5)
    for even, odd in zip(folds(images, 0, 1), folds(images, 0, 1, balanced=False), strict=True):
        assert torch.equal(even.held, odd.held)
        assert sorted(even.train.tolist()) == sorted(odd.train.tolist())
        assert np.bincount(even.labels[:8]).tolist() == [4, 4]
        assert (odd.labels == images.train_labels.numpy()[odd.train]).all()
    rare = [fold.labels[:20].sum() for r in range(20) for fold in folds(images, 0, r, balanced=False)]
    assert 0.7 < np.mean(rare) < 1.3  # of 20 labels one, by chance: 5 of 100 are


UNEVEN = np.repeat(np.arange(14), [1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 23])  # groups of 142 images


def test_the_largest_budget_is_what_every_fold_has():
    images = without_test(142, groups=UNEVEN)
    sizes = [[min(142 - len(f.held) for f in folds(images, seed, repeat)) for repeat in range(5)] for seed in range(9)]
    assert any(of[0] > min(of) for of in sizes)
    assert [most_labels(images, [seed]) for seed in range(9)] == [min(of) for of in sizes]
    assert most_labels(images, range(1, 9)) == min(map(min, sizes[1:])) < min(sizes[1])
    assert most_labels(few([0, 1, 2] * 4), [0]) == 9
    assert most_labels(few([0, 1] * 31), range(9)) == 62 - 13


@pytest.mark.parametrize(("n", "times"), [(8, 5), (500, 5), (501, 2), (2000, 2), (2001, 1)])
def test_few_labels_are_divided_more_often(n, times):
    assert n_repeats(few(np.concatenate([np.arange(n) % 2, np.full(300, -1)]))) == times


def test_budgets_are_those_of_every_fold():
    # Of 62 labels in five folds, two hold out 13.
    images = without_test(62)
    settings, _ = resolve(Settings(preset="quick"), images)
    assert settings.evaluation.budgets[-1] == most_labels(images, [0]) == 49
    assert settings.evaluation.budgets == (4, 10, 24, 49)
    check_evaluation(settings, images)
    assert resolve(Settings(preset="smoke"), without_test(140))[0].evaluation.budgets == (100,)  # not 600: 112 are left
    asked, _ = resolve(Settings(preset="quick", budgets=(10, 50)), images)
    with pytest.raises(UserError) as caught:
        check_evaluation(asked, images)
    said = "mine has 49 training labels beside each fold of the cross-validation. Ask for at most 49."
    assert str(caught.value) == f"parameter budgets=50: {said}"


def test_budgets_fit_the_folds_of_all_seeds():
    images = without_test(142, groups=UNEVEN)
    most = [most_labels(images, [seed]) for seed in range(30)]
    first = next(seed for seed in range(29) if most[seed] > most[seed + 1])
    for n_seeds in (1, 2):
        settings, _ = resolve(Settings(preset="quick", seed=first, n_seeds=n_seeds), images)
        assert settings.evaluation.budgets[-1] == most[first + n_seeds - 1]
        check_evaluation(settings, images)


# --- What cannot be evaluated, and what can -------------------------------------------------------------------------


TOO_FEW = "x has {} images with a label, too few to cross-validate a classifier on: at least 8 are needed."
NOT_TWO = (
    "Of x no classifier can be cross-validated: two classes with two labelled {} each are needed, or nothing is left "
    "to learn a class from when one is held out."
)
NOT_ONE_EACH = (
    "x has {} images with a label, of {} classes: too few to cross-validate a classifier on, which needs one of each "
    "class beside those held out."
)


@pytest.mark.parametrize(
    ("labels", "groups", "said"),
    [
        ([-1] * 9, (), "No image of x has a label that can be used."),
        ([0, 1, 0, 1, 0, 1, 0], (), TOO_FEW.format(7)),
        ([0, 1, 0, 1, 0, 1, 0, 1], (), ""),
        (list(range(9)), (), NOT_TWO.format("images")),  # one label a class
        ([0] * 20, (), NOT_TWO.format("images")),
        ([0] * 20 + [1], (), NOT_TWO.format("images")),
        ([0, 1] * 10, [0] * 20, NOT_TWO.format("groups")),  # all of one group
        ([0, 1] * 10, [0, 1] * 10, NOT_TWO.format("groups")),  # two classes of one group each
        ([0, 1] * 10, [0, 1] * 9 + [2, 1], NOT_TWO.format("groups")),
        ([0, 1] * 10, [0, 1] * 9 + [2, 3], ""),
        ([0, 0, 1, 1, 2, 3, 4, 5], (), NOT_ONE_EACH.format(8, 6)),
        ([0, 1] * 10 + [2], [*range(20), 0], ""),
    ],
)
def test_what_cannot_be_cross_validated_is_told_in_a_sentence(labels, groups, said):
    images = few(torch.tensor(labels), groups)
    images = dataclasses.replace(images, classes=images.classes if max(labels) >= 0 else ())
    assert why_no_evaluation(images) == said
    settings, _ = resolve(Settings(preset="smoke"), bigger(images))
    if said:
        with pytest.raises(UserError) as caught:
            check_evaluation(settings, images)
        assert str(caught.value) == f"{said} Pretraining (01_pretrain) needs no label."
        assert why_no_validation(images) == said
    else:
        check_evaluation(settings, images)


def bigger(images):
    """The same with images that an encoder takes."""
    pixels = torch.zeros(len(images.train), 1, 16, 16, dtype=torch.uint8)
    return dataclasses.replace(images, train=pixels, sha256="0" * 64)


def test_given_test_images_are_used_though_they_are_few_and_lack_a_class(tmp_path):
    put(tmp_path, {"train/a": 5, "train/b": 5, "train/c": 5, "test/a": 4, "test/b": 4})
    images = load_images(tmp_path)
    assert rows_of(images) == {"train": {"a": 5, "b": 5, "c": 5}, "test": {"a": 4, "b": 4}}
    assert images.account.remarks == ("Class c has no test images, so how well it is recognised is not measured.",)
    assert not images.cross_validated
    assert why_no_evaluation(images) == ""


def test_folds_of_a_folder_keep_its_groups_whole(tmp_path):
    put(tmp_path, {f"{'ab'[i % 2]}/{f'p{i // 4}_' if i < 24 else ''}{i}.png": ... for i in range(40)})
    images = load_images(tmp_path, group=r"(p\d+)_")
    assert images.cross_validated
    assert len(images.labelled) == 40
    for fold in folds(images, 0, 0):
        of = [{images.train_names[i].split("/")[1].split("_")[0] for i in part.tolist()}
              for part in (fold.train, images.labelled[fold.held])]  # fmt: skip
        assert not of[0] & of[1]
    named = [images.group_names[g] for g in images.groups]
    assert {name: named.count(name) for name in named} == {"": 16} | {f"p{i}": 4 for i in range(6)}
    assert len(images.groups.unique()) == 6 + 16  # each without one is its own


# --- Images to look at ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "n_bound", "n_shown"), [(79, 0, 0), (80, 0, 16), (10_100, 0, 2000), (80, 42, 8), (80, 43, 0), (80, 80, 0)]
)
@pytest.mark.parametrize("by", ["groups", "copies"])
def test_beside_few_labels_images_are_held_out_to_look_at_if_they_are_many(n, n_bound, n_shown, by):
    # The first `n_bound` images without a label belong to labelled ones, of which none may be lost.
    labels, kinds = ["a", "b"] * 10 + [None] * n, [*range(20), *[i % 20 for i in range(n_bound)], *range(20, 20 + n)]
    kinds = kinds[: 20 + n]
    kept, test, m = drawn(labels, **{by: [f"p{k}" for k in kinds] if by == "groups" else kinds})
    assert len(kept) == 20 + n
    assert len(test) == n_shown
    assert all(i >= 20 + n_bound for i in test)
    assert "20 training images have a label" in m.remarks[0]
    assert m.remarks[1:] == ([f"{n_shown:,} images, drawn by seed 0, were held out to look at."] if n_shown else [])


def test_test_images_of_one_class_are_no_test():
    images = dataclasses.replace(images_of(), test_labels=images_of().test_labels * 0)
    assert why_no_evaluation(images).startswith("All test images of mine are 0, so nothing can be told apart there.")
    assert why_no_evaluation(images_of()) == ""
