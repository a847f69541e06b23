"""On which images classifiers are judged, and by which labels."""

import dataclasses

import numpy as np
import pytest
import torch

from contrastive import Settings, load_images, pretrain, resolve
from contrastive.data import n_folds, n_repeats, split
from contrastive.data.folding import LEAST_TO_CHOOSE
from contrastive.evaluation import measurement
from contrastive.evaluation.judging import how_judged
from contrastive.evaluation.measurement import Measurement

from .few_images import images_of, without_test


def of(images, **given):
    """How classifiers are judged on these images."""
    settings, images = resolve(Settings(preset="smoke", general="none", **given), images)
    return how_judged(images, settings)


PATIENTS = np.arange(90) // 3  # of 90 images; those of one are of several classes
CASES = {
    "few labels": without_test(90, labelled=60, n_classes=3),
    "every image has one": without_test(64),
    "patients": without_test(90, n_classes=3, groups=PATIENTS),
    "patients, of whom some have no label": without_test(90, n_classes=2, labelled=70, groups=PATIENTS),
}


@pytest.mark.parametrize("draw", ["balanced", "random"])
@pytest.mark.parametrize("case", CASES)
def test_cross_validation_judges_each_image_once_by_labels_without_it(case, draw):
    images = CASES[case]
    own = of(images, budget_draw=draw)
    known = images.labelled
    assert own.n_folds == n_folds(images) == 5
    assert torch.equal(own.index, known)
    assert torch.equal(own.pixels, images.train[known])
    assert torch.equal(own.labels, images.train_labels[known])
    assert own.groups.tolist() == (images.groups[known].tolist() if len(images.groups) else [])
    assert (own.design.groups.tolist(), own.design.n_folds) == (own.groups.tolist(), 5)
    for n in (12, 40):
        repeats = own.tasks(n)
        assert len(repeats) == n_repeats(images) == 5
        for tasks in repeats:
            places = torch.cat([task.judged for task in tasks])
            assert places.sort().values.tolist() == list(range(len(known)))
            for task in tasks:
                used = set(task.labels.tolist())
                assert len(used) == len(task.labels) == n
                assert (images.train_labels[task.labels] >= 0).all()
                assert not used & set(known[task.judged].tolist())
                if len(images.groups):
                    held = set(images.groups[known[task.judged]].tolist())
                    assert not held & set(images.groups[task.labels].tolist())
                assert len(task.choose) == (0 if n < LEAST_TO_CHOOSE else n // 5)
        # Another repeat divides them anew
        assert len({tuple(sorted(task.judged.tolist())) for tasks in repeats for task in tasks}) == 25


def test_a_fifth_of_enough_labels_chooses_the_penalty_in_whole_groups():
    images = without_test(200, groups=np.arange(200) // 4)
    for task in of(images).tasks(120)[0]:
        assert 15 <= len(task.choose) <= 35
        assert len(task.fit) + len(task.choose) == 120
        assert not set(images.groups[task.fit].tolist()) & set(images.groups[task.choose].tolist())


def test_balanced_budgets_have_as_many_of_each_class_and_random_ones_do_not():
    labels = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat([0, 1], [80, 20])))
    images = dataclasses.replace(without_test(100), train_labels=labels)
    counts = {}
    for draw in ("balanced", "random"):
        tasks = [task for tasks in of(images, budget_draw=draw).tasks(20) for task in tasks]
        counts[draw] = [int(images.train_labels[task.labels].sum()) for task in tasks]
    assert set(counts["balanced"]) == {10}
    assert np.mean(counts["random"]) == pytest.approx(4, abs=1.5)


def test_a_larger_budget_holds_a_smaller_one():
    own = of(without_test(90, n_classes=3))
    for few, many in zip(own.tasks(12)[0], own.tasks(45)[0], strict=True):
        assert torch.equal(few.judged, many.judged)
        assert set(few.labels.tolist()) < set(many.labels.tolist())


