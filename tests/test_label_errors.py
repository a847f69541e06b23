"""Labels that may be wrong: those that were made wrong come first, and nobody vouches for himself."""

import math

import numpy as np
import pytest
import torch

from contrastive.evaluation import label_errors as module
from contrastive.evaluation.label_errors import disagreement, divide, judged_places, label_errors

from .conftest import HAVE_MNIST


def blobs(n, classes=4, dimensions=16, spread=0.15, seed=0):
    """Features in a group for each class, and labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=generator))[0][:classes]
    labels = torch.arange(n) % classes
    return centres[labels] + spread * torch.randn(n, dimensions, generator=generator), labels


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_that_were_made_wrong_come_first(seed):
    features, labels = blobs(400, seed=seed)
    wrong = torch.randperm(400, generator=torch.Generator().manual_seed(seed))[:10]
    given = labels.clone()
    given[wrong] = (labels[wrong] + 1 + wrong % 3) % 4
    found = label_errors(features, given, 4, seed=seed)
    assert {suspect.index for suspect in found[:10]} == set(wrong.tolist())
    for suspect in found[:10]:
        assert suspect.given == given[suspect.index]
        assert suspect.predicted == labels[suspect.index]
        assert suspect.confidence > 0.5 > suspect.given_confidence
    ranks = [suspect.log_odds for suspect in found]
    assert ranks == sorted(ranks, reverse=True)
    assert label_errors(features, given, 4, seed=seed) == found


def test_of_right_labels_of_groups_far_apart_none_is_suspected():
    features, labels = blobs(200, spread=0.02)
    assert label_errors(features, labels, 4) == []


def reference(p, labels):
    """Ranks as `label_errors` tells of them, image by image: bars, the best other class, log odds."""
    n, classes = p.shape
    bars = [np.mean([p[i, c] for i in range(n) if labels[i] == c] or [math.inf]) for c in range(classes)]
    found = {}
    for i in range(n):
        odds = {c: math.log(p[i, c] / bars[c]) for c in range(classes) if c != labels[i] and bars[c] < math.inf}
        best = max(odds, key=odds.__getitem__)
        if p[i, best] > p[i, labels[i]]:
            found[i] = best, odds[best] - math.log(p[i, labels[i]] / bars[labels[i]])
    return found


def test_ranks_are_log_odds_against_each_classs_own_bar():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.6] * 5, 300)
    labels = rng.integers(0, 4, 300)  # of the fifth class nobody is
    rank, predicted = disagreement(torch.from_numpy(p).log(), torch.from_numpy(labels))
    expected = reference(p, labels)
    assert set(rank.isfinite().nonzero().flatten().tolist()) == set(expected)
    assert len(expected) > 100
    for i, (c, odds) in expected.items():
        assert predicted[i] == c
        assert rank[i].item() == pytest.approx(odds, abs=1e-12)


def test_what_was_not_judged_is_not_suspected():
    log_p = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], dtype=torch.float64).log()
    log_p[0] = torch.nan
    log_p[2, 1] = -torch.inf  # no image of that class was left to learn from
    rank, _ = disagreement(log_p, torch.tensor([0, 1, 1]))
    assert rank.isfinite().tolist() == [False, True, False]


@pytest.mark.parametrize("with_groups", [False, True])
def test_folds_hold_each_image_out_once_with_its_whole_group(with_groups):
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 3, 120), rng.integers(0, 25, 120)
    held_out = []
    for fit, choose, held in divide(labels, groups if with_groups else None, 5, seed=3):
        assert sorted([*fit, *choose, *held]) == list(range(120))
        held_out += held.tolist()
        if with_groups:
            assert not set(groups[held]) & set(groups[np.concatenate([fit, choose])])
            assert not set(groups[fit]) & set(groups[choose])
        else:
            share = np.bincount(labels[held], minlength=3) / np.bincount(labels)
            assert np.all(np.abs(share - 0.2) < 0.05)
    assert sorted(held_out) == list(range(120))


def test_copies_of_one_group_do_not_vouch_for_each_other():
    """A patient's images are alike. Where all of them have the wrong label, only other patients can tell."""
    features, labels = blobs(80, classes=2, dimensions=64, spread=0.3)
    given, groups = labels.clone(), torch.arange(80)
    for copy in range(1, 12):
        features[2 * copy] = features[0]
    same = torch.arange(0, 24, 2)
    given[same], groups[same] = 1, 0
    alone = {suspect.index for suspect in label_errors(features, given, 2)}
    together = {suspect.index for suspect in label_errors(features, given, 2, groups)}
    assert set(same.tolist()) <= together
    assert not set(same.tolist()) & alone


def test_few_labels():
    features, labels = blobs(12, classes=3, spread=0.05)
    assert label_errors(features, labels, 3) == []
    given = labels.clone()
    given[4] = (labels[4] + 1) % 3
    assert label_errors(features, given, 3)[0].index == 4
    none = torch.full((12,), -1)
    assert label_errors(features, none, 3) == []
    assert label_errors(features[:0], none[:0], 3) == []
    assert label_errors(features, torch.zeros(12, dtype=torch.int64), 3) == []
    assert label_errors(features[:3], labels[:3], 3) == []  # one of each
    assert label_errors(features, labels, 3, torch.zeros(12, dtype=torch.int64)) == []  # one patient


def test_the_only_image_of_a_class_is_not_judged():
    features, labels = blobs(40, classes=2, spread=0.05)
    labels[7] = 2
    assert label_errors(features, labels, 3) == []


@pytest.mark.filterwarnings("error")  # it would be on the page
def test_only_images_with_labels_are_looked_at_and_of_very_many_some(monkeypatch):
    features, labels = blobs(300)
    given = labels.clone()
    given[::3] = -1
    given[100] = (labels[100] + 1) % 4
    found = label_errors(features, given, 4)
    assert found[0].index == 100  # among all images
    assert all(suspect.index % 3 for suspect in found)
    monkeypatch.setattr(module, "MOST", 50)
    places = judged_places(given, seed=0)
    assert len(places) == len(set(places.tolist())) == 50
    assert (given[places] >= 0).all()
    assert not torch.equal(places, judged_places(given, seed=1))
    wrong = torch.where(given >= 0, given, -1)
    wrong[places[5]] = (labels[places[5]] + 1) % 4
    assert label_errors(features, wrong, 4)[0].index == places[5]


def test_the_generators_of_others_are_left_alone():
    features, labels = blobs(60)
    state, before = torch.get_rng_state(), np.random.get_state()[1].copy()
    label_errors(features, labels, 4)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.skipif(not HAVE_MNIST, reason="needs MNIST")
@pytest.mark.parametrize("seed", [0, 1])
def test_of_ten_wrong_labels_of_mnist_eight_are_among_the_first_twenty(seed):
    from docs.published import PUBLISHED

    from contrastive import load_encoder, load_images
    from contrastive.evaluation.probes import embed

    images = load_images("mnist")
    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(len(images.train), generator=generator)[:1000]
    given, wrong = images.train_labels[some].clone(), torch.randperm(1000, generator=generator)[:10]
    given[wrong] = (given[wrong] + torch.randint(1, 10, (10,), generator=generator)) % 10
    encoder = load_encoder(sorted((PUBLISHED / "encoders").iterdir())[0])
    found = label_errors(embed(encoder, images.train[some]), given, 10, seed=seed)
    assert len({suspect.index for suspect in found[:20]} & set(wrong.tolist())) >= 8
