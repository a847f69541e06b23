"""What a run is measured by: probes against scikit-learn, diagnostics of known shapes, and whole evaluations."""

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from contrastive import Settings, load_images, pretrain
from contrastive.data import forget_images, split
from contrastive.evaluation import ARMS, aggregate, arms, evaluate, evaluator, measurement
from contrastive.evaluation.corruptions import CORRUPTIONS
from contrastive.evaluation.metrics import COMPARED
from contrastive.evaluation.probes import fit_probe

from .made_up import tiny_general

SMOKE = Settings(
    preset="smoke", epochs=2, base_channels=4, budgets=(50, 200), supervised_steps=10, general="none"
)  # fmt: skip
# Arms of a network that others trained, or of weights that a run goes on from
GENERAL = {"general", "general_own", "general_finetuned", "initial_encoder"}


def measured(settings):
    """The evaluation of a run, and its numbers by name."""
    run = pretrain(settings, progress=False)
    found = evaluate(run, load_images(run.settings.data.dataset), progress=False)
    return found, {name: metric["mean"] for name, metric in aggregate(found.rows).items()}


# --- Whole evaluations --------------------------------------------------------------------------------------------


def test_evaluation_leaves_the_encoder_frozen_and_is_done_once(monkeypatch):
    run, images = pretrain(SMOKE, progress=False), load_images("digits")
    before = (run.folder / "encoder.safetensors").read_bytes()
    evaluation, metrics = measured(SMOKE)
    assert evaluation.encoder_unchanged
    assert (run.folder / "encoder.safetensors").read_bytes() == before
    assert evaluation.headline == 200
    for arm in ARMS.values():
        usual = not arm.full and arm.id not in GENERAL
        assert (f"{arm.id}_accuracy@200" in metrics) is usual
        assert not usual or 10 < metrics[f"{arm.id}_accuracy@200"] <= 100
    right = 100 * (evaluation.probabilities.argmax(1) == images.test_labels).double().mean().item()
    assert right == pytest.approx(metrics["linear_accuracy@200"])
    monkeypatch.setattr(evaluator, "_evaluate", lambda *args: pytest.fail("it is measured again"))
    again = evaluate(run, images, progress=False)
    assert (again.rows, again.seconds, again.headline) == (evaluation.rows, evaluation.seconds, evaluation.headline)
    assert torch.equal(again.probabilities, evaluation.probabilities)
    assert again.costs == evaluation.costs
    assert set(again.values) == set(evaluation.values)
    assert all(torch.equal(again.values[name], values) for name, values in evaluation.values.items())


def test_only_the_arms_that_are_wanted_are_measured_and_as_they_are_with_all(fresh_runs, monkeypatch):
    run, images = pretrain(SMOKE, progress=False), load_images("digits")
    own = evaluate(run, images, progress=False, only=("linear",))
    assert {row.arm for row in own.rows if row.labels is not None} - {""} == {"linear"}
    assert not any(row.metric in ("uniformity", "effective_rank") or row.arm == "knn" for row in own.rows)
    assert {name.partition("_accuracy")[0] for name in own.values if "_accuracy" in name} <= {
        "linear",
        "linear_balanced",
    }
    others = evaluate(run, images, progress=False, only=("supervised", "random_encoder"))
    assert set(others.costs) == {"supervised", "random_encoder"}
    every, _ = measured(SMOKE)
    for found in (own, others):
        assert all(torch.equal(every.values[name], values) for name, values in found.values.items())
        assert set(found.rows) <= set(every.rows)
        assert found.headline == every.headline
    monkeypatch.setattr(evaluator, "_evaluate", lambda *args: pytest.fail("it is measured again"))
    assert evaluate(run, images, progress=False, only=("random_encoder", "supervised")).rows == others.rows


def test_a_damaged_evaluation_is_named_and_made_again(fresh_runs, capsys):
    settings = SMOKE.replace(budgets=(50,))
    first, metrics = measured(settings)
    (path,) = (fresh_runs / "cache").glob("evaluation-*.safetensors")
    path.write_bytes(path.read_bytes()[:-4] + b"1234")
    again, same = measured(settings)
    assert f"{path} is damaged" in (said := capsys.readouterr().err)
    assert "It is made again." in said
    assert same == metrics
    assert again.seconds != first.seconds
    assert measured(settings)[0].seconds == again.seconds


def test_what_is_measured_decides_which_evaluation_is_taken(fresh_runs):
    first, _ = measured(SMOKE.replace(budgets=(50,)))
    changes = (dict(budgets=(60,)), dict(label_draws=2), dict(supervised_steps=11), dict(seed=1), dict(method="byol"))
    found = [measured(SMOKE.replace(**{"budgets": (50,), **change}))[0] for change in changes]
    assert len({evaluation.seconds for evaluation in [first, *found]}) == 1 + len(changes)
    assert measured(SMOKE.replace(budgets=(50,), checkpoint_seconds=1, n_seeds=3))[0].seconds == first.seconds


@pytest.mark.parametrize("method", ["byol", "mocov2", "supervised"])
def test_every_method_is_measured_alike(method):
    settings = Settings(
        preset="smoke", method=method, epochs=1, base_channels=2, budgets=(50,), supervised_steps=2, n_images=128,
        general="none",
    )  # fmt: skip
    evaluation, metrics = measured(settings)
    assert evaluation.encoder_unchanged
    usual = {f"{arm.id}_accuracy@50" for arm in ARMS.values() if not arm.full and arm.id not in GENERAL}
    assert usual | {"knn_accuracy", "effective_rank", "uniformity", "alignment"} <= set(metrics)
    assert ("effective_rank_z" in metrics) is (method != "supervised")  # which has no projections


