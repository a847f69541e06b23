"""Tables and sentences of a linear evaluation: they follow the numbers, and call noise what is noise."""

from types import SimpleNamespace

import pytest
from docs.published import recipes_table
from scipy import stats as scipy_stats

from contrastive.data import Copy, copied
from contrastive.evaluation.statistics import summary
from contrastive.report.tables import (
    answer,
    calibration_sentence,
    differences,
    few_labels,
    key_numbers,
    linear_checks,
    more_arms_table,
    more_differences,
    results_table,
    robustness_sentence,
    round_labels,
    savings_sentence,
    transfer_sentence,
    versus,
)


def metric(mean, std=0.0, n=1):
    return {"mean": mean, "std": std, "n_seeds": n, "values": [mean] * n}


def difference(points, half=0.5):
    return {"points": points, "low": points - half, "high": points + half, "p": 0.0}


FOUND = {"linear": (90.0, 99.0), "random_encoder": (70.0, 97.0), "supervised": (80.0, 98.0), "raw_pixel": (60.0, 90.0)}
METRICS = {
    f"{arm}_accuracy@{n}": metric(value)
    for arm, values in FOUND.items()
    for n, value in zip((100, 10_000), values, strict=True)
} | {"majority_class_accuracy": metric(11.0)}
TRIED = {"least": 100, "most": 10_000}
SAVED = {
    "100": {"n": 100, "needed": 1290.0, "low": 900.0, "high": 2000.0, "accuracy": 90.0, **TRIED},
    "10000": {"n": 10_000, "needed": None, "low": None, "high": None, "accuracy": 99.0, **TRIED},
}
COMPARED = {
    f"linear_accuracy@{n} - {arm}_accuracy@{n}": difference(points)
    for n in (100, 10_000)
    for arm, points in (("random_encoder", 2.0), ("supervised", 0.4), ("raw_pixel", 9.0))
}


def test_the_best_of_each_number_of_labels_is_bold():
    table = results_table(METRICS, (100, 10_000), 20_000, "mnist").splitlines()
    assert table[2] == "| 10,000 (50 % of mnist) | **99.00 %** | 98.00 % | 97.00 % | 90.00 % |"
    assert (
        results_table(METRICS, (100, 10_000), 10_000, "mnist")
        .splitlines()[2]
        .startswith("| 10,000 (all labels of mnist)")
    )


def test_arms_of_a_full_evaluation_have_a_table_where_they_were_measured():
    assert more_arms_table(METRICS, (100, 10_000), 20_000, "mnist") == ""
    more = METRICS | {"pca_accuracy@100": metric(95.0)}
    assert more_arms_table(more, (100, 10_000), 20_000, "mnist").splitlines()[2:] == [
        "| 10,000 (50 % of mnist) | **99.00 %** | – |",
        "| 100 (0.5 % of mnist) | 90.00 % | **95.00 %** |",
    ]
    assert more_differences(METRICS, COMPARED, 100) == ""
    compared = {"linear_accuracy@100 - pca_accuracy@100": difference(-5.0)}
    assert "is 5.00 points worse than principal components" in more_differences(more, compared, 100)


def test_labels_saved_are_told_with_their_interval():
    said = savings_sentence(METRICS, SAVED, 100)
    assert "needs about 1,300 labels for that (95 %: 900 to 2,000), 12.9 times as many" in said
    said = savings_sentence(METRICS, SAVED, 10_000)
    assert "does not get there with 10,000, the most that were tried (95 %: more than 10,000)" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"needed": 100.0, "low": 100.0, "high": 100.0},
         "does as well with 100 or fewer (95 %: 100 or fewer to 100): no label is saved."),
        ({"needed": 100.0, "low": 100.0, "high": 300.0}, " to 300): whether any label is saved is within noise."),
        ({"low": 60.0}, "12.9 times as many: whether any label is saved is within noise."),
    ],
)  # fmt: skip
def test_that_no_label_is_saved_is_said_as_plainly(changes, said):
    assert savings_sentence(METRICS, {"100": SAVED["100"] | changes}, 100).endswith(said)


def test_a_difference_whose_interval_holds_0_is_noise():
    assert versus(difference(10.0, 1), "the other") == "10.00 points better than the other (95 %: +9.00 to +11.00)"
    assert versus(difference(-10.0, 1), "the other") == "10.00 points worse than the other (95 %: -11.00 to -9.00)"
    assert "within noise of the other (+1.00" in versus(difference(1.0, 1.1), "the other")


