"""Whether a result stands when images that look alike are held out together."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from contrastive import Settings, load_images, pretrain
from contrastive.data.images import make_images
from contrastive.evaluation import Evaluation, Findings
from contrastive.evaluation.alike import APART, LEAST, MOST, TOGETHER, apart, can_be_told, clusters
from contrastive.evaluation.measurement import Measurement
from contrastive.report import advice

GENERATOR = torch.Generator().manual_seed(0)


def test_clusters_are_those_of_complete_linkage_in_each_class():
    features, labels = torch.randn(90, 8, generator=GENERATOR), torch.arange(90) % 3 * 2  # class 1 does not occur
    found = clusters(features, labels)
    assert found.dtype == np.int64
    expected = np.zeros(90, int)
    for c in (0, 2, 4):
        own = labels == c
        tree = linkage(features[own].double().numpy(), method="complete", metric="cosine")
        expected[own] = 10 * c + fcluster(tree, 30 // TOGETHER, criterion="maxclust")
    assert adjusted_rand_score(expected, found) == pytest.approx(1)


def test_near_duplicates_come_together_however_many_there_are_of_each():
    sizes = [1, 2, 12, 5, 3, 7] * 2
    kinds = np.repeat(np.arange(len(sizes)), sizes)
    labels = torch.from_numpy(kinds // 6)
    centres = torch.randn(len(sizes), 32, generator=GENERATOR)
    features = centres[torch.from_numpy(kinds)] + 0.01 * torch.randn(len(kinds), 32, generator=GENERATOR)
    assert len(kinds) // TOGETHER == len(sizes)
    assert adjusted_rand_score(kinds, clusters(features, labels)) == 1
    assert adjusted_rand_score(kinds, clusters(7 * features, labels)) == 1  # lengths play no part


@pytest.mark.parametrize(("n_classes", "each"), [(10, 20), (3, 20), (2, 30)])
def test_of_classes_that_differ_all_are_still_recognised_when_images_are_held_apart(n_classes, each):
    labels = torch.arange(n_classes).repeat_interleave(each)
    features = 3 * torch.randn(n_classes, 16, generator=GENERATOR)[labels]
    features += torch.randn(len(labels), 16, generator=GENERATOR)
    folds = apart(features, labels, torch.arange(len(labels)), 5, seed=0)
    right = []
    for fold in folds:
        assert set(labels[fold.train].tolist()) == set(range(n_classes))
        means = torch.stack([features[fold.train][labels[fold.train] == c].mean(0) for c in range(n_classes)])
        right.append((torch.cdist(features[fold.held], means).argmin(1) == labels[fold.held]).float())
    assert torch.cat(right).mean() > 0.95


def test_folds_hold_out_whole_clusters_and_each_image_once():
    kinds = torch.arange(100) // 5
    features = torch.randn(20, 16, generator=GENERATOR)[kinds] + 0.01 * torch.randn(100, 16, generator=GENERATOR)
    labels, index = kinds % 3, torch.arange(100) * 2 + 1  # every other image has a label
    found = apart(features, labels, index, 5, seed=0)
    assert len(found) == 5
    assert sorted(torch.cat([fold.held for fold in found]).tolist()) == list(range(100))
    for fold in found:
        held = set(kinds[fold.held].tolist())
        assert not held & {int(kinds[(i - 1) // 2]) for i in fold.train.tolist()}
        assert sorted([*fold.train.tolist(), *index[fold.held].tolist()]) == index.tolist()


def test_few_images_of_a_class_or_very_many_are_not_looked_at():
    for n, told in ((LEAST - 1, False), (LEAST, True)):
        assert can_be_told(torch.tensor([0] * 50 + [2] * n)) is told
    assert can_be_told(torch.arange(MOST) % 2)
    assert not can_be_told(torch.arange(MOST + 1) % 2)


# --- Whole measurements -------------------------------------------------------------------------------------------


def measured(images, **given):
    """The linear probe, cross-validated as it is and with images held apart that look alike, in a report's words."""
    settings = Settings(preset="smoke", general="none", epochs=3, base_channels=4, **given)
    run = pretrain(settings, progress=False, images=images)
    m = Measurement(run, images, None, False)
    m.probe_arm(next(arm for arm in m.arms if arm.id == "linear"))
    m.held_apart()
    m.majority()
    own = Evaluation(m.rows, m.headline, m.probabilities, m.values, {}, 0.0, True)
    return Findings([own], m.judging, m.headline)


def digits(index):
    """Some of the bundled digits, and no test images."""
    every = load_images("digits")
    arrays = [every.train[index].numpy(), every.train_labels[index].numpy()]
    return make_images("mine", [*arrays, *(part[:40] for part in arrays)])


def without_test(images):
    return dataclasses.replace(images, test=images.test[:0], test_labels=images.test_labels[:0])


def patients(n=36, pictures=6):
    """So many pictures of each of some patients, whose labels are drawn at random: nothing can be learned of others."""
    rng = np.random.default_rng(0)
    every = load_images("digits").train[rng.permutation(1437)[:n], 0].numpy().astype(float)
    noise = rng.normal(0, 8, (n, pictures, *every.shape[1:]))
    pixels = (every[:, None] + noise).clip(0, 255).astype(np.uint8).reshape(-1, *every.shape[1:])
    labels = np.repeat(rng.permutation(np.arange(n) % 2), pictures)
    return without_test(make_images("patients", [pixels, labels, pixels[:40], labels[:40]]))


def test_labels_drawn_by_patient_are_recognised_but_not_when_copies_are_held_apart(fresh_runs):
    found = measured(patients(), budgets=(150,))
    linear, held_apart = found.percent("linear"), found.percent(APART)
    assert linear["mean"] > 85
    assert linear["low"] > found.guess[found.metric] == 50
    assert held_apart["low"] < 50 < held_apart["high"]
    assert advice.copies_explain(found)
    assert advice.answer(found, Settings(preset="smoke")).startswith("Nothing can be said yet: near-duplicates")


def test_with_groups_given_the_probe_itself_is_no_better_than_guessing(fresh_runs):
    images = patients()
    names = tuple(map(str, range(36)))
    images = dataclasses.replace(images, groups=torch.arange(216) // 6, group_names=names, sha256="with groups")
    found = measured(images, budgets=(150,))
    assert not found.has(APART)  # nothing left to ask
    assert found.percent("linear")["low"] < 50 < found.percent("linear")["high"]
    assert advice.says_nothing(found)


def test_what_can_be_learned_of_others_stays(fresh_runs):
    images = without_test(digits(torch.arange(400)))
    found = measured(images, budgets=(300,))
    linear, held_apart = found.percent("linear"), found.percent(APART)
    guess = found.guess[found.metric]
    assert linear["low"] > held_apart["low"] > 2 * guess
    assert held_apart["mean"] < linear["mean"]  # the likest ones were held out
    assert not advice.copies_explain(found)


def test_of_a_test_split_and_of_few_images_it_is_not_asked(fresh_runs):
    assert not measured(digits(torch.arange(100)), budgets=(80,)).has(APART)
    few = without_test(digits(torch.arange(45)))
    assert not measured(few, budgets=(30,)).has(APART)