def test_each_draw_of_labels_is_counted():
    evaluation, metrics = measured(SMOKE.replace(label_draws=2, budgets=(10, 50, 200, 1437)))
    draws = {n: len(evaluation.values[f"linear_accuracy@{n}"]) for n in (10, 50, 200, 1437)}
    assert draws == {10: 2, 50: 2, 200: 1, 1437: 1}  # two of up to a tenth of all
    for name, values in evaluation.values.items():
        assert metrics[name] == pytest.approx(100 * values.double().mean().item(), abs=1e-4)
        assert values.shape[1] == 360
        if "_accuracy@" in name and "balanced" not in name:
            assert set(values.flatten().tolist()) <= {0.0, 1.0}
    rows = [row for row in evaluation.rows if str(row.key) == "linear_accuracy@50"]
    assert [(row.draw, row.seed) for row in rows] == [(0, 0), (1, 0)]
    right = 100 * evaluation.values["linear_accuracy@50"].double().mean(1)
    assert [row.value for row in rows] == pytest.approx(right.tolist())


def test_few_labels_and_one_class_of_test_images_are_measured_as_well(monkeypatch):
    evaluation, metrics = measured(SMOKE.replace(budgets=(10,)))
    assert 0 <= metrics["knn_accuracy"] <= 100  # the bank is smaller than the usual k
    # There was nothing to choose a temperature with
    assert metrics["calibration_error@10"] == pytest.approx(metrics["calibration_error_scaled@10"], abs=1e-4)
    assert "linear_macro_auc@10" in evaluation.values
    undefined = {**COMPARED, "macro_auc": lambda scores, labels: np.full(len(labels), np.nan)}
    monkeypatch.setattr(measurement, "COMPARED", undefined)
    evaluation, metrics = measured(SMOKE.replace(budgets=(20,)))
    assert "linear_accuracy@20" in evaluation.values
    assert not any("macro_auc" in name for name in {*metrics, *evaluation.values})


def test_a_full_evaluation_measures_every_arm(monkeypatch):
    monkeypatch.setattr(arms, "COMPONENTS", 20)
    monkeypatch.setattr(evaluator, "general_network", lambda *args: tiny_general())
    before = pretrain(SMOKE.replace(epochs=1), progress=False).folder
    settings = SMOKE.replace(evaluation="full", transfer="digits", budgets=(50, 200), initial_weights=str(before))
    evaluation, metrics = measured(settings)
    for arm in ARMS.values():
        assert 10 < metrics[f"{arm.id}_accuracy@50"] <= 100, arm
        assert (f"{arm.id}_accuracy@200" in metrics) is arm.cheap  # others with up to a tenth of all labels
        assert evaluation.values[f"{arm.id}_accuracy@50"].shape == (1, 360)
        assert evaluation.costs[arm.id] > 0
    networks = ("finetuned", "supervised", "supervised_plain", "general_finetuned")
    trained = [evaluation.values[f"{arm}_accuracy@200"] for arm in networks]
    assert not any(torch.equal(a, b) for a, b in combinations(trained, 2))
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
    splits = split(images, 512, 0)
    pixels = images.train.flatten(1).numpy() / 255.0
    pca = PCA(20).fit(pixels[splits.pretrain])
    fit, choose = splits.budget(200)
    train = torch.from_numpy(pca.transform(pixels)).float()
    probe = fit_probe(*((train[i], images.train_labels[i]) for i in (fit, choose)), 10)
    test = torch.from_numpy(pca.transform(images.test.flatten(1).numpy() / 255.0)).float()
    assert probe.accuracy(test, images.test_labels) == pytest.approx(metrics["pca_accuracy@200"], abs=0.6)


def test_a_transfer_to_other_data_of_the_same_name_is_measured_again(tmp_path):
    path, images = tmp_path / "other.npz", load_images("digits")
    settings, found = SMOKE.replace(transfer=str(path), budgets=(50,)), []
    for classes in (10, 2):
        train, test = images.train_labels < classes, images.test_labels < classes
        arrays = {"train_images": images.train[train], "train_labels": images.train_labels[train]}
        arrays |= {"test_images": images.test[test], "test_labels": images.test_labels[test]}
        np.savez(path, **{name: array.squeeze().numpy() for name, array in arrays.items()})
        forget_images()
        (first, metrics), (again, _) = (measured(settings) for _ in range(2))
        assert first.seconds == again.seconds  # nothing is measured twice
        found.append(metrics["linear_accuracy[transfer]"])
    assert found[0] < found[1]  # noughts and ones are told apart more easily


def test_calibration_and_auc_are_of_the_headline_probe():
    evaluation, metrics = measured(SMOKE)
    labels, probabilities = load_images("digits").test_labels.numpy(), evaluation.probabilities.double().numpy()
    probabilities /= probabilities.sum(1, keepdims=True)
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((sure * 15).astype(int), 14)
    gaps = [abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    assert metrics["calibration_error@200"] == pytest.approx(100 * sum(gaps), abs=0.05)
    auc = 100 * roc_auc_score(labels, probabilities, multi_class="ovr")
    assert metrics["linear_macro_auc@200"] == pytest.approx(auc, abs=0.001)
    balanced = 100 * balanced_accuracy_score(labels, probabilities.argmax(1))
    assert metrics["linear_balanced_accuracy@200"] == pytest.approx(balanced, abs=1e-4)
