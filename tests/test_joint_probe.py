"""A linear probe on two blocks of features: their weights, and how they are chosen."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from contrastive.evaluation import joint_probe
from contrastive.evaluation.joint_probe import SHARES, fit_joint_probe, fit_probes, join
from contrastive.evaluation.probes import USUAL_L2, Probe, fit_probe, unit_length


def blobs(n: int, width: int, apart: float, seed: int):
    """Features of three Gaussian classes, and their labels; the classes' means are the same for every seed."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(width).normal(size=(3, width)) * apart
    labels = np.arange(n) % 3
    return torch.from_numpy(means[labels] + rng.normal(size=(n, width))).float(), torch.from_numpy(labels)


def two(n: int, general: float, own: float, seed: int):
    """Two blocks, in which the classes lie that far apart, and the labels."""
    a, labels = blobs(n, 40, general, seed)
    b, _ = blobs(n, 24, own, seed + 1000)
    return (a, b), labels


def halves(blocks, labels, n_val):
    return (tuple(x[n_val:] for x in blocks), labels[n_val:]), (tuple(x[:n_val] for x in blocks), labels[:n_val])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_blocks_have_their_share_of_the_squared_length(share):
    a, b = torch.randn(5, 40).double() * 7, torch.randn(5, 24).double()
    x = join(a, b, share).square()
    length = share * 40 + (1 - share) * 24
    torch.testing.assert_close(x[:, :40].sum(1), torch.full((5,), share * length, dtype=torch.float64))
    torch.testing.assert_close(x.sum(1), torch.full((5,), length, dtype=torch.float64))
    # similarities are the mean of both blocks' cosines, by share
    cosines = [torch.nn.functional.normalize(block, dim=1) @ block[0] / block[0].norm() for block in (a, b)]
    joined = join(a, b, share)
    torch.testing.assert_close(joined @ joined[0] / length, share * cosines[0] + (1 - share) * cosines[1])


def test_all_of_the_share_is_the_block_alone():
    a, b = torch.randn(5, 40), torch.randn(5, 24)
    torch.testing.assert_close(join(a, b, 1.0)[:, :40], unit_length(a))
    torch.testing.assert_close(join(a, b, 0.0)[:, 40:], unit_length(b))


def test_with_all_of_the_share_it_is_the_probe_on_general_features_alone(monkeypatch):
    monkeypatch.setattr(joint_probe, "SHARES", (1.0,))
    blocks, labels = two(90, 0.4, 0.4, 0)
    train, val = halves(blocks, labels, 18)
    joint = fit_joint_probe(train, val, 3)
    alone = fit_probe((train[0][0], train[1]), (val[0][0], val[1]), 3)
    assert joint.l2 == alone.l2
    assert joint.temperature == pytest.approx(alone.temperature, rel=1e-3)
    test, _ = two(300, 0.4, 0.4, 7)
    torch.testing.assert_close(joint.probabilities(*test), alone.probabilities(test[0]), atol=1e-2, rtol=0)


def test_it_is_the_regression_of_scikit_learn():
    blocks, labels = two(45, 0.4, 0.4, 0)
    train, val = halves(blocks, labels, 0)
    joint = fit_joint_probe(train, val, 3)
    assert (joint.share, joint.l2, joint.temperature) == (SHARES[0], USUAL_L2, 1.0)
    x = [block.double().numpy() for block in blocks]
    x = [block / np.linalg.norm(block, axis=1, keepdims=True) for block in x]
    length = SHARES[0] * 40 + (1 - SHARES[0]) * 24
    x = np.hstack([x[0] * math.sqrt(SHARES[0] * length), x[1] * math.sqrt((1 - SHARES[0]) * length)])
    reference = LogisticRegression(C=1 / (USUAL_L2 * 45), tol=1e-8, max_iter=10_000).fit(x, labels.numpy())
    np.testing.assert_allclose(joint.probabilities(*blocks).numpy(), reference.predict_proba(x), atol=2e-3)
    assert joint.accuracy(blocks, labels) == pytest.approx(100 * reference.score(x, labels.numpy()))


def test_own_features_that_say_nothing_cost_little():
    lost, shares = [], []
    for seed in range(8):
        train, val = halves(*two(200, 0.35, 0.0, seed), 40)
        joint = fit_joint_probe(train, val, 3)
        alone = fit_probe((train[0][0], train[1]), (val[0][0], val[1]), 3)
        test, labels = two(600, 0.35, 0.0, seed + 50)
        shares.append(joint.share)
        lost.append(alone.accuracy(test[0], labels) - joint.accuracy(test, labels))
    assert set(shares) == {SHARES[0]}
    assert np.mean(lost) < 3


def test_own_features_that_say_all_are_weighed():
    for seed in range(5):
        train, val = halves(*two(345, 0.0, 0.5, seed), 300)
        joint = fit_joint_probe(train, val, 3)
        assert joint.share in SHARES[1:]


def test_of_equals_the_usual_share_and_a_few_images_more_do_not_count():
    for seed in range(5):
        train, val = halves(*two(60, 0.6, 0.6, seed), 12)
        assert fit_joint_probe(train, val, 3).share == SHARES[0]


def test_probes_take_one_block_or_two():
    (a, b), labels = two(60, 0.4, 0.4, 0)
    parts = [(torch.arange(10, 60), torch.arange(10)), (torch.arange(40), torch.arange(0))]
    one = fit_probes([a], labels, parts, 3)
    assert all(isinstance(probe, Probe) for probe in one)
    alone = fit_probe((a[10:], labels[10:]), (a[:10], labels[:10]), 3)
    torch.testing.assert_close(one[0].probabilities(a), alone.probabilities(a), atol=1e-3, rtol=0)
    both = fit_probes([a, b], labels, parts, 3)
    for probe, (fit, choose) in zip(both, parts, strict=True):
        (train, known), (val, chosen) = (((a[part], b[part]), labels[part]) for part in (fit, choose))
        alone = fit_joint_probe((train, known), (val, chosen), 3)
        assert (probe.share, probe.l2) == (alone.share, alone.l2)
        torch.testing.assert_close(probe.probabilities(a, b), alone.probabilities(a, b), atol=1e-3, rtol=0)
        assert probe.probabilities(a, b).sum(1).allclose(torch.ones(60))
