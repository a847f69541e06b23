import importlib

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import Normalizer

from contrastive import Settings, load_encoder, load_images, pretrain
from contrastive.evaluation.corruptions import CORRUPTIONS
from contrastive.data.images import forget_images, split
from contrastive.evaluation.diagnostics import alignment, effective_rank, feature_std, uniformity
from contrastive.evaluation.evaluator import (
    evaluate,
    headline_labels,
    most_confused,
)
from contrastive.evaluation.probes import (
    USUAL_STRENGTH,
    embed,
    fit_probe,
    knn_predict,
    linear_scores,
    logistic_regression,
    nearest_neighbours,
    validation_accuracy,
    weights_hash,
)
from contrastive.evaluation.statistics import standard_error, summary
from contrastive.evaluation.across_seeds import ARMS, MORE_ARMS
from contrastive.training.loop import initial_method

from .conftest import HAVE_MNIST

module = importlib.import_module("contrastive.evaluation.evaluator")
SMOKE = Settings(preset="smoke", epochs=2, width=4, budgets=(50, 200), supervised_steps=10)


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


@pytest.mark.parametrize("n", [400, 1100])
@pytest.mark.parametrize("strength", [1e-1, 1e-2, 1e-3])
def test_logistic_regression_equals_scikit_learn(strength, n):
    x, y = blobs(n, 0)
    weight, bias = logistic_regression(x, y, strength, torch.zeros(4, 12), torch.zeros(4), max_iter=500)
    theirs = LogisticRegression(C=1 / (strength * len(x)), tol=1e-8, max_iter=5000).fit(x.double().numpy(), y.numpy())
    ours = (x @ weight.T + bias).softmax(1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(x.double().numpy()), atol=5e-3)


def test_probe_does_as_well_as_scikit_learn_and_chooses_on_the_validation_part():
    fit, choose, test = blobs(300, 0), blobs(100, 1), blobs(1000, 2)
    probe = fit_probe(fit, choose, 4)
    scaler = Normalizer()
    x, y = (np.concatenate([a.numpy(), b.numpy()]) for a, b in zip(fit, choose, strict=True))
    scale = x.shape[1] ** 0.5
    model = LogisticRegression(C=1 / (probe.strength * len(x)), max_iter=5000).fit(scale * scaler.transform(x), y)
    theirs = 100 * model.score(scale * scaler.transform(test[0].numpy()), test[1].numpy())
    assert probe.accuracy(*test) == pytest.approx(theirs, abs=0.1)


