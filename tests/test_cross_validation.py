"""Few labels and no test split, from end to end: an evaluation, and a report with a network that others trained."""

import contextlib
import csv
import dataclasses
import io
import re

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from contrastive import Settings, load_encoder, load_images, pretrain
from contrastive.__main__ import main
from contrastive.data import folds
from contrastive.data.images import make_images
from contrastive.encoders.general import why_no_general
from contrastive.evaluation import Findings, aggregate, evaluate, evaluator, how_judged, measurement
from contrastive.evaluation.alike import APART
from contrastive.evaluation.kept_probe import PROBE, load_probe
from contrastive.evaluation.labelled import classifier
from contrastive.evaluation.probes import USUAL_L2, embed
from contrastive.evaluation.statistics import interval
from contrastive.report import advice
from contrastive.storage.files import read_json

from .cells import without_kernels
from .made_up import tiny_general

SMOKE = Settings(
    preset="smoke", general="none", epochs=2, base_channels=4, budgets=(30, 48), supervised_steps=15, n_images=64
)  # fmt: skip
USUAL = ("linear", "finetuned", "supervised", "supervised_plain", "random_encoder", "raw_pixel")
DIGITS = load_images("digits")


def few_digits(n=90, labelled=60, groups=None):
    """Digits 0 to 2, of which the first ones have a label, and no test images."""
    places = torch.isin(DIGITS.train_labels, torch.arange(3)).nonzero().flatten()[:n]
    arrays = [DIGITS.train[places].numpy(), DIGITS.train_labels[places].numpy()]
    images = make_images("few", [*arrays, *(part[:40] for part in arrays)])
    labels = images.train_labels.clone()
    labels[labelled:] = -1
    own = {} if groups is None else {"groups": groups, "group_names": tuple(map(str, range(int(groups.max()) + 1)))}
    return dataclasses.replace(
        images, train_labels=labels, test=images.test[:0], test_labels=images.test_labels[:0],
        sha256=f"{images.sha256} {labelled} {groups}", **own,
    )  # fmt: skip


def measured(images, settings=SMOKE):
    """A run, its evaluation, and what is found in it."""
    run = pretrain(settings, progress=False, images=images)
    found = evaluate(run, images, progress=False)
    return run, found, Findings([found], how_judged(images, run.settings), 30)


def test_an_evaluation_of_few_labels_is_of_every_labelled_image():
    images = few_digits()
    _, evaluation, found = measured(images)
    assert (evaluation.headline, found.judging.n_folds) == (48, 5)
    assert {key.arm for key in found.keys} == set(USUAL)
    for arm in USUAL:
        repeated = arm in ("linear", "random_encoder", "raw_pixel")  # what is cheap to fit
        assert evaluation.values[f"{arm}_accuracy@48"].shape == (5 if repeated else 1, 60)
        own = found.percent(arm)
        assert own["low"] < own["mean"] < own["high"]
    assert found.percent("linear")["low"] > found.guess[found.metric]
    assert evaluation.probabilities.shape == (60, 3)
    right = (evaluation.probabilities.argmax(1) == found.judging.labels).float()
    assert torch.equal(right, evaluation.values["linear_accuracy@48"][0])
    assert evaluation.probabilities.sum(1).allclose(torch.ones(60))
    assert {"knn_accuracy", "effective_rank", "calibration_error@48"} <= set(aggregate(evaluation.rows))
    assert set(evaluation.costs) == set(USUAL)
    assert advice.answer(found, SMOKE).startswith("Yes: pretrain on your own images")


def test_the_linear_probe_is_scikit_learns_on_the_same_folds():
    images = few_digits()
    run, evaluation, _ = measured(images)
    known, encoder = images.labelled, load_encoder(run)
    h = normalize(embed(encoder, images.train).double().numpy()) * encoder.out_dim**0.5
    truth = images.train_labels.numpy()
    for repeat in range(5):
        expected = np.zeros(60)
        for fold in folds(images, 0, repeat):
            own = fold.train[:48].numpy()  # too few to choose a penalty with
            theirs = LogisticRegression(C=1 / (USUAL_L2 * len(own)), tol=1e-8, max_iter=5000).fit(h[own], truth[own])
            held = known[fold.held].numpy()
            expected[fold.held.numpy()] = theirs.predict(h[held]) == truth[held]
        ours = evaluation.values["linear_accuracy@48"][repeat].numpy()
        assert (ours == expected).mean() >= 59 / 60


def test_groups_are_held_out_whole_and_counted():
    groups = torch.arange(90) // 6
    *_, found = measured(few_digits(groups=groups), SMOKE.replace(budgets=(36,)))
    assert found.judging.design.groups.tolist() == groups[:60].tolist()
    assert not found.has(APART)
    values = found.values(next(key for key in found.keys if str(key) == "linear_accuracy@36"))
    own = interval(values, found.judging.design)
    expected = {name: pytest.approx(100 * value) for name, value in vars(own).items()}
    assert found.intervals["linear_accuracy@36"] == expected
    assert "whole groups" in advice.spread(found)


def test_another_network_that_others_trained_is_another_evaluation(monkeypatch):
    images = few_digits()
    first = measured(images)[1]
    network = tiny_general()
    monkeypatch.setattr(evaluator, "general_network", lambda *args: network)
    evaluation = measured(images)[1]
    assert evaluation.seconds != first.seconds
    for arm in ("general", "general_own"):
        assert evaluation.values[f"{arm}_accuracy@48"].shape == (5, 60)
        assert evaluation.costs[arm] > 0
    assert torch.equal(evaluation.values["linear_accuracy@48"], first.values["linear_accuracy@48"])
    assert measured(images)[1].seconds == evaluation.seconds
    network = tiny_general(side=20)
    again = measured(images)[1]
    assert again.seconds != evaluation.seconds
    assert not any(name.startswith("general_finetuned") for name in again.values)  # it is one of a full evaluation


