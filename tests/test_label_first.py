"""Which images to label first: one of each group, the largest first; against groups that were made, and k-means.
Which next: those between classes that have labels, and no two alike."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from contrastive.evaluation import label_first
from contrastive.evaluation.label_first import Choice, choose_next, choose_to_label

from .conftest import HAVE_MNIST


def blobs(sizes, dimensions=16, spread=0.02, seed=0):
    """Features in well separated groups, shuffled; and each one's group."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0][: len(sizes)]
    of = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    length = rng.uniform(0.1, 10, len(of))[:, None]  # directions count, lengths do not
    features = length * (centres[of] + spread * rng.normal(size=(len(of), dimensions)))
    return torch.from_numpy(features).float(), of


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_one_of_each_group_is_chosen_the_largest_group_first(seed):
    sizes = [5, 40, 12, 25, 1, 60, 33]
    features, of = blobs(sizes, seed=seed)
    chosen = choose_to_label(features, len(sizes), seed)
    assert [choice.like for choice in chosen] == sorted(sizes, reverse=True)
    assert [of[choice.index] for choice in chosen] == list(np.argsort(sizes)[::-1])


def test_the_chosen_image_is_the_nearest_to_its_groups_middle():
    features, of = blobs([30, 20, 10])
    directions = features.double().numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for choice in choose_to_label(features, 3, seed=0):
        own = np.flatnonzero(of == of[choice.index])
        away = np.linalg.norm(directions[own] - directions[own].mean(0), axis=1)
        assert choice.index == own[away.argmin()]


def test_a_group_far_out_is_chosen_and_an_outlier_of_a_group_is_not():
    features, of = blobs([50, 50])
    features[np.flatnonzero(of == 0)[0]] = 0.6 * features[of == 0].mean(0) + 0.4 * features[of == 1].mean(0)
    chosen = {choice.index for choice in choose_to_label(features, 2, seed=0)}
    assert int(np.flatnonzero(of == 0)[0]) not in chosen
    assert {of[index] for index in chosen} == {0, 1}


def test_what_has_no_groups_is_divided_as_k_means_does():
    features = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    chosen = choose_to_label(features, 12, seed=3)
    x = torch.nn.functional.normalize(features.double(), dim=1).numpy()
    groups = KMeans(12, n_init=1, random_state=3).fit_predict(x)
    assert sorted(choice.like for choice in chosen) == sorted(np.bincount(groups))
    assert sorted(groups[[choice.index for choice in chosen]]) == list(range(12))
    assert sum(choice.like for choice in chosen) == 200


