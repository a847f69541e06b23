"""Tables and sentences of a linear evaluation: they follow the numbers, and call noise what is noise."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from docs.published import recipes_table
from scipy import stats as scipy_stats

from contrastive.data import Copy, copied
from contrastive.evaluation.statistics import summary
from contrastive.report.tables import (
    calibration_sentence,
    differences,
    few_labels,
    in_points,
    labels_in_words,
    linear_checks,
    results_table,
    robustness_sentence,
    round_labels,
    savings_lines,
    savings_sentence,
    transfer_sentence,
    versus,
    with_interval,
)

from .made_up import findings, some_right


def metric(mean, std=0.0, n=1):
    return {"mean": mean, "std": std, "n_seeds": n, "values": [mean] * n}


def difference(points, half=0.5):
    return {"points": points, "low": points - half, "high": points + half, "p": 0.0}


METRICS = {"linear_accuracy@100": metric(90.0), "linear_accuracy@10000": metric(99.0)}
TRIED = {"least": 100, "most": 10_000}
SAVED = {
    "100": {"n": 100, "needed": 1290.0, "low": 900.0, "high": 2000.0, "accuracy": 90.0, **TRIED},
    "10000": {"n": 10_000, "needed": None, "low": None, "high": None, "reached": 99.0, **TRIED},
}
N = 200
SHARES = {"linear": (0.7, 0.9), "supervised": (0.4, 0.8), "random_encoder": (0.5, 0.6), "raw_pixel": (0.3, 0.5)}


def found(shares=None, seed_of=None, **options):
    """Findings with 100 and 1,000 labels, of four classes, where of each arm these shares were right."""
    right = {
        arm: {n: some_right(N, share, (seed_of or {}).get(arm, 0)) for n, share in zip((100, 1000), own, strict=False)}
        for arm, own in (shares or SHARES).items()
    }
    return findings(right, np.arange(N) % 4, 1000, few=100, **options)


# --- Tables -------------------------------------------------------------------------------------------------------


def test_the_best_of_each_number_of_labels_is_bold_and_has_its_interval():
    f = found()
    table = results_table(f, "accuracy", f.measured()).splitlines()
    assert table[0] == (
        "| labels | pretrained, frozen + linear | same network from scratch, augmented | random, frozen + linear | "
        "raw pixels + linear | guessing |"
    )
    cells = {line.split(" | ")[0]: line.strip("| ").split(" | ")[1:] for line in table[2:]}
    assert list(cells) == ["| 1,000", "| 100"]
    own = f.percent("linear")
    assert cells["| 1,000"][0] == f"**90.0 ({own['low']:.1f} to {own['high']:.1f})**"
    assert [cell.split(" ")[0] for cell in cells["| 1,000"]] == ["**90.0", "80.0", "60.0", "50.0", "25.0"]
    assert [cell.split(" ")[0] for cell in cells["| 100"]] == ["**70.0", "40.0", "50.0", "30.0", "25.0"]
    assert with_interval({"mean": 54.72, "low": 52.14, "high": 57.26}) == "54.7 (52.1 to 57.3)"


def test_what_was_not_measured_is_a_dash_or_no_table():
    f = found({**SHARES, "pca": (0.95,)})
    assert f.measured(full=True) == ["pca"]
    table = results_table(f, "accuracy", ["linear", "pca"]).splitlines()
    assert table[2].endswith("** | – | 25.0 |")
    assert "| **95.0 (" in table[3]
    assert results_table(f, "accuracy", ["scattering"]) == ""
    assert results_table(f, "average_precision", ["linear"]) == ""


def test_other_metrics_have_their_own_table():
    f = found()
    auc = results_table(f, "macro_auc", ["linear", "raw_pixel"]).splitlines()
    assert auc[2].split(" | ")[1].startswith(f"**{f.percent('linear', metric='macro_auc')['mean']:.1f} (")
    assert auc[2].endswith("| 50.0 |")  # by guessing


def test_differences_are_a_table_and_bold_where_they_are_no_noise():
    f = found(seed_of={"supervised": 3}, shares={**SHARES, "supervised": (0.4, 0.89)})
    lines = differences(f, (100, 1000, 100)).splitlines()
    assert lines[0] == "| the linear probe on the pretrained encoder, less | 100 labels | 1,000 labels |"
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in lines[2:5]}
    assert list(rows) == ["the same network from scratch, augmented", "the random encoder", "raw pixels"]
    scratch = f.compared["linear_accuracy@1000 - supervised_accuracy@1000"]
    assert rows["the same network from scratch, augmented"][1] == (
        f"{scratch['points']:+.1f} ({scratch['low']:+.1f} to {scratch['high']:+.1f})"
    )
    assert scratch["low"] < 0 < scratch["high"]
    assert rows["raw pixels"][0].startswith("**+40.0 (+")
    assert [in_points(difference(x)) for x in (0.4, 2.0, -2.0)] == [
        "+0.4 (-0.1 to +0.9)", "**+2.0 (+1.5 to +2.5)**", "**-2.0 (-2.5 to -1.5)**",
    ]  # fmt: skip


def test_differences_with_a_number_of_labels_that_an_arm_did_not_have_are_a_dash():
    f = found({**SHARES, "pca": (0.95,)})
    lines = differences(f, (100, 1000)).splitlines()
    (line,) = [line for line in lines if line.startswith("| principal components")]
    assert line.startswith("| principal components | **-25.0 (")
    assert line.endswith(" | – |")
    assert not any(
        line.startswith("| principal") for line in differences(found({**SHARES, "pca": (0.95,)}), (1000,)).splitlines()
    )


def test_one_seed_says_that_it_does_not_count_what_seeds_would():
    assert (
        differences(found(), (100,)).splitlines()[-1].startswith("One seed: these intervals are of the judged images.")
    )
    assert "One seed" not in differences(found(n_seeds=5), (100,))


# --- Sentences ----------------------------------------------------------------------------------------------------


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


def test_labels_saved_are_listed_with_all_numbers_of_labels_and_of_imagenet_features_with_two():
    shares = {"linear": (0.7, 0.9), "finetuned": (0.6, 0.8), "general": (0.75, 0.85), "supervised": (0.5, 0.8)}
    right = {arm: {n: some_right(N, a) for n, a in zip((100, 1000), own, strict=True)} for arm, own in shares.items()}
    for arm in ("linear", "general"):
        right[arm][400] = some_right(N, 0.8)
    lines = savings_lines(findings(right, np.arange(N) % 4, 1000, few=100)).splitlines()
    starts = [line.split(" get")[0] for line in lines]
    assert starts == [
        "- With 100 labels, the linear probe on the pretrained encoder",
        "- With 400 labels, the linear probe on the pretrained encoder",
        "- With 1,000 labels, the linear probe on the pretrained encoder",
        "- With 100 labels, the fine-tuned network", "- With 1,000 labels, the fine-tuned network",
        "- With 100 labels, ImageNet features", "- With 1,000 labels, ImageNet features",
    ]  # fmt: skip
    assert all(line.endswith(".") for line in lines)


def test_of_an_encoder_that_was_trained_on_labels_no_savings_are_listed():
    right = {arm: {1000: some_right(N, 0.8)} for arm in ("linear", "general", "supervised")}
    start, *lines = savings_lines(findings(right, np.arange(N) % 4, 1000, few=1000), read_labels=True).splitlines()
    assert start == "*The encoder was trained on labels, so it saves none.*"
    assert [line.split(" get")[0] for line in lines if line] == ["- With 1,000 labels, ImageNet features"]


def test_numbers_of_labels_are_told_as_far_as_they_were_looked_for():
    assert [labels_in_words(n, TRIED) for n in (None, 60.0, 100.0, 1249.0)] == [
        "more than 10,000", "100 or fewer", "100 or fewer", "about 1,200",
    ]  # fmt: skip
    assert [few_labels(budgets, 10) for budgets in ((10, 50, 100, 600), (150, 600), (10, 50))] == [100, 150, 50]
    assert [round_labels(n) for n in (9.6, 34.55, 99.6, 995.0, 1249.0, 0.2)] == [10, 35, 100, 1000, 1200, 0]


def test_a_difference_whose_interval_holds_0_is_noise():
    assert versus(difference(10.0, 1), "the other") == "10.00 points better than the other (95 %: +9.00 to +11.00)"
    assert versus(difference(-10.0, 1), "the other") == "10.00 points worse than the other (95 %: -11.00 to -9.00)"
    assert "within noise of the other (+1.00" in versus(difference(1.0, 1.1), "the other")


def test_what_was_not_measured_has_no_sentence():
    assert robustness_sentence(METRICS, 10_000) == transfer_sentence(METRICS, None) == ""
    more = METRICS | {"linear_accuracy[corrupted]": metric(80.0), "random_encoder_accuracy[transfer]": metric(70.0)}
    assert robustness_sentence(more, 10_000).endswith(": the linear probe 80.00 % (clean: 99.00 %).")
    assert transfer_sentence(more, "letters").endswith(
        "labels of letters, an encoder frozen: the random encoder 70.00 %."
    )
    errors = {"calibration_error@600": metric(4.0), "calibration_error_scaled@600": metric(4.0)}
    assert calibration_sentence(errors, 600).endswith(
        "off by 4.00 points on average (expected calibration error in 15 bins)."
    )
    assert "by 1.50 once a temperature" in calibration_sentence(
        errors | {"calibration_error_scaled@600": metric(1.5)}, 600
    )


# --- Checks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, None),
        ({"frozen": False}, "the encoder stayed frozen"),
        ({"raw": 0.99}, "pretrained against raw pixel"),
        ({"copied": 3}, "few test images are copies of training images"),
    ],
)
def test_a_linear_evaluation_is_checked(changes, failed, monkeypatch):
    have = {"frozen": True, "raw": 0.5, "copied": 2} | changes
    f = found({**SHARES, "raw_pixel": (0.3, have["raw"])}, n_seeds=2)
    f.evaluations[1] = dataclasses.replace(f.evaluations[1], encoder_unchanged=have["frozen"])
    images = SimpleNamespace(train=range(1000), test=range(2000), groups=(), cross_validated=False)
    # Training images are counted first. Of a test image with two copies, one counts; copies within a part do not.
    copies = [(5, 1000 + i) for i in range(have["copied"])] + [(6, 1000), (1, 2), (1500, 1501)]
    monkeypatch.setattr(copied, "copies_of", lambda images: [Copy(a, b, True, 1.0, False) for a, b in copies])
    checks = linear_checks(f, images)
    assert len(checks) == 4
    assert [check["name"] for check in checks if not check["passed"]] == ([failed] if failed else [])


def test_without_a_test_split_there_are_no_copies_of_test_images():
    f = found()
    assert [check["name"] for check in linear_checks(f, f.judging.images)] == [
        "the encoder stayed frozen", "pretrained against random encoder", "pretrained against raw pixel",
    ]  # fmt: skip


# --- Recipes ------------------------------------------------------------------------------------------------------


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