def test_the_strength_follows_the_validation_part():
    # Labels at random can only be fitted by heart: validation labels that agree with them ask for a weak penalty.
    x, y = torch.randn(200, 50, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 4
    assert fit_probe((x, y), (x, y), 4).strength < fit_probe((x, y), (x, torch.full((200,), 0)), 4).strength


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


def test_evaluation_leaves_the_encoder_frozen_and_is_done_once():
    run = pretrain(SMOKE, progress=False)
    before = weights_hash(load_encoder(run))
    evaluation = evaluate(run, progress=False)
    assert evaluation.encoder_unchanged
    assert weights_hash(load_encoder(run)) == before
    assert evaluation.headline == 200
    for arm in ARMS:
        assert 10 < evaluation.metrics[f"{arm}_accuracy@200"] <= 100
    labels = load_images("digits").test_labels
    right = 100 * (evaluation.probabilities.argmax(1) == labels).double().mean().item()
    assert right == pytest.approx(evaluation.metrics["linear_accuracy@200"])
    again = evaluate(run, progress=False)
    assert (again.metrics, again.seconds) == (evaluation.metrics, evaluation.seconds)
    (run.folder / "results.json").unlink()
    assert evaluate(run, progress=False).metrics == evaluation.metrics  # measured anew, the same


def test_each_draw_of_labels_is_counted():
    run = pretrain(SMOKE, progress=False)
    twice = Settings(**{**run.settings.model_dump(), "label_draws": 2, "budgets": (10, 50, 200, 1437)})
    evaluation = evaluate(pretrain(twice, progress=False), progress=False)
    draws = {n: len(evaluation.right[f"linear_accuracy@{n}"]) for n in (10, 50, 200, 1437)}
    assert draws == {10: 2, 50: 2, 200: 2, 1437: 1}
    for name, right in evaluation.right.items():
        assert evaluation.metrics[name] == pytest.approx(100 * right.double().mean().item())


def test_few_labels_and_one_class_of_test_images_are_measured_as_well(monkeypatch):
    run = pretrain(SMOKE.but(budgets=(10,)), progress=False)
    metrics = evaluate(run, progress=False).metrics
    assert 0 <= metrics["knn_accuracy"] <= 100  # the bank is smaller than the usual k
    assert metrics["calibration_error@10"] == metrics["calibration_error_scaled@10"]  # nothing to choose one with
    monkeypatch.setattr(module, "macro_auc", lambda *args: float("nan"))
    run = pretrain(SMOKE.but(budgets=(20,)), progress=False)
    assert "macro_auc@20" not in evaluate(run, progress=False).metrics


def test_a_full_evaluation_measures_every_arm(monkeypatch):
    monkeypatch.setattr(module, "COMPONENTS", 20)
    run = pretrain(SMOKE.but(evaluation="full", transfer="digits", budgets=(50, 200)), progress=False)
    evaluation = evaluate(run, progress=False)
    metrics = evaluation.metrics
    for arm in (*ARMS, *MORE_ARMS):
        assert 10 < metrics[f"{arm}_accuracy@200"] <= 100, arm
        assert evaluation.right[f"{arm}_accuracy@50"].shape == (1, 360)
    assert {"knn_accuracy", "knn_accuracy_k10", "knn_accuracy_k100", "knn_accuracy_k200"} <= set(metrics)
    for arm in ("linear", "random_encoder", "supervised"):
        own = [metrics[f"{arm}_accuracy[{name}]"] for name in CORRUPTIONS]
        assert metrics[f"{arm}_accuracy[corrupted]"] == pytest.approx(np.mean(own))
        assert np.mean(own) < metrics[f"{arm}_accuracy@200"]
    assert evaluation.encoder_unchanged
    # Another data set that is the same one: all of its labels, so better than with 200.
    assert metrics["linear_accuracy[transfer]"] > metrics["linear_accuracy@200"]
    # Principal components are those that scikit-learn finds.
    images = load_images("digits")
    splits = split(images, run.settings.n_images, run.settings.seed)
    pixels = images.train.flatten(1).numpy() / 255.0
    pca = PCA(20).fit(pixels[splits.pretrain])
    fit, choose = splits.budget(200)
    train = torch.from_numpy(pca.transform(pixels)).float()
    probe = fit_probe(*((train[i], images.train_labels[i]) for i in (fit, choose)), 10)
    test = torch.from_numpy(pca.transform(images.test.flatten(1).numpy() / 255.0)).float()
    assert probe.accuracy(test, images.test_labels) == pytest.approx(metrics["pca_accuracy@200"], abs=0.6)


def test_a_transfer_to_other_data_of_the_same_name_is_measured_again(tmp_path):
    path, images = tmp_path / "other.npz", load_images("digits")
    settings, found = SMOKE.but(transfer=str(path), budgets=(50,)), []
    for classes in (10, 2):
        train, test = images.train_labels < classes, images.test_labels < classes
        arrays = {"train_images": images.train[train], "train_labels": images.train_labels[train]}
        arrays |= {"test_images": images.test[test], "test_labels": images.test_labels[test]}
        np.savez(path, **{name: array.squeeze().numpy() for name, array in arrays.items()})
        forget_images()
        first, again = (evaluate(pretrain(settings, progress=False), progress=False) for _ in range(2))
        assert first.seconds == again.seconds  # nothing is measured twice
        found.append(first.metrics["linear_accuracy[transfer]"])
    assert found[0] < found[1]  # noughts and ones are told apart more easily


def test_calibration_and_auc_are_of_the_headline_probe():
    evaluation = evaluate(pretrain(SMOKE, progress=False), progress=False)
    labels, probabilities = load_images("digits").test_labels.numpy(), evaluation.probabilities.double().numpy()
    probabilities /= probabilities.sum(1, keepdims=True)
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((sure * 15).astype(int), 14)
    gaps = [abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    assert evaluation.metrics["calibration_error@200"] == pytest.approx(100 * sum(gaps), abs=0.05)
    auc = 100 * roc_auc_score(labels, probabilities, multi_class="ovr")
    assert evaluation.metrics["macro_auc@200"] == pytest.approx(auc, abs=0.001)


def test_few_labels_leave_none_to_choose_with():
    images = load_images("digits")
    splits = split(images, 512, 0)
    fit, choose = splits.budget(10)
    assert sorted(images.train_labels[fit].tolist()) == list(range(10))
    assert len(choose) == 0
    x, y = blobs(40, 0)
    probe = fit_probe((x, y), (x[:0], y[:0]), 4)
    assert (probe.strength, probe.temperature) == (USUAL_STRENGTH, 1.0)
    assert probe.accuracy(x, y) > 80


def test_another_draw_has_the_same_images_in_another_order():
    images = load_images("digits")
    first, second = (split(images, 512, 0, draw) for draw in (0, 1))
    assert torch.equal(first.pretrain, second.pretrain)
    for a, b in ((first.rest, second.rest), (first.validation, second.validation)):
        assert not torch.equal(a, b)
        assert sorted(a.tolist()) == sorted(b.tolist())
    fit, choose = second.budget(100)
    counts = torch.bincount(images.train_labels[torch.cat([fit, choose])])
    assert counts.tolist() == [10] * 10
    assert set(second.budget(100)[0].tolist()) <= set(second.budget(600)[0].tolist())


def test_embedding_is_in_eval_mode_and_independent_of_the_batch():
    encoder = load_encoder(pretrain(SMOKE, progress=False)).train()
    images = load_images("digits").test[:20]
    whole = embed(encoder, images)
    assert not encoder.training
    torch.testing.assert_close(whole, embed(encoder, images, batch_size=3), atol=1e-4, rtol=1e-4)


def test_statistics():
    assert summary([1.0, 2.0, 3.0]) == {"mean": 2.0, "std": 1.0, "n_seeds": 3, "values": [1.0, 2.0, 3.0]}
    assert summary([5.0])["std"] == 0.0
    assert standard_error(90.0, 10_000) == pytest.approx(0.3)
    assert standard_error(100.0, 100) > 0
    assert headline_labels((100, 30_000, 60_000)) == 30_000
    assert headline_labels((50_000,)) == 50_000


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


def test_validation_accuracy_is_the_mean_of_probes_with_labels_of_their_own():
    run = pretrain(SMOKE, progress=False)
    images, encoder = load_images("digits"), load_encoder(run)
    splits = split(images, run.settings.n_images, run.settings.seed)
    validation = embed(encoder, images.train[splits.validation]), images.train_labels[splits.validation]

    def accuracy(part):
        rows = [(embed(encoder, images.train[i]), images.train_labels[i]) for i in (part[20:], part[:20])]
        return fit_probe(*rows, 10).accuracy(*validation)

    found = [accuracy(splits.rest[start : start + 100]) for start in (0, 100, 200, 300)]
    assert max(found) > min(found)
    assert validation_accuracy(run.settings, encoder, 100) == pytest.approx(np.mean(found))
    # Where there are labels for one draw only, it is that.
    most, fifth = splits.rest[: len(splits.rest) - 1], (len(splits.rest) - 1) // 5
    rows = [(embed(encoder, images.train[i]), images.train_labels[i]) for i in (most[fifth:], most[:fifth])]
    assert validation_accuracy(run.settings, encoder, len(most)) == pytest.approx(
        fit_probe(*rows, 10).accuracy(*validation)
    )


@pytest.mark.skipif(not HAVE_MNIST, reason="needs MNIST")
def test_a_short_real_run_beats_the_random_encoder():
    # Three epochs give about 97.5 % with 1,000 labels against 94 % for random weights: ten standard errors apart.
    run = pretrain(Settings(dataset="mnist", n_images=4000, epochs=3), progress=False)
    trained = validation_accuracy(run.settings, load_encoder(run), 1000)
    untrained = accuracy_of(initial_method(run.settings).encoder, run.settings)
    assert trained > untrained + 1.0, (trained, untrained)


def accuracy_of(encoder, settings):
    images = load_images(settings)
    splits = split(images, settings.n_images, settings.seed)
    fit, choose = splits.budget(1000)
    rows = [(embed(encoder, images.train[i]), images.train_labels[i]) for i in (fit, choose)]
    probe = fit_probe(*rows, 10)
    return probe.accuracy(embed(encoder, images.train[splits.validation]), images.train_labels[splits.validation])
