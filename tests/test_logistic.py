"""Many logistic regressions at once: each against scikit-learn's, and independent of the others."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.utils._python_dispatch import TorchDispatchMode

from contrastive import processor
from contrastive.evaluation import fitting, logistic
from contrastive.evaluation.fitting import L2_PENALTIES, USUAL_L2, fit_parts
from contrastive.evaluation.logistic import fit_logistic
from contrastive.evaluation.probe_features import unit_length

PENALTIES = torch.tensor([L2_PENALTIES])


def images(n, width, n_classes, seed=0, apart=0.8):
    """Features of classes that overlap, of different spread, and their labels."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(width).normal(size=(n_classes, width)) * apart
    labels = np.arange(n) % n_classes
    x = (means[labels] + rng.normal(size=(n, width))) * np.geomspace(2, 0.1, width)
    return torch.from_numpy(x).float(), torch.from_numpy(labels)


def reference(x, labels, l2, queries):
    """Class probabilities by scikit-learn in float64, 0 for classes that have no labels."""
    present, n = labels.unique(), len(labels)
    model = LogisticRegression(C=1 / (l2 * n), tol=1e-9, max_iter=50_000).fit(x.double().numpy(), labels.numpy())
    found = np.zeros((len(queries), int(present.max()) + 1))
    found[:, present.numpy()] = model.predict_proba(queries.double().numpy())
    return found


def padded(sets, width, n_classes):
    """Sets of images as `fit_logistic` takes them."""
    n = max(len(labels) for _, labels in sets)
    x, y, share = torch.zeros(len(sets), n, width + 1), torch.zeros(len(sets), n).long(), torch.zeros(len(sets), n)
    for i, (own, labels) in enumerate(sets):
        x[i, : len(own)] = torch.cat([own, torch.ones(len(own), 1)], 1)
        y[i, : len(own)], share[i, : len(own)] = labels, 1 / len(own)
    return x, y, share, PENALTIES.repeat(len(sets), 1), x.square().mean(1), n_classes


def probabilities(x, weight):
    return (x @ weight[:, :-1].T + weight[:, -1]).softmax(1)


@pytest.fixture(scope="module")
def several():
    """Sets of 90, 7 and 40 images, the last without one of four classes."""
    sets = [images(90, 15, 4, 0), images(7, 15, 4, 1), images(53, 15, 4, 2)]
    sets[2] = tuple(own[sets[2][1] != 1] for own in sets[2])
    return sets, fit_logistic(*padded(sets, 15, 4))


def test_each_of_several_sizes_and_penalties_equals_scikit_learn(several):
    sets, weight = several
    assert weight.shape == (3, 4, 4, 16)
    for own, of_set in zip(sets, weight, strict=True):
        for l2, found in zip(L2_PENALTIES, of_set, strict=True):
            np.testing.assert_allclose(probabilities(own[0], found), reference(*own, l2, own[0]), atol=5e-3)


def test_a_solution_does_not_depend_on_its_companions_and_is_always_the_same(several):
    sets, weight = several
    assert torch.equal(weight, fit_logistic(*padded(sets, 15, 4)))
    for own, of_set in zip(sets, weight, strict=True):
        queries = own[0]
        alone = fit_logistic(*padded([own], 15, 4))[0]
        for q in range(4):
            torch.testing.assert_close(
                probabilities(queries, alone[q]), probabilities(queries, of_set[q]), atol=2e-3, rtol=0
            )
        one = padded([own], 15, 4)
        one = fit_logistic(*one[:3], one[3][:, 2:3], *one[4:])[0, 0]  # one penalty alone
        torch.testing.assert_close(probabilities(queries, one), probabilities(queries, of_set[2]), atol=2e-3, rtol=0)


def test_the_loss_falls_with_every_iteration_however_bad_the_guess_of_the_curvature_is():
    (x, y, share, l2, spread, _) = padded([images(60, 15, 4)], 15, 4)

    def loss(weight):
        scores = torch.einsum("bnk,bqck->bqnc", x, weight).double()
        entropy = -(scores.log_softmax(3)[0, :, torch.arange(60), y[0]] / 60).sum(1)
        return entropy + l2[0] / 2 * weight[0, ..., :-1].double().square().sum((1, 2))

    for factor in (1e-4, 1.0, 1e4):
        before = loss(torch.zeros(1, 4, 4, 16))
        for most in range(1, 12):
            after = loss(fit_logistic(x, y, share, l2, factor * spread, 4, max_iter=most))
            assert (after <= before + 1e-6).all(), (factor, most)
            before = after
        if factor == 1.0:
            assert (after < 0.5 * loss(torch.zeros(1, 4, 4, 16))).all()


