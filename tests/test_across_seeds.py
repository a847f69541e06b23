"""What several seeds say together, against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contrastive.evaluation import Evaluation, Key, aggregate, better_from_scratch, comparisons, savings_by_budget
from contrastive.evaluation.metrics import Row
from contrastive.evaluation.statistics import paired_difference
from contrastive.report.tables import savings_sentence


def evaluation(seed=0, **right):
    """An evaluation in which the images were right as given: `linear_50=[[1, 0], [1, 1]]` is two draws of 50 labels."""
    tensors, rows = {}, []
    for name, values in right.items():
        arm, _, n = name.rpartition("_")
        key = Key("accuracy", arm, int(n))
        tensors[str(key)] = torch.tensor(values, dtype=torch.uint8)
        rows += [
            Row(arm, "accuracy", int(n), "", seed, draw, 100 * sum(row) / len(row)) for draw, row in enumerate(values)
        ]
    return Evaluation(rows, 50, torch.empty(0), tensors, 0.0, True)


def numbers(evaluations):
    """All measurements of some evaluations, over seeds."""
    return aggregate([row for evaluation in evaluations for row in evaluation.rows])


def test_every_arm_is_compared_with_the_linear_probe_with_as_many_labels():
    found = comparisons(
        [
            evaluation(
                linear_10=[[1, 1, 0, 0]], linear_50=[[1, 1, 1, 0]], raw_pixel_10=[[1, 0, 0, 0]], pca_50=[[1, 1, 1, 1]]
            )
        ]
    )
    assert {name: difference["points"] for name, difference in found.items()} == {
        "linear_accuracy@10 - raw_pixel_accuracy@10": 25.0,
        "linear_accuracy@50 - pca_accuracy@50": -25.0,
    }
    assert all(difference["low"] <= difference["points"] <= difference["high"] for difference in found.values())


def test_arms_are_compared_on_the_draws_that_both_had():
    # The linear probe is as good as fine-tuning with the first draw, and better with the second, which only it had.
    found = comparisons([evaluation(linear_50=[[1, 0, 1, 0], [1, 1, 1, 1]], finetuned_50=[[0, 1, 1, 0]])])
    assert found["linear_accuracy@50 - finetuned_accuracy@50"]["points"] == 0


def test_label_savings_are_over_the_better_network_at_each_number_of_labels():
    images = 100

    def share(percent):
        return [[1] * percent + [0] * (images - percent)]

    seeds = [
        evaluation(
            seed, linear_10=share(80), linear_100=share(90), linear_1000=share(99),
            supervised_10=share(50), supervised_100=share(60), supervised_1000=share(70),
            supervised_plain_10=share(30), supervised_plain_100=share(80),
        )
        for seed in range(2)
    ]  # fmt: skip
    metrics = numbers(seeds)
    best = {n: better_from_scratch(metrics, n) for n in (10, 100, 1000)}
    assert best == {10: "supervised", 100: "supervised_plain", 1000: "supervised"}
    saved = savings_by_budget(seeds)
    assert saved["10"]["needed"] == pytest.approx(100)  # with augmentations alone it would be more than 1,000
    assert saved["1000"]["needed"] is None
    assert (saved["10"]["least"], saved["10"]["most"]) == (10, 1000)
    assert "needs about 100 labels for that" in savings_sentence(metrics, saved, 10)


def test_label_savings_are_of_the_draws_that_both_had():
    right = {"linear_10": [[1] * 90 + [0] * 10, [1] * 70 + [0] * 30], "supervised_10": [[1] * 85 + [0] * 15]}
    right |= {"linear_100": [[1] * 99 + [0]], "supervised_100": [[1] * 95 + [0] * 5]}
    seeds = [evaluation(seed, **right) for seed in range(3)]
    saved = savings_by_budget(seeds)
    assert saved["10"]["needed"] == pytest.approx(10**1.5)  # half way from 85 to 95, for 90 and not for the mean of 80
    assert (
        "gets 90.0 % (with the first draw of labels, which the network had, too; 80.0 % with all draws)"
        in savings_sentence(numbers(seeds), saved, 10)
    )


def test_differences_are_paired_by_image_over_the_mean_of_draws():
    seeds = [
        evaluation(0, linear_50=[[1, 1, 0, 0], [1, 0, 0, 0]], raw_pixel_50=[[1, 0, 0, 0], [0, 1, 0, 0]]),
        evaluation(1, linear_50=[[1, 1, 1, 0], [1, 1, 0, 0]], raw_pixel_50=[[1, 0, 0, 0], [1, 0, 0, 1]]),
    ]
    found = comparisons(seeds)["linear_accuracy@50 - raw_pixel_accuracy@50"]
    ours = np.array([[1, 0.5, 0, 0], [1, 1, 0.5, 0]])
    theirs = np.array([[0.5, 0.5, 0, 0], [1, 0, 0, 0.5]])
    assert found == vars(paired_difference(ours, theirs))
    assert found["points"] == pytest.approx(100 * (ours - theirs).mean())


def test_means_are_over_draws_and_then_over_seeds():
    found = numbers([evaluation(0, linear_50=[[1, 0]]), evaluation(1, linear_50=[[1, 1], [1, 0]])])
    assert found["linear_accuracy@50"]["values"] == [50.0, 75.0]
    assert found["linear_accuracy@50"]["mean"] == 62.5


def test_without_a_network_from_scratch_the_augmented_one_is_named():
    assert better_from_scratch({}, 10) == "supervised"