def test_the_same_seed_chooses_the_same_and_a_shorter_list_is_no_other_kind():
    features = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    assert choose_to_label(features, 10, 0) == choose_to_label(features.clone(), 10, 0)
    assert choose_to_label(features, 10, 0) != choose_to_label(features, 10, 1)
    assert len(choose_to_label(features, 1, 0)) == 1
    state = torch.get_rng_state()
    choose_to_label(features, 5, 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("n", [5, 6, 100])
def test_all_are_chosen_where_there_are_no_more_than_asked_for(n):
    features = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert choose_to_label(features, n, 0) == [Choice(i, 1) for i in range(5)]
    assert choose_to_label(features[:0], n, 0) == []


def test_of_very_many_images_some_are_looked_at(monkeypatch):
    monkeypatch.setattr(label_first, "MOST", 60)
    features, of = blobs([100, 50, 50])
    chosen = choose_to_label(features, 3, seed=0)
    assert sum(choice.like for choice in chosen) == 60
    assert sorted(of[choice.index] for choice in chosen) == [0, 1, 2]  # indices among all, not among those looked at
    assert max(choice.index for choice in chosen) > 60
    assert choose_to_label(features, 3, seed=0) == chosen
    looked_at = {choice.index for choice in choose_to_label(features, 60, seed=0)}
    assert len(looked_at) == 60
    assert looked_at != {choice.index for choice in choose_to_label(features, 60, seed=1)}


@pytest.mark.filterwarnings("error")  # it would be on the page
def test_copies_of_one_image_are_one_group():
    features = torch.eye(4).repeat_interleave(5, 0)
    assert [choice.like for choice in choose_to_label(features, 10, 0)] == [5] * 4


def quarter_circle(n_labels, n=400):
    """Directions from 0 to 90 degrees; at either end, and a little to the side, those of two classes with labels."""
    generator = torch.Generator().manual_seed(0)
    degrees = torch.cat([torch.zeros(n_labels // 2), torch.full((n_labels // 2,), 90.0), torch.linspace(0, 90, n)])
    angle = torch.deg2rad(degrees)
    features = torch.stack([angle.cos(), angle.sin()], 1) * (0.5 + torch.rand(len(angle), 1, generator=generator))
    labels = torch.full((len(angle),), -1)
    labels[:n_labels] = (torch.arange(n_labels) >= n_labels // 2).long()
    return features, labels, degrees


@pytest.mark.parametrize(("n_labels", "share"), [(4, 2), (8, 2), (10, 4), (100, 4)])
def test_images_between_two_classes_come_next_and_no_two_are_alike(n_labels, share):
    features, labels, degrees = quarter_circle(n_labels)
    chosen = choose_next(features, labels, 2, 5, seed=0)
    at = degrees[[choice.index for choice in chosen]].sort().values
    assert (labels[[choice.index for choice in chosen]] < 0).all()
    assert sum(choice.like for choice in chosen) == 400 // share
    assert (at - 45).abs().max() <= 90 / share / 2 + 1
    # Five groups of a stretch are about as long, and their middles as far apart
    assert at.diff().min() > 0.5 * (90 / share / 5)
    assert choose_next(features, labels, 2, 5, seed=0) == chosen
    assert [choice.like for choice in chosen] == sorted((choice.like for choice in chosen), reverse=True)


def test_what_comes_next_where_labels_say_nothing_yet_is_what_comes_first():
    features, _ = blobs([30, 20, 10])
    for label in (-1, 2):
        labels = torch.full((60,), -1)
        labels[:5] = label
        rest = (labels < 0).nonzero().flatten()
        first = [Choice(int(rest[c.index]), c.like) for c in choose_to_label(features[rest], 3, 0)]
        assert choose_next(features, labels, 3, 3, 0) == first


def test_all_that_have_no_label_come_next_where_they_are_few():
    features, labels, _ = quarter_circle(10, n=6)
    for n in (6, 7):
        assert choose_next(features, labels, 2, n, 0) == [Choice(i, 1) for i in range(10, 16)]
    assert len(choose_next(features, labels, 2, 5, 0)) == 5  # more than a quarter
    assert choose_next(features, labels.clamp(0), 2, 5, 0) == []


def test_what_comes_next_of_very_many_is_chosen_among_some(monkeypatch):
    monkeypatch.setattr(label_first, "MOST", 80)
    features, labels, _ = quarter_circle(20)
    chosen = choose_next(features, labels, 2, 4, 0)
    assert sum(choice.like for choice in chosen) == 20
    assert chosen != choose_next(features, labels, 2, 4, 1)
    state = torch.get_rng_state()
    choose_next(features, labels, 2, 4, 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not HAVE_MNIST, reason="needs MNIST")
def test_of_mnist_what_comes_next_serves_better_than_images_at_random():
    from docs.published import PUBLISHED

    from contrastive import load_encoder, load_images
    from contrastive.evaluation.probes import embed, fit_probe

    images = load_images("mnist")
    some = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(0))[:5000]
    features = embed(load_encoder(sorted((PUBLISHED / "encoders").iterdir())[0]), images.train[some])
    truth, pool = images.train_labels[some], 2500
    judged = features[pool:], truth[pool:]
    better = []
    for seed in range(3):
        order = torch.randperm(pool, generator=torch.Generator().manual_seed(seed))
        labels = torch.full((pool,), -1)
        labels[order[:50]] = truth[order[:50]]
        following = [choice.index for choice in choose_next(features[:pool], labels, 10, 50, seed)]
        found = []
        for added in (torch.tensor(following), order[50:100]):
            every = torch.cat([order[:50], added])
            val, fit = every[:10], every[10:]
            probe = fit_probe((features[fit], truth[fit]), (features[val], truth[val]), 10)
            found.append(probe.accuracy(*judged))
        better.append(found[0] - found[1])
    assert np.mean(better) > 0.3  # percentage points