def test_it_stops_where_it_starts_if_that_is_the_solution(several):
    sets, weight = several
    again = fit_logistic(*padded(sets, 15, 4), start=weight, max_iter=1)
    for (x, _), before, after in zip(sets, weight, again, strict=True):
        for q in range(4):
            torch.testing.assert_close(probabilities(x, before[q]), probabilities(x, after[q]), atol=2e-3, rtol=0)


@pytest.mark.parametrize("n", [1, 5])
def test_one_class_is_what_all_images_are_then(n):
    x, _ = images(n, 15, 1)
    weight = fit_logistic(*padded([(x, torch.full((n,), 2))], 15, 4))
    for q in range(4):
        assert (probabilities(x, weight[0, q])[:, 2] > 0.999).all()
    assert torch.equal(fit_logistic(*padded([(x, torch.zeros(n).long())], 15, 1)), torch.zeros(1, 4, 1, 16))


def test_biases_are_not_penalised_nor_the_origin_of_importance():
    x, y = images(80, 6, 3)
    given = padded([(x, y)], 6, 3)
    moved = padded([(x + 3, y)], 6, 3)
    ours, theirs = fit_logistic(*given)[0], fit_logistic(*moved, max_iter=500)[0]
    for q in range(3):
        torch.testing.assert_close(probabilities(x, ours[q]), probabilities(x + 3, theirs[q]), atol=5e-3, rtol=0)


def test_nothing_is_read_from_the_device_between_looks(monkeypatch):
    """On a GPU a number that is read makes the processor wait for all that was asked before."""
    seen, at = [], Counter()

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.name())
            return func(*args, **(kwargs or {}))

    iterate = logistic._iterate

    def counted(*given):
        before = len(seen)
        iterate(*given)
        at["iterations"] += 1
        at["asked"] += len(seen) - before
        waits = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::item")
        at["waited"] += sum(name.startswith(waits) for name in seen[before:])

    monkeypatch.setattr(logistic, "_iterate", counted)
    given = padded([images(60, 15, 4)], 15, 4)
    with Log():
        fit_logistic(*given)
    assert at["iterations"] >= 10
    assert at["asked"] > 50 * at["iterations"]
    assert at["waited"] == 0
    looks = at["iterations"] // logistic.LOOK_EVERY
    assert seen.count("aten::_local_scalar_dense") <= looks + 1


# --- Tasks together ------------------------------------------------------------------------


def test_a_probe_does_not_depend_on_the_images_of_others():
    """Features that go together, as a network's do: of these, weak penalties are found slowly."""
    draws = torch.Generator().manual_seed(9)
    labels = torch.randint(4, (2500,), generator=draws)
    shared, classes = torch.randn(8, 60, generator=draws), torch.randn(4, 60, generator=draws)
    noise = torch.randn(2500, 60, generator=draws)
    x = (torch.randn(2500, 8, generator=draws) @ shared + 0.3 * noise + 0.6 * classes[labels]).relu()
    x[200:, ::2] += 3  # the images of the largest part are of another kind
    ends = (
        (0, 80, 100),
        (0, 160, 200),
        (200, 2000, 2500),
        (100, 116, 120),
        (120, 144, 150),
    )  # two are few
    parts = [(torch.arange(start, middle), torch.arange(middle, end)) for start, middle, end in ends]
    blocks, scales = [x, x[:, :20].square()], [[1.0, 0.5], [0.7, 1.3]]

    def probabilities_of(own, images):
        scaled = [unit_length(block[images]) * scale for block, scale in zip(blocks, scales[own.scale], strict=True)]
        return ((torch.cat(scaled, 1) @ own.weight.T + own.bias) / own.temperature).softmax(1)

    for part, found in zip(parts, fit_parts(blocks, labels, parts, 4, scales), strict=True):
        (alone,) = fit_parts(blocks, labels, [part], 4, scales)
        chosen = [(own.scale, own.l2, pytest.approx(own.temperature, rel=1e-3)) for own in (found, alone)]
        assert chosen[0] == chosen[1]
        ours, theirs = (probabilities_of(own, torch.cat(part)) for own in (found, alone))
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


PARTS = {  # how many images to fit on, and to choose with
    "more images than features": [(240, 60), (210, 52), (400, 100)],
    "fewer": [(80, 20), (10, 0), (32, 8), (5, 0)],
    "both": [(80, 20), (400, 100), (10, 0), (1, 0), (90, 0)],
}