def test_another_seed_divides_images_anew_and_the_same_does_not():
    held = [[task.judged.tolist() for task in of(without_test(90), seed=seed).tasks(12)[0]] for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


def test_with_a_test_split_all_its_images_are_judged_by_each_draw_of_labels():
    images = load_images("digits")
    own = of(images, label_draws=3)
    assert (own.n_folds, len(own.index), own.names) == (0, 0, images.test_names)
    assert own.pixels is images.test
    assert own.labels is images.test_labels
    n_images = own.settings.data.n_images
    for n, draws in ((10, 3), (100, 3), (143, 3), (144, 1), (1000, 1)):  # several of up to a tenth of all
        tasks = own.tasks(n)
        assert len(tasks) == draws
        for draw, (task,) in enumerate(tasks):
            assert torch.equal(task.judged, torch.arange(360))
            fit, choose = split(images, n_images, 0, draw).budget(n)
            assert torch.equal(task.fit, fit)
            assert torch.equal(task.choose, choose)
    drawn = [set(task.labels.tolist()) for (task,) in own.tasks(100)]
    assert len(set.union(*drawn)) > 250


def test_every_label_serves_a_probe_that_is_kept():
    images = load_images("digits")
    fit, choose = of(images).every_label(10_000)
    assert sorted([*fit.tolist(), *choose.tolist()]) == list(range(1437))
    assert len(choose) == pytest.approx(1437 / 5, rel=0.05)
    assert list(map(len, of(images).every_label(100))) == [80, 20]
    crossed = without_test(90, labelled=75, groups=np.arange(90) // 3)
    fit, choose = of(crossed).every_label(10_000)
    used = torch.cat([fit, choose]).tolist()
    assert sorted(used) == crossed.labelled.tolist()
    assert 10 <= len(choose) <= 20
    assert not set(crossed.groups[fit].tolist()) & set(crossed.groups[choose].tolist())
    few = without_test(90, labelled=LEAST_TO_CHOOSE - 1)
    assert list(map(len, of(few).every_label(10_000))) == [LEAST_TO_CHOOSE - 1, 0]
    fit, choose = of(crossed).every_label(60)
    assert (len(fit), len(choose)) == (48, 12)


@pytest.mark.parametrize("images", [load_images("digits"), without_test(400)], ids=["test split", "cross-validation"])
def test_a_sample_is_some_of_the_judged_images_always_the_same(images):
    own = of(images)
    assert torch.equal(own.sample(50), own.sample(50))
    assert own.sample(50).tolist() == sorted(set(own.sample(50).tolist()))
    assert set(own.sample(50).tolist()) < set(own.sample(100).tolist())
    assert own.sample(10_000).tolist() == list(range(len(own.labels)))
    assert own.sample(50).float().mean().item() == pytest.approx(len(own.labels) / 2, rel=0.25)  # from everywhere


def test_all_arms_have_the_very_same_labels_and_judged_images(monkeypatch, fresh_runs):
    """What classifiers are really given, as the measurement asks for them."""
    images = without_test(90, n_classes=3, groups=PATIENTS)
    given = dict(budgets=(30, 60), epochs=1, base_channels=2, supervised_steps=1, n_images=64)
    run = pretrain(Settings(preset="smoke", general="none", **given), progress=False, images=images)
    m = Measurement(run, images, None, False)
    used, fit_probes, classifier = {}, measurement.fit_probes, measurement.classifier

    def probes(blocks, labels, parts, n_classes):
        used[arm] = [tuple(sorted(labels[part].tolist()) for part in of_each) for of_each in parts]
        return fit_probes(blocks, labels, parts, n_classes)

    def network(settings, images, index, **how):
        used.setdefault(str(sorted(how)), []).append(index)
        return classifier(settings, images, index, **how)

    monkeypatch.setattr(measurement, "fit_probes", probes)
    monkeypatch.setattr(measurement, "classifier", network)
    for own in m.arms:
        if own.labels is None:
            arm = own.id
            m.probe_arm(own)
    m.labelled_arms()
    expected = [
        (sorted(images.train_labels[task.fit].tolist()), sorted(images.train_labels[task.choose].tolist()))
        for n in (30, 60) for tasks in m.judging.tasks(n) for task in tasks
    ]  # fmt: skip
    assert set(used) == {"linear", "random_encoder", "raw_pixel", "[]", "['augmented']", "['pretrained']"}
    assert used["linear"] == used["random_encoder"] == used["raw_pixel"] == expected
    headline = [task.labels for task in m.judging.tasks(60)[0]]
    for how, indices in used.items():
        if how.startswith("["):
            assert len(indices) >= 5
            assert all(torch.equal(a, b) for a, b in zip(indices[-5:], headline, strict=True))
    for n, draws in (("linear_accuracy@60", 5), ("supervised_accuracy@60", 1)):
        assert m.values[n].shape == (draws, 90)


def test_guessing_takes_the_most_frequent_class_of_those_that_are_judged():
    images = images_of(60, n_classes=3)
    train = images.train_labels.clone()
    train[:30] = 2
    images = dataclasses.replace(images, train_labels=train, test_labels=images.test_labels % 2, sha256="few")
    settings = Settings(preset="smoke", general="none", n_images=20, epochs=1, base_channels=4, budgets=(12,))
    own = Measurement(pretrain(settings, progress=False, images=images), images, None, False)
    own.majority()
    found = {row.metric: row.value for row in own.rows}
    share = 100 * (images.test_labels == train[train < 2].bincount().argmax()).double().mean().item()
    assert found["accuracy"] == pytest.approx(share)
    assert found["balanced_accuracy"] == pytest.approx(50)
