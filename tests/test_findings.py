"""What several seeds say together, against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from contrastive.evaluation import Findings, aggregate, better_from_scratch, difference_name
from contrastive.evaluation.findings import UNEVEN, headline_metric
from contrastive.evaluation.labels_saved import label_savings
from contrastive.evaluation.metrics import Key
from contrastive.evaluation.statistics import Design, interval, paired_difference
from contrastive.report.tables import savings_sentence

from .made_up import evaluation, findings, judged, some_right

FOUR = np.array([0, 1, 2, 0])  # classes of images; more than two, so that accuracy leads


def even(n, n_classes=4):
    """Classes of n images, as many of each."""
    return np.arange(n) % n_classes


def of_seeds(*rights, labels=FOUR, headline=50, folds=0, **options):
    """Findings of several seeds, each with what was right in it."""
    found = [evaluation(right, labels, headline, seed) for seed, right in enumerate(rights)]
    return Findings(found, judged(labels, folds, **options), headline)


# --- Differences --------------------------------------------------------------------------------------------------


def test_every_arm_is_compared_with_the_linear_probe_with_as_many_labels():
    right = {
        "linear": {10: [1, 1, 0, 0], 50: [1, 1, 1, 0]}, "raw_pixel": {10: [1, 0, 0, 0]}, "pca": {50: [1, 1, 1, 1]},
    }  # fmt: skip
    found = {name: d for name, d in of_seeds(right).compared.items() if "balanced" not in name and "auc" not in name}
    assert {name: difference["points"] for name, difference in found.items()} == {
        "linear_accuracy@10 - raw_pixel_accuracy@10": 25.0,
        "linear_accuracy@50 - pca_accuracy@50": -25.0,
    }
    assert all(difference["low"] <= difference["points"] <= difference["high"] for difference in found.values())


def test_general_features_are_compared_with_every_other_arm_by_the_headline_metric():
    right = {arm: {50: [1, 1, 0, 0]} for arm in ("linear", "general", "general_own", "supervised")}
    names = set(of_seeds(right).compared)
    pairs = [("general", "supervised"), ("general", "general_own"), ("general_own", "supervised")]
    for a, b in pairs:
        assert difference_name(Key("accuracy", a, 50), Key("accuracy", b, 50)) in names
        assert difference_name(Key("macro_auc", a, 50), Key("macro_auc", b, 50)) not in names
    assert difference_name(Key("macro_auc", "linear", 50), Key("macro_auc", "general", 50)) in names
    assert not any(name.endswith(" - linear_accuracy@50") for name in names)


def test_arms_are_compared_on_the_draws_that_both_had():
    # The linear probe is as good as fine-tuning with the first draw, and better with the second, which only it had.
    found = of_seeds({"linear": {50: [[1, 0, 1, 0], [1, 1, 1, 1]]}, "finetuned": {50: [0, 1, 1, 0]}})
    assert found.compared["linear_accuracy@50 - finetuned_accuracy@50"]["points"] == 0
    assert found.difference("linear", "finetuned").points == 0


def test_differences_are_paired_by_image_over_the_mean_of_draws():
    found = of_seeds(
        {"linear": {50: [[1, 1, 0, 0], [1, 0, 0, 0]]}, "raw_pixel": {50: [[1, 0, 0, 0], [0, 1, 0, 0]]}},
        {"linear": {50: [[1, 1, 1, 0], [1, 1, 0, 0]]}, "raw_pixel": {50: [[1, 0, 0, 0], [1, 0, 0, 1]]}},
    )
    ours = np.array([[1, 0.5, 0, 0], [1, 1, 0.5, 0]])
    theirs = np.array([[0.5, 0.5, 0, 0], [1, 0, 0, 0.5]])
    own = found.compared["linear_accuracy@50 - raw_pixel_accuracy@50"]
    expected = vars(paired_difference(ours, theirs))
    assert own == {name: pytest.approx(value) for name, value in expected.items()}
    assert own["points"] == pytest.approx(100 * (ours - theirs).mean())


def test_means_are_over_draws_and_then_over_seeds():
    found = of_seeds({"linear": {50: [1, 0, 1, 0]}}, {"linear": {50: [[1, 1, 1, 1], [1, 0, 1, 0]]}})
    assert found.metrics["linear_accuracy@50"]["values"] == pytest.approx([50.0, 75.0])
    assert found.metrics["linear_accuracy@50"]["mean"] == pytest.approx(62.5)
    assert found.metrics == aggregate([row for own in found.evaluations for row in own.rows])


# --- The metric that leads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "metric"),
    [
        ((50, 50), "balanced_accuracy"),  # of two classes AUC and balanced accuracy are what people expect
        ((30, 30, 30), "accuracy"),
        ((45, 25, 20), "accuracy"),  # 1.5 times as many as on average
        ((46, 24, 20), "balanced_accuracy"),
        ((30, 30, 30, 0), "accuracy"),  # a class without an image is none
        ((30, 30, 0), "balanced_accuracy"),
    ],
)
def test_uneven_classes_and_two_are_judged_by_balanced_accuracy(counts, metric):
    labels = np.repeat(np.arange(len(counts)), counts)
    assert headline_metric(labels) == metric
    assert UNEVEN == 1.5


def test_classes_of_training_and_judged_images_decide_together():
    right = {"linear": {50: some_right(90, 0.5)}, "supervised": {50: some_right(90, 0.5)}}
    assert findings(right, np.repeat([0, 1, 2], 30), 50, folds=0).metric == "accuracy"
    # The training images of `judged` are even, so test images have to be far from it
    assert findings(right, np.repeat([0, 1, 2], [80, 5, 5]), 50, folds=0).metric == "balanced_accuracy"


# --- Intervals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [0, 5])
def test_intervals_are_those_of_the_values_as_they_were_judged(folds):
    labels, groups = even(60), np.arange(60) // 6
    right = {"linear": {50: [some_right(60, 0.7, seed) for seed in range(3)]}}
    found = findings(right, labels, 50, folds=folds, groups=groups)
    own = np.stack(right["linear"][50])[None].astype(float)
    expected = interval(own, Design(groups, folds))
    assert found.percent("linear")["low"] == pytest.approx(100 * expected.low)
    assert found.percent("linear")["high"] == pytest.approx(100 * expected.high)
    assert found.percent("linear")["mean"] == pytest.approx(70.0)
    assert set(found.intervals) == {f"linear_{metric}@50" for metric in ("accuracy", "balanced_accuracy", "macro_auc")}


def test_an_interval_counts_groups_whose_images_agree():
    labels, groups = even(120), np.arange(120) // 10
    by_group = some_right(12, 0.5)[groups]  # all of a group are right, or none
    alone = some_right(120, 0.5, 3)
    widths = {}
    for name, own in {"agree": by_group, "differ": alone}.items():
        for given in (None, groups):
            interval_ = findings({"linear": {50: own}}, labels, 50, folds=0, groups=given).percent("linear")
            widths[name, given is None] = interval_["high"] - interval_["low"]
    assert widths["agree", True] == pytest.approx(widths["differ", True])  # without groups nobody knows
    assert widths["agree", False] > 2.5 * widths["agree", True]
    assert widths["differ", False] < 2.0 * widths["differ", True]


def test_an_interval_counts_that_folds_overlap_in_what_they_were_trained_on():
    right = {"linear": {50: some_right(100, 0.7)}, "raw_pixel": {50: some_right(100, 0.6, 5)}}
    test, crossed = (findings(right, even(100), 50, folds=folds) for folds in (0, 5))
    for narrow, wide in (
        (test.percent("linear"), crossed.percent("linear")),
        (vars(test.difference("linear", "raw_pixel")), vars(crossed.difference("linear", "raw_pixel"))),
    ):
        assert wide["high"] - wide["low"] > 1.3 * (narrow["high"] - narrow["low"])


def test_balanced_accuracy_is_that_of_scikit_learn():
    labels = np.repeat([0, 1], [50, 10])
    own = some_right(60, 0.6)
    found = findings({"linear": {50: own}}, labels, 50)
    expected = balanced_accuracy_score(labels, np.where(own, labels, 1 - labels))
    assert found.metric == "balanced_accuracy"
    assert found.percent("linear")["mean"] == pytest.approx(100 * expected, abs=1e-4)
    assert found.guess["balanced_accuracy"] == pytest.approx(50.0)
    assert found.guess["accuracy"] == pytest.approx(100 * 50 / 60)


# --- Labels saved -------------------------------------------------------------------------------------------------


def share(percent, n=100):
    return [1] * percent + [0] * (n - percent)


def test_label_savings_are_over_the_better_network_at_each_number_of_labels():
    right = {
        "linear": {10: share(80), 100: share(90), 1000: share(99)},
        "supervised": {10: share(50), 100: share(60), 1000: share(70)},
        "supervised_plain": {10: share(30), 100: share(80)},
    }
    found = findings(right, even(100), 1000, folds=0, n_seeds=2)
    best = {n: better_from_scratch(found.metrics, n) for n in (10, 100, 1000)}
    assert best == {n: found.scratch(n) for n in best}
    assert best == {10: "supervised", 100: "supervised_plain", 1000: "supervised"}
    saved = found.savings("linear")
    assert saved["10"]["needed"] == pytest.approx(100)  # with augmentations alone it would be more than 1,000
    assert saved["1000"]["needed"] is None
    assert (saved["10"]["least"], saved["10"]["most"]) == (10, 1000)
    assert "needs about 100 labels for that" in savings_sentence(found.metrics, saved, 10)


def test_label_savings_are_of_the_draws_that_both_had():
    right = {
        "linear": {10: [share(90), share(70)], 100: share(99)}, "supervised": {10: share(85), 100: share(95)},
    }  # fmt: skip
    found = findings(right, even(100), 100, folds=0, n_seeds=3)
    saved = found.savings("linear")
    # Half way from 85 to 95, for 90 and not for the mean of 80
    assert saved["10"]["needed"] == pytest.approx(10**1.5, rel=1e-4)
    assert (
        "gets 90.0 % (with the first draw of labels, which the network had, too; 80.0 % with all draws)"
        in savings_sentence(found.metrics, saved, 10)
    )


def test_every_way_that_was_measured_has_its_labels_saved():
    right = {
        "linear": {50: share(80), 200: share(88)}, "finetuned": {200: share(85)},
        "general": {50: share(90), 200: share(94)}, "general_own": {200: share(97)}, "random_encoder": {50: share(50)},
        "supervised": {50: share(60), 200: share(90)},
    }  # fmt: skip
    groups = np.arange(100) // 2
    found = findings(right, even(100), 200, groups=groups)
    assert {arm: list(own) for arm, own in found.saved.items()} == {
        "linear": ["50", "200"], "finetuned": ["200"], "general": ["50", "200"],
    }  # fmt: skip
    curve = {n: np.array(right["supervised"][n], float)[None, None] for n in (50, 200)}
    for arm, n in (("finetuned", 200), ("general", 50)):
        own = vars(label_savings(np.array(right[arm][n], float)[None, None], curve, n, Design(groups, 5)))
        own = {name: None if value == float("inf") else pytest.approx(value) for name, value in own.items()}
        assert found.saved[arm][str(n)] == {**own, "reached": pytest.approx(np.mean(right[arm][n]) * 100)}
    assert found.saved["general"]["200"]["needed"] is None
    assert found.saved["finetuned"]["200"]["needed"] == pytest.approx(50 * 4 ** (25 / 30), rel=1e-4)
    assert "With 50 labels, ImageNet features get 90.0 %" in savings_sentence(
        found.metrics, found.saved["general"], 50, "general"
    )


def test_savings_are_by_the_metric_that_leads():
    labels = np.repeat([0, 1], [80, 20])
    fine = [1] * 40 + [0] * 40 + [1] * 20  # 60 % right, 75 % of a class on average
    coarse = [1] * 80 + [0] * 20  # 80 % and 50 %
    right = {"linear": {50: fine}, "supervised": {50: coarse, 200: share(100)}}
    found = findings(right, labels, 50)
    assert found.metric == "balanced_accuracy"
    assert found.saved["linear"]["50"]["reached"] == pytest.approx(75.0)
    assert found.saved["linear"]["50"]["needed"] == pytest.approx(50 * 4**0.5, rel=1e-4)  # from 50 to 100


# --- What was measured --------------------------------------------------------------------------------------------


def test_without_a_network_from_scratch_the_augmented_one_is_named():
    assert better_from_scratch({}, 10) == "supervised"


def test_what_was_measured_is_known():
    right = {"linear": {10: FOUR > 0, 50: FOUR > 0}, "pca": {10: FOUR > 0}, "linear_apart": {50: FOUR > 0}}
    found = of_seeds(right)
    assert found.measured() == ["linear", "pca"]
    assert (found.measured(full=False), found.measured(full=True)) == (["linear"], ["pca"])
    assert found.budgets("linear") == [10, 50]
    assert found.has("linear_apart")
    assert found.has("pca", 10)
    assert not found.has("pca")


def test_costs_are_of_the_seed_that_took_longest():
    labels = even(8)
    own = [evaluation({"linear": {50: labels > 0}}, labels, 50, seed, {"general": 9.0 / (seed + 1)}) for seed in (0, 1)]
    assert Findings(own, judged(labels), 50).costs == {"general": 9.0}
