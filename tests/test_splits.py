"""Which images serve for what, label budgets, and what settings mean for the data."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive import Settings, UserError, load_images, pretrain, resolve
from contrastive.data import Images, default_budgets, headline_labels, split
from contrastive.evaluation.soundness import data_checks
from contrastive.training import check_evaluation, check_validation, start

from . import few_images
from .trainings import take_steps

TINY = dict(preset="smoke", epochs=1, base_channels=2, precision="float32", device="cpu")


def test_splits_are_disjoint_seeded_and_nested():
    images = load_images("sklearn_digits")
    splits = split(images, 512, seed=1)
    assert not set(splits.pretrain.tolist()) & set(splits.validation.tolist())
    assert set(splits.pretrain.tolist()) <= set(splits.rest.tolist())
    assert sorted([*splits.validation.tolist(), *splits.rest.tolist()]) == list(range(len(images.train)))
    assert torch.equal(split(images, 512, seed=1).pretrain, splits.pretrain)
    assert not torch.equal(split(images, 512, seed=2).pretrain, splits.pretrain)
    assert torch.equal(split(images, 100, seed=1).pretrain, splits.pretrain[:100])


def test_label_budgets_are_balanced_and_nested():
    images = load_images("sklearn_digits")
    splits = split(images, 512, seed=0)
    seen: set[int] = set()
    for n in (20, 100, 600, len(images.train)):
        fit, choose = splits.budget(n)
        both = [*fit.tolist(), *choose.tolist()]
        assert len(set(both)) == n
        assert seen <= set(both)
        seen = set(both)
        assert not set(choose.tolist()) & set(splits.pretrain.tolist())
        if n <= 600:
            counts = torch.bincount(images.train_labels[both], minlength=10)
            assert counts.max() - counts.min() <= (2 if n == 20 else 0)


def images_of(train_labels, test_labels, side=28):
    """Grey images with these labels, a tensor each."""
    train, test = (torch.zeros(len(labels), 1, side, side, dtype=torch.uint8) for labels in (train_labels, test_labels))
    names = tuple(map(str, range(int(train_labels.max()) + 1)))
    return Images("x", train, train_labels, test, test_labels, names, (0.5,), (0.5,), "")


def test_rare_classes_do_not_go_to_validation_whole():
    counts = torch.tensor([1, 2, 6, 40, 951])
    labels = torch.arange(5).repeat_interleave(counts)
    images = images_of(labels, labels[:8])
    splits = split(images, 500, seed=0)
    kept, spared = (torch.bincount(labels[part], minlength=5) for part in (splits.rest, splits.validation))
    assert spared.tolist() == [0, 1, 2, 8, 189]  # a fifth of 1,000; of the first four a fifth of each, rounded up
    assert (kept + spared).tolist() == counts.tolist()
    # Balanced as long as no class runs out, though they were cut differently
    assert torch.bincount(labels[splits.rest[:5]], minlength=5).tolist() == [1, 1, 1, 1, 1]
    assert torch.bincount(labels[splits.rest[:14]], minlength=5).tolist() == [1, 1, 4, 4, 4]
    for draw in (0, 1):
        fit, choose = split(images, 500, 0, draw).budget(100)
        assert torch.bincount(labels[fit], minlength=5).tolist() == [1, 1, 4, 32, 42]
        assert torch.bincount(labels[choose], minlength=5).tolist()[:3] == [0, 1, 2]
        assert len(choose) == 20


def test_too_few_images_of_too_many_classes_are_told_of(tmp_path):
    labels = np.repeat(np.arange(10), [2] * 9 + [30])
    data = {f"{part}_images": np.zeros((len(labels), 28, 28), np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "rare.npz", **data, train_labels=labels, test_labels=labels)
    settings, images = resolve(Settings(dataset=str(tmp_path / "rare.npz"), batch_size=8))
    with pytest.raises(
        UserError, match=r"rare has 48 training images with a label, of 10 classes: too few .* Five of each are enough"
    ):
        check_validation(settings, images)
    check_evaluation(settings, images)  # which needs no validation images


@pytest.mark.parametrize("labelled", [4, 9])
def test_too_few_labels_to_validate_on_are_evaluated_on_given_test_images(labelled):
    images = few_images.images_of(labelled=labelled)
    settings, _ = resolve(Settings(preset="smoke"), images)
    assert settings.evaluation.budgets[-1] == labelled
    assert settings.ablations == Settings(preset="smoke").ablations
    check_evaluation(settings, images)
    with pytest.raises(UserError, match=f"mine has {labelled} training images with a label, of 2 classes: too few to"):
        check_validation(settings, images)


def test_a_sample_of_test_images_has_all_classes_though_they_lie_by_class():
    labels = torch.arange(5).repeat_interleave(1000)
    sample = images_of(labels, labels).test_sample(500)
    assert torch.equal(sample, sample.unique())
    assert torch.bincount(labels[sample], minlength=5).min() > 70
    assert torch.equal(images_of(labels, labels[:8]).test_sample(500), torch.arange(8))


def test_test_images_that_are_training_images_are_counted():
    images = load_images("sklearn_digits")
    test = torch.cat([images.test[:5], images.train[[3, 700]], images.test[5:]])
    (before,), (after,) = data_checks(images), data_checks(dataclasses.replace(images, test=test, sha256="other"))
    exact = [int(of["seen"].split(", ")[1].split()[0]) for of in (before, after)]
    assert exact == [0, 2]
    assert not after["passed"]


@pytest.mark.parametrize(("classes", "n"), [(26, 100), (26, 300), (100, 100), (100, 600), (2, 10), (2, 101)])
def test_every_class_has_its_share_of_a_budget(classes, n):
    labels = torch.arange(classes).repeat(60)
    fit, choose = split(images_of(labels, labels[:8]), 10, 0).budget(n)
    counts = torch.bincount(labels[torch.cat([fit, choose])], minlength=classes)
    assert counts.max() - counts.min() <= (n % classes > 0)
    assert len(choose) % classes == 0


@pytest.mark.parametrize(
    ("n_train", "n_classes", "n_images", "full", "budgets", "headline"),
    [
        (60_000, 10, 5000, False, (100, 600, 5000), 5000),  # MNIST
        (60_000, 10, 5000, True, (10, 50, 100, 600, 1000, 5000, 6000, 30_000, 60_000), 30_000),
        (60_000, 10, 55_000, False, (100, 600, 6000), 6000),  # as many unlabelled images as labels
        (1437, 10, 1157, False, (20, 50, 100, 200, 500, 718, 1000, 1437), 1437),  # scikit-learn's digits
        (1437, 10, 1157, True, (20, 50, 100, 200, 500, 718, 1000, 1437), 1437),
        (4708, 2, 3767, False, (4, 10, 20, 40, 100, 200, 400, 1000, 2354, 4708), 4708),  # PneumoniaMNIST
        (20_000, 10, 5000, False, (100, 200, 2000), 2000),  # many
        (20_000, 250, 5000, True, (250, 1250, 2000, 2500, 10_000, 20_000), 10_000),  # 100 of each class there are not
        (19_999, 10, 5000, False, (20, 50, 100, 200, 500, 1000, 2000, 5000, 9999, 19_999), 19_999),  # and fewer
        (50, 10, 40, False, (25, 50), 50),  # five of each class: 20 would say no more than 25
        (120, 10, 96, False, (20, 60, 120), 120),
        (600, 100, 400, True, (200, 300, 600), 600),
        (12, 3, 9, False, (6, 12), 12),
        (7, 3, 9, False, (7,), 7),  # 6 say no more than 7
        (266, 2, 100, False, (4, 10, 20, 40, 133, 266), 266),  # 100 and 200 are more than three quarters of others
        (268, 2, 100, False, (4, 10, 20, 40, 100, 134, 200, 268), 268),
        (199, 2, 100, False, (4, 10, 20, 40, 99, 199), 199),  # 100 say no more than 99
        (22, 6, 18, False, (12, 22), 22),  # half is fewer than two of each class
        (2, 2, 2, False, (2,), 2),
    ],
)
def test_budgets_follow_from_the_data(n_train, n_classes, n_images, full, budgets, headline):
    assert default_budgets(n_train, n_classes, n_images, full) == budgets
    labels = torch.arange(n_train) % n_classes
    assert headline_labels(budgets, images_of(labels, labels[:8], 1)) == headline
    assert headline_labels(budgets, images_of(labels, labels[:0], 1)) == budgets[-1]  # cross-validated


def test_the_headline_is_one_of_the_budgets_that_were_asked_for():
    many, few = (images_of(torch.arange(n) % 10, torch.arange(8), 1) for n in (60_000, 9999))
    assert headline_labels((50, 200), many) == 200
    assert headline_labels((50, 30_000, 30_001), many) == 30_000
    assert headline_labels((59_000, 60_000), many) == 59_000
    assert headline_labels((50, 200), few) == 200
    assert headline_labels((50, 30_000), few) == 30_000


def test_resolve_says_what_auto_means():
    settings, images = resolve(Settings(dataset="digits"))
    assert settings.data.dataset == images.name == "sklearn_digits"
    assert settings.data_sha256 == images.sha256
    assert settings.data.n_images == 1157
    assert settings.evaluation.budgets == (20, 50, 100, 200, 500, 718, 1000, 1437)
    assert settings.runtime.device != "auto"
    assert settings.runtime.precision in ("float32", "bfloat16")
    again, same = resolve(settings)
    assert again == settings
    assert same.sha256 == images.sha256
    full, _ = resolve(Settings(dataset="digits", evaluation="full"))
    assert full.evaluation.budgets == settings.evaluation.budgets  # all that there is to see of so few


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n_images": 1158}, "n_images=1158"),
        ({"n_images": 100, "batch_size": 101}, "batch_size=101"),
        ({"dataset": "digit"}, "Did you mean 'sklearn_digits'?"),
        ({"device": "cuda:99"}, "no such device"),
        ({"view_size": 12}, "view_size=12: encoder cnn needs at least 16 pixels"),
        ({"view_size": 40}, "view_size=40"),
    ],
)
def test_what_the_data_cannot_serve(given, said):
    with pytest.raises(UserError) as caught:
        resolve(Settings(**{"dataset": "sklearn_digits", **given}))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("budgets", "said"), [((2000,), "budgets=2000"), ((9,), "budgets=9: sklearn_digits has 10 classes")]
)
def test_budgets_that_the_data_cannot_serve(budgets, said):
    settings, images = resolve(Settings(dataset="sklearn_digits", budgets=budgets))
    with pytest.raises(UserError) as caught:
        check_evaluation(settings, images)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# --- No label is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [{}, {"method": "byol"}, {"method": "mocov2", "queue_size": 192}])
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