def test_the_answer_is_about_few_labels_and_about_the_headline():
    said = answer(METRICS, COMPARED, SAVED, 100, 10_000)
    assert said.startswith("With 100 labels, the linear probe on the pretrained encoder gets 90.0 %;")
    assert "gets 99.00 %: 2.00 points better than the random encoder (95 %: +1.50 to +2.50), and within noise" in said
    tiles = key_numbers(METRICS, SAVED, 100, 10_000, 10_000)
    assert [value for value, *_ in tiles] == ["99.00 %", "97.00 %", "98.00 %", "1,300"]
    assert tiles[0][1] == "± 0.20"  # 1.96 standard errors of 10,000 images
    assert "One seed" in said
    several = {name: own | {"n_seeds": 5} for name, own in METRICS.items()}
    assert "One seed" not in answer(several, COMPARED, SAVED, 100, 10_000)
    assert [few_labels(budgets, 10) for budgets in ((10, 50, 100, 600), (150, 600), (10, 50))] == [100, 150, 50]
    assert [round_labels(n) for n in (9.6, 34.55, 99.6, 995.0, 1249.0, 0.2)] == [10, 35, 100, 1000, 1200, 0]


def test_the_better_of_two_networks_from_scratch_is_what_is_to_be_beaten():
    plain = METRICS | {"supervised_plain_accuracy@10000": metric(98.5)}
    beaten = COMPARED | {"linear_accuracy@10000 - supervised_plain_accuracy@10000": difference(0.5, 0.25)}
    assert answer(plain, beaten, SAVED, 100, 10_000).endswith(
        "and 0.50 points better than the better network from scratch, not augmented (95 %: +0.25 to +0.75)."
        " (One seed: these intervals are of test images alone.)"
    )
    assert key_numbers(plain, SAVED, 100, 10_000, 10_000)[2][::2] == (
        "98.50 %",
        "same network from scratch, not augmented, 10,000 labels",
    )


@pytest.mark.parametrize(("probe", "worse"), [(10.9, True), (11.0, True), (11.1, False)])
def test_a_probe_that_is_no_better_than_always_guessing_one_class_saves_no_label(probe, worse):
    metrics = METRICS | {"linear_accuracy@10000": metric(probe)}
    said = answer(metrics, COMPARED, SAVED, 100, 10_000)
    if worse:
        assert answer(metrics, COMPARED, SAVED, 100, 10_000, read_labels=True) == (
            f"This encoder was trained on labels, so nothing here is a saving of labels. {said}"
        )
        assert said == (
            f"With 10,000 labels, the linear probe on the pretrained encoder gets {probe:.1f} %, no more than always "
            "guessing the most frequent class (11.0 %). Nothing can be said of labels saved."
        )
    else:
        assert "better than the random encoder" in said
        assert "guessing" not in said


def test_one_seed_says_that_it_does_not_count_what_seeds_would():
    said = differences(METRICS, COMPARED, (100, 10_000, 100), 1).splitlines()
    assert [line.partition(":")[0] for line in said] == [
        "- Pretrained, with 100 labels", "- Pretrained, with 10,000 labels", "- One seed",
    ]  # fmt: skip
    assert "9.00 points better than raw pixels" in said[0]
    assert "One seed" not in differences(METRICS, COMPARED, (100,), 5)