def test_networks_judge_the_images_that_their_labels_are_not_of():
    images = few_digits()
    run, evaluation, found = measured(images)
    truth = found.judging.labels
    for arm, how in (("finetuned", {"pretrained": load_encoder(run)}), ("supervised_plain", {"augmented": False})):
        expected = torch.zeros(60)
        for task in found.judging.tasks(48)[0]:
            model = classifier(run.settings, images, task.labels, **how)  # which was kept
            predicted = model.predict(images.train[found.judging.index[task.judged]]).argmax(1)
            expected[task.judged] = (predicted == truth[task.judged]).float()
        assert torch.equal(evaluation.values[f"{arm}_accuracy@48"], expected[None])
        assert 0.4 < expected.mean() < 1


def test_a_full_evaluation_corrupts_each_image_for_the_classifier_that_did_not_see_it(fresh_runs, monkeypatch):
    # A corruption that does nothing leaves each accuracy as it is
    monkeypatch.setattr(measurement, "CORRUPTIONS", ("nothing", "black"))
    monkeypatch.setattr(measurement, "corrupt", lambda name, x, seed: x if name == "nothing" else torch.zeros_like(x))
    _, evaluation, _ = measured(few_digits(), SMOKE.replace(evaluation="full", budgets=(48,)))
    metrics = {name: own["mean"] for name, own in aggregate(evaluation.rows).items()}
    for arm in ("linear", "random_encoder", "supervised"):
        clean = 100 * evaluation.values[f"{arm}_accuracy@48"][0].double().mean().item()
        assert metrics[f"{arm}_accuracy[nothing]"] == pytest.approx(clean)
        assert metrics[f"{arm}_accuracy[black]"] < clean
        both = [metrics[f"{arm}_accuracy[{name}]"] for name in ("nothing", "black")]
        assert metrics[f"{arm}_accuracy[corrupted]"] == pytest.approx(np.mean(both))


# --- A whole report -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A folder with a report on few labels and no test split, beside ImageNet features; and what was said."""
    if why := why_no_general():
        pytest.skip(why)
    folder, images = tmp_path_factory.mktemp("few"), few_digits()
    np.savez(folder / "scans.npz", train_images=images.train[:, 0].numpy(), train_labels=images.train_labels.numpy())
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setenv("CONTRASTIVE_RUNS", str(folder / "runs"))
        without_kernels(patch, folder / "reports")
        words = "--preset smoke --only 02_linear_eval -p epochs=20 -p base_channels=4 -p supervised_steps=5 -p"
        words = [*words.split(), "budgets=24,45", "-p", "general_size=64"]
        code = main(["report", "--dataset", str(folder / "scans.npz"), *words, "--out", str(folder / "out")])
    assert code == 0, said.getvalue()
    return folder, said.getvalue()


def test_the_results_of_a_report_tell_how_few_labels_were_judged(reported):
    folder, _ = reported
    results = read_json(folder / "out" / "results.json")
    assert (results["dataset"]["judged"], results["dataset"]["folds"], results["dataset"]["labels"]) == (60, 5, 60)
    assert (results["headline_labels"], results["headline_metric"]) == (45, "accuracy")
    arms = {*USUAL, "general", "general_own"}
    for arm in arms:
        own = results["intervals"][f"{arm}_accuracy@45"]
        assert own["low"] <= own["mean"] <= own["high"]
        assert own["mean"] == pytest.approx(results["metrics"][f"{arm}_accuracy@45"]["mean"], abs=1e-3)
    assert set(results["costs"]) == arms
    assert set(results["savings_by_arm"]) == {"linear", "finetuned", "general"}
    assert results["savings"] == results["savings_by_arm"]["linear"]
    assert "general_accuracy@45 - supervised_accuracy@45" in results["comparisons"]
    assert len(results["answers"]["02_linear_eval"]["numbers"]) == 4
    assert all(check["passed"] for check in results["checks"])


def test_the_page_of_a_report_on_few_labels_says_how_they_were_judged(reported):
    folder, said = reported
    page = (folder / "out" / "02_linear_eval.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "So the 60 labelled images are cross-validated: divided into 5 parts" in page
    assert re.search(r"<strong>\d+ of the 60 labelled images have near copies among them", page)  # noughts are alike
    assert "ImageNet features + linear" in page
    assert re.search(r"95 % interval from 60 cross-validated images, one seed", page)
    assert "nan" not in re.sub(r"data:[^\"']+", "", page[page.index("<article") :]).split()
    answer = read_json(folder / "out" / "results.json")["answers"]["02_linear_eval"]["answer"]
    assert answer.partition("\n")[0] in re.sub(r"\s+", " ", said)


def test_a_report_on_few_labels_keeps_a_probe_and_says_what_to_label_next(reported):
    folder, _ = reported
    (probe,) = (folder / "runs").glob(f"*/{PROBE}")
    kept = load_probe(probe.parent)
    assert (kept.n_labels, kept.classes) == (60, ("0", "1", "2"))
    with (folder / "out" / "label_next.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert 0 < len(rows) <= 30