def fitted(name, monkeypatch=None, limit=None):
    """Probes of parts of 800 images with 150 features, and these."""
    x, labels = images(800, 150, 5, apart=0.5)
    order = torch.randperm(800, generator=torch.Generator().manual_seed(0))
    parts = [(order[i : i + n], order[i + n : i + n + m]) for i, (n, m) in enumerate(PARTS[name])]
    if limit:
        monkeypatch.setattr(fitting, "CPU_BYTES", limit)
    return x, labels, parts, fit_parts([x], labels, parts, 5, [[1.0]])


def assert_is_the_least(own, u, labels):
    """That a probe is what scikit-learn finds in float64."""
    ours = (u @ own.weight.T + own.bias).softmax(1)
    theirs = reference(u, labels, own.l2, u)
    np.testing.assert_allclose(ours[:, : theirs.shape[1]], theirs, atol=5e-3)


@pytest.mark.parametrize("name", PARTS)
def test_probes_fitted_together_equal_scikit_learn(name):
    x, labels, parts, found = fitted(name)
    u = unit_length(x)
    for (fit, choose), own in zip(parts, found, strict=True):
        used = torch.cat([fit, choose])
        if len(labels[used].unique()) < 2:
            continue
        n_right = []
        for l2 in L2_PENALTIES if len(choose) else ():
            p = reference(u[fit], labels[fit], l2, u[choose])
            n_right.append((p.argmax(1) == labels[choose].numpy()).sum())
        if n_right:  # that penalty, or one that is as good but for the rounding of one image
            place = [l2 * len(fit) / len(used) for l2 in L2_PENALTIES].index(pytest.approx(own.l2))
            assert n_right[place] >= max(n_right) - 1
        else:
            assert (own.l2, own.temperature) == (USUAL_L2, 1.0)
        assert_is_the_least(own, u[used], labels[used])


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("limit", [1, 2**31])
def test_how_parts_are_grouped_changes_nothing(monkeypatch, gpu, limit):
    x, _, parts, usual = fitted("both")
    grouped, gather = [], fitting._gather

    def seen(features, labels, own, factors, few):
        grouped.append([len(fit) + len(choose) for fit, choose in own])
        assert not (gpu and few)
        return gather(features, labels, own, factors, few)

    monkeypatch.setattr(fitting, "_gather", seen)
    monkeypatch.setattr(processor, "on_gpu", lambda x: gpu)
    monkeypatch.setattr(fitting, "GPU_BYTES" if gpu else "CPU_BYTES", limit)
    *_, found = fitted("both")
    if limit == 1:
        assert all(len(group) == 1 for group in grouped)
    elif gpu:
        assert sorted(grouped) == [[1, 10, 90], [100, 500]]
    for (fit, choose), a, b in zip(parts, usual, found, strict=True):
        assert a.l2 == b.l2
        used = unit_length(x[torch.cat([fit, choose])])
        pa, pb = ((used @ own.weight.T + own.bias).softmax(1) for own in (a, b))
        torch.testing.assert_close(pa, pb, atol=5e-3, rtol=0)


def test_groups_are_of_one_kind_and_size_and_hold_to_the_memory():
    draws = torch.Generator().manual_seed(0)
    size = torch.randint(1, 400, (60,), generator=draws).tolist()
    parts = [(torch.arange(n), torch.arange(n % 2 * 5)) for n in size]
    few = [n < 150 for n in size]
    groups = list(fitting._groups(parts, few, 1000, 1.5))
    assert sorted(i for group in groups for i in group) == list(range(60))
    for group in groups:
        totals = [len(fit) + len(choose) for fit, choose in (parts[i] for i in group)]
        assert max(totals) <= 1.5 * min(totals)
        assert len(group) * max(totals) <= 1000 or len(group) == 1
        assert len({(few[i], len(parts[i][1]) > 0) for i in group}) == 1
    assert len(groups) < 40


def test_penalties_are_chosen_with_so_many_images_and_scaled_to_all(monkeypatch):
    monkeypatch.setattr(fitting, "CHOOSE_WITH", 60)
    x, labels, parts, found = fitted("more images than features")
    u = unit_length(x)
    for (fit, choose), own in zip(parts, found, strict=True):
        used = torch.cat([fit, choose])
        assert any(own.l2 == pytest.approx(l2 * 60 / len(used)) for l2 in L2_PENALTIES)
        assert_is_the_least(own, u[used], labels[used])


def test_no_parts_are_no_probes():
    assert fit_parts([torch.zeros(0, 3)], torch.zeros(0).long(), [], 2, [[1.0]]) == []