def test_what_was_not_measured_has_no_sentence():
    assert robustness_sentence(METRICS, 10_000) == transfer_sentence(METRICS, None) == ""
    more = METRICS | {"linear_accuracy[corrupted]": metric(80.0), "random_encoder_accuracy[transfer]": metric(70.0)}
    assert robustness_sentence(more, 10_000).endswith(": the linear probe 80.00 % (clean: 99.00 %).")
    assert transfer_sentence(more, "letters").endswith(
        "labels of letters, an encoder frozen: the random encoder 70.00 %."
    )
    errors = {"calibration_error@600": metric(4.0), "calibration_error_scaled@600": metric(4.0)}
    assert "once a temperature" not in calibration_sentence(errors, 600)
    assert "by 1.50 once a temperature" in calibration_sentence(
        errors | {"calibration_error_scaled@600": metric(1.5)}, 600
    )
    assert calibration_sentence(errors | {"macro_auc@600": metric(97.0)}, 600).endswith("bins). Macro AUC: 97.00 %.")


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, None),
        ({"frozen": False}, "the encoder stayed frozen"),
        ({"points": -1.0}, "pretrained against raw pixel"),
        ({"copied": 3}, "few test images are copies of training images"),
        ({"majority": 99.5}, "better than the majority class"),
    ],
)
def test_a_linear_evaluation_is_checked(changes, failed, monkeypatch):
    have = {"frozen": True, "points": 9.0, "copied": 2, "majority": 11.0} | changes
    compared = COMPARED | {"linear_accuracy@10000 - raw_pixel_accuracy@10000": difference(have["points"])}
    images = SimpleNamespace(train=range(1000), test=range(2000), groups=())
    # Training images are counted first. Of a test image with two copies, one counts; copies within a part do not.
    copies = [(5, 1000 + i) for i in range(have["copied"])] + [(6, 1000), (1, 2), (1500, 1501)]
    monkeypatch.setattr(copied, "copies_of", lambda images: [Copy(a, b, True, 1.0, False) for a, b in copies])
    evaluations = [SimpleNamespace(encoder_unchanged=unchanged) for unchanged in (True, have["frozen"])]
    metrics = METRICS | {"majority_class_accuracy": metric(have["majority"])}
    checks = linear_checks(metrics, compared, 10_000, images, evaluations)
    assert len(checks) == 5
    assert [check["name"] for check in checks if not check["passed"]] == ([failed] if failed else [])


def test_recipes_stand_beside_each_other_with_the_first_ones_controls():
    first = {
        "metrics": {
            "linear_accuracy@100": metric(97.0, 0.25, 5), "supervised_accuracy@100": metric(95.0, 0.5, 5),
            "supervised_plain_accuracy@100": metric(96.0, 0.5, 5), "scattering_accuracy@100": metric(94.0, 0.0, 5),
            "knn_accuracy": metric(99.0, 0.1, 5),
        },
        "headline_labels": 600,
        "comparisons": {
            "linear_accuracy@100 - supervised_accuracy@100": {"points": 2.0, "p": 0.00012},
            "linear_accuracy@100 - supervised_plain_accuracy@100": {"points": 1.0, "p": 0.00012},
            "linear_accuracy@100 - random_encoder_accuracy@100": {"points": 9.0, "p": 0.0055},
        },
    }  # fmt: skip
    second = {
        "metrics": {
            "linear_accuracy@100": metric(94.0), "linear_accuracy@600": metric(96.0), "knn_accuracy": metric(1.0),
        },
        "comparisons": {"linear_accuracy@600 - supervised_accuracy@600": {"points": -0.125, "p": 0.0434}},
    }  # fmt: skip
    assert recipes_table({"ours": first, "theirs": second}, (100, 600)).splitlines() == [
        "| test accuracy (%) with | 100 labels | 600 labels | kNN, 600 labels |",
        "|:--|--:|--:|--:|",
        "| **ours** | 97.00 ± 0.25 | – | 99.00 ± 0.10 |",
        "| – same network from scratch, augmented | 95.00 ± 0.50 | – | |",
        "| – same network from scratch, not augmented | 96.00 ± 0.50 | – | |",
        "| – pretraining is better than the better of these by | +1.00 (p < 0.001) | – | |",
        "| – pretraining is better than the frozen random encoder by | +9.00 (p = 0.0055) | – | |",
        "| **theirs** | 94.00 | 96.00 | 1.00 |",
        "| – pretraining is better by | – | -0.12 | |",
        "| scattering transform + linear | 94.00 ± 0.00 | – | |",
    ]
    a, b = [96.0, 96.5, 97.5], [95.0, 96.0, 95.5]
    for results, name, values in ((second, "linear", a), (first, "supervised", b)):
        results["metrics"][f"{name}_accuracy@100"] = summary(values)
    second["metrics"]["knn_accuracy"] = metric(1.0, 0.1, 3)
    p = scipy_stats.ttest_rel(a, b).pvalue
    assert (
        f"| – … than the network from scratch under the first recipe's augmentations by | +1.17 (p = {p:.2g}) | – | |"
        in recipes_table({"ours": first, "theirs": second}, (100, 600)).splitlines()
    )
