"""Probes against scikit-learn, and diagnostics of known shapes."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import Normalizer

from contrastive import Settings, load_encoder, load_images, pretrain
from contrastive.data import split
from contrastive.evaluation import diagnostics
from contrastive.evaluation.diagnostics import (
    alignment,
    diagnose,
    effective_rank,
    feature_std,
    paired_share,
    uniformity,
)
from contrastive.evaluation.evaluator import most_confused
from contrastive.evaluation.probes import (
    USUAL_L2,
    embed,
    fit_probe,
    knn_predict,
    nearest_neighbours,
    validation_accuracy,
)
from contrastive.processor import linear_scores
from contrastive.training import initial_method, load_method

from .conftest import HAVE_MNIST
from .trainings import begun

SMOKE = Settings(preset="smoke", epochs=2, base_channels=4)


def blobs(n, seed, spread=3.0, classes=4, dim=12):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % classes
    return centres[labels] + spread / 3 * torch.randn(n, dim, generator=generator), labels


@pytest.mark.parametrize("n", [5, 1024, 1100])  # below and above the size from which a product is a convolution
def test_linear_scores_are_a_product_of_matrices(n):
    torch.manual_seed(n)
    x, weight, bias = torch.randn(n, 12), torch.randn(4, 12, requires_grad=True), torch.randn(4, requires_grad=True)
    scores, expected = linear_scores(x, weight, bias), x.double() @ weight.double().T + bias.double()
    torch.testing.assert_close(scores.double(), expected, atol=1e-5, rtol=1e-5)
    slopes = torch.randn(n, 4)
    got, wanted = (torch.autograd.grad((s * slopes).sum(), (weight, bias)) for s in (scores, expected))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_probe_does_as_well_as_scikit_learn_and_chooses_on_the_validation_part():
    fit, choose, test = blobs(300, 0), blobs(100, 1), blobs(1000, 2)
    probe = fit_probe(fit, choose, 4)
    scaler = Normalizer()
    x, y = (np.concatenate([a.numpy(), b.numpy()]) for a, b in zip(fit, choose, strict=True))
    scale = x.shape[1] ** 0.5
    model = LogisticRegression(C=1 / (probe.l2 * len(x)), max_iter=5000).fit(scale * scaler.transform(x), y)
    theirs = 100 * model.score(scale * scaler.transform(test[0].numpy()), test[1].numpy())
    assert probe.accuracy(*test) == pytest.approx(theirs, abs=0.1)


def test_the_penalty_follows_the_validation_part():
    # Labels at random can only be fitted by heart: validation labels that agree with them ask for a weak penalty.
    x, y = torch.randn(200, 50, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 4
    assert fit_probe((x, y), (x, y), 4).l2 < fit_probe((x, y), (x, torch.full((200,), 0)), 4).l2


def test_an_image_without_features_does_no_harm():
    x, y = blobs(100, 0)
    x[7] = 0.0
    assert torch.isfinite(fit_probe((x[:80], y[:80]), (x[80:], y[80:]), 4).probabilities(x)).all()


def test_lengths_do_not_count():
    fit, choose, test = blobs(300, 0), blobs(100, 1), blobs(50, 2)
    ours = fit_probe(fit, choose, 4).probabilities(test[0])
    scaled = fit_probe((fit[0] * torch.rand(300, 1).add(0.5), fit[1]), choose, 4).probabilities(3 * test[0])
    torch.testing.assert_close(ours, scaled, atol=1e-3, rtol=1e-2)


def test_knn_equals_scikit_learn():
    bank, labels = blobs(200, 0)
    queries, _ = blobs(50, 1)
    scores = knn_predict(bank, labels, queries, 4, k=20, temperature=0.07)
    theirs = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07)).fit(bank, labels)
    expected = theirs.predict_proba(queries)
    np.testing.assert_allclose((scores / scores.sum(1, keepdim=True)).numpy(), expected, atol=1e-4)
    assert knn_predict(bank[:3], labels[:3], queries, 4).shape == (50, 4)  # a bank smaller than k


def test_nearest_neighbours_and_mistakes():
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    assert nearest_neighbours(features, [0, 2], 1) == [[0, 1], [2, 3]]
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    labels = torch.tensor([1, 1, 1, 0])
    wrong, matrix = most_confused(probabilities, labels, 2)
    assert [row[:3] for row in wrong] == [(0, 1, 0), (2, 1, 0), (3, 0, 1)]
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, probabilities.argmax(1)))


def test_few_labels_leave_none_to_choose_with():
    images = load_images("digits")
    splits = split(images, 512, 0)
    fit, choose = splits.budget(10)
    assert sorted(images.train_labels[fit].tolist()) == list(range(10))
    assert len(choose) == 0
    x, y = blobs(40, 0)
    probe = fit_probe((x, y), (x[:0], y[:0]), 4)
    assert (probe.l2, probe.temperature) == (USUAL_L2, 1.0)
    assert probe.accuracy(x, y) > 80


def test_embedding_is_in_eval_mode_and_independent_of_the_batch():
    encoder = load_encoder(pretrain(SMOKE, progress=False)).train()
    images = load_images("digits").test[:20]
    whole = embed(encoder, images)
    assert not encoder.training
    torch.testing.assert_close(whole, embed(encoder, images, batch_size=3), atol=1e-4, rtol=1e-4)


# --- Without labels -----------------------------------------------------------------------------------------------


def test_a_map_of_features_that_do_not_differ_is_one_point():
    for features in (torch.ones(50, 8), torch.zeros(50, 8), torch.rand(2, 8)):  # of which t-SNE crashes
        assert np.array_equal(diagnostics.map_2d(features, 0), np.zeros((len(features), 2)))
    assert np.ptp(diagnostics.map_2d(torch.rand(50, 8), 0), axis=0).min() > 0


def test_diagnostics_of_known_shapes():
    torch.manual_seed(0)
    assert effective_rank(torch.eye(8)) == pytest.approx(8)
    assert effective_rank(torch.ones(8, 5)) == pytest.approx(1, abs=1e-3)
    same = torch.ones(10, 4)
    assert uniformity(same) == pytest.approx(0, abs=1e-6)
    assert feature_std(same) == pytest.approx(0, abs=1e-6)
    spread = torch.randn(2000, 64)
    assert feature_std(spread) == pytest.approx(1, abs=0.05)
    assert uniformity(spread) == pytest.approx(-4, abs=0.2)  # distances on the sphere gather at sqrt(2)
    assert alignment(spread, 3 * spread) == pytest.approx(0, abs=1e-6)
    assert alignment(spread, -spread) == pytest.approx(4)


def test_diagnostics_are_of_features_and_projections_of_the_methods_own_views():
    method, images = begun(base_channels=2, augment="none", precision="float32").method, load_images("digits").test[:50]
    found = diagnose(method, images)
    assert not method.training
    h = embed(method.encoder, images)
    with torch.no_grad():
        z = method.head(h)
    for suffix, x in (("", h), ("_z", z)):
        assert found[f"alignment{suffix}"] == pytest.approx(0, abs=1e-6)  # both views are the image itself
        assert found[f"uniformity{suffix}"] == pytest.approx(uniformity(x), abs=1e-4)
        assert found[f"effective_rank{suffix}"] == pytest.approx(effective_rank(x), rel=1e-4)
        assert found[f"feature_std{suffix}"] == pytest.approx(feature_std(x), abs=1e-5)
    for parameters in (dict(augment="none", second_augment="crop"), dict(method="supervised")):  # which has one view
        assert diagnose(begun(base_channels=2, **parameters).method, images)["alignment"] > 0.01


def paired(a, b):
    """How many of two views of each image, in percent, are nearest to each other, counted one by one in float64."""
    x = torch.cat([a, b]).double().tolist()
    length = [math.sqrt(math.fsum(v * v for v in row)) for row in x]
    found = 0
    for i, row in enumerate(x):
        cosine = {
            j: math.fsum(v * w for v, w in zip(row, other, strict=True)) / length[i] / length[j]
            for j, other in enumerate(x)
            if j != i
        }
        found += max(cosine, key=cosine.get) == (i + len(a)) % len(x)
    return 100 * found / len(x)


@pytest.mark.parametrize("parameters", [{}, {"method": "byol", "augment": "simclr"}, {"method": "supervised"}])
def test_views_that_find_their_partner_are_counted(parameters):
    method = begun(base_channels=2, precision="float32", **parameters).method
    images = load_images("digits").test[:40]
    found = paired_share(method, images)
    assert not method.training
    with torch.no_grad():
        views = (method.representations(method.encoder(view))["h"] for view in diagnostics._two_views(method, images))
        assert found == pytest.approx(paired(*views))
    assert 0 < found < 100  # else anything would do
    assert paired_share(method, images) == found
    state = torch.get_rng_state()
    paired_share(method, images)
    assert torch.equal(torch.get_rng_state(), state)


def test_views_that_are_alike_find_each_other_and_those_of_one_image_only_do_not():
    method, images = begun(base_channels=2, augment="none", precision="float32").method, load_images("digits").test[:30]
    assert paired_share(method, images) == 100
    assert paired_share(method, images[:1]) == 100
    # Where all images are the same, every view is as near: at most two find their own
    assert paired_share(method, images[:1].repeat(30, 1, 1, 1)) <= 100 * 2 / 60 + 1e-4


def test_trained_and_untrained_are_shown_the_same_views():
    images = load_images("digits").test[:8]
    one, other = (begun(base_channels=width, precision="float32").method for width in (2, 3))
    for a, b in zip(diagnostics._two_views(one, images), diagnostics._two_views(other, images), strict=True):
        assert torch.equal(a, b)


# --- What choices are made by -------------------------------------------------------------------------------------


def test_validation_accuracy_is_the_mean_of_probes_with_labels_of_their_own():
    run = pretrain(SMOKE, progress=False)
    images, encoder = load_images("digits"), load_encoder(run)
    splits = split(images, 512, 0)
    validation = embed(encoder, images.train[splits.validation]), images.train_labels[splits.validation]

    def accuracy(part):
        rows = [(embed(encoder, images.train[i]), images.train_labels[i]) for i in (part[20:], part[:20])]
        return fit_probe(*rows, 10).accuracy(*validation)

    found = [accuracy(splits.rest[start : start + 100]) for start in (0, 100, 200, 300)]
    assert max(found) > min(found)
    assert validation_accuracy(run.settings, images, encoder, 100) == pytest.approx(np.mean(found))
    # Where there are labels for one draw only, it is that.
    most, fifth = splits.rest[: len(splits.rest) - 1], (len(splits.rest) - 1) // 5
    rows = [(embed(encoder, images.train[i]), images.train_labels[i]) for i in (most[fifth:], most[:fifth])]
    assert validation_accuracy(run.settings, images, encoder, len(most)) == pytest.approx(
        fit_probe(*rows, 10).accuracy(*validation)
    )


def test_projections_can_be_judged_as_well():
    run, images = pretrain(SMOKE, progress=False), load_images("digits")
    method = load_method(run)
    found = validation_accuracy(run.settings, images, method.encoder, 100, method)
    assert found != validation_accuracy(run.settings, images, method.encoder, 100)
    method.head = torch.nn.Linear(method.encoder.out_dim, 1).requires_grad_(False)  # which leaves next to nothing
    assert validation_accuracy(run.settings, images, method.encoder, 100, method) < found


@pytest.mark.skipif(not HAVE_MNIST, reason="needs MNIST")
def test_a_short_real_run_beats_the_random_encoder():
    # Three epochs give about 97.5 % with 1,000 labels against 94 % for random weights: ten standard errors apart.
    run, images = pretrain(Settings(dataset="mnist", n_images=4000, epochs=3), progress=False), load_images("mnist")
    untrained = initial_method(run.settings, images.format).encoder
    of_each = [validation_accuracy(run.settings, images, encoder, 1000) for encoder in (load_encoder(run), untrained)]
    assert of_each[0] > of_each[1] + 1.0, of_each
