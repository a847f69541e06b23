"""What settings become with these images: numbers that nobody asked for shrink once; asked ones are kept or refused."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from contrastive import Settings, UserError, pretrain, resolve
from contrastive.data import most_labels, n_unlabelled, split
from contrastive.settings import PRESETS
from contrastive.training import check_evaluation, check_report, check_validation

from .few_images import images_of, without_test

# --- What nobody asked for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_numbers_of_a_preset_shrink_to_what_there_is(preset):
    images = images_of()
    settings, found = resolve(Settings(preset=preset, dataset="mine"), images)
    # 60 images of two classes: a fifth of each class is kept for validation.
    assert settings.data.n_images == n_unlabelled(images, 0) == 48
    assert settings.optimiser.batch_size == 12  # so that an epoch has four steps
    assert settings.ablations.ablation_labels == 48
    assert settings.evaluation.budgets[-1] == 60
    assert min(settings.evaluation.budgets) >= 2
    check_evaluation(settings, images)
    check_validation(settings, images)
    assert found.note.startswith("There are few images, so some numbers of the preset are others: ")
    assert "batch_size=12, " in found.note
    assert "ablation_labels=48" in found.note
    assert ("n_images=48" in found.note) == (preset == "smoke")  # the others say no number
    assert "view_size" not in found.note


@pytest.mark.parametrize("preset", PRESETS)
def test_they_shrink_once(preset):
    images = images_of()
    settings, found = resolve(Settings(preset=preset, dataset="/mine"), images)
    again, noted = resolve(settings, found)
    assert (again, noted.note) == (settings, found.note)
    assert again.run_name == settings.run_name
    assert resolve(settings, images)[1].note == ""  # nothing is smaller than what was found before
    unpickled = pickle.loads(pickle.dumps(settings))
    assert resolve(unpickled, images)[0] == settings


@pytest.mark.parametrize(("preset", "epochs"), [("smoke", 4), ("quick", 75), ("digits", 150), ("full", 500)])
def test_few_images_are_seen_more_often_unless_asked_for(preset, epochs):
    # Four steps an epoch: 300 steps at least, but no more than the preset itself takes, which is 16 for smoke.
    settings, found = resolve(Settings(preset=preset, dataset="mine"), images_of())
    assert settings.optimiser.epochs == epochs
    assert (f"epochs={epochs}" in found.note) == (preset == "quick")
    again, _ = resolve(settings, found)
    assert again.optimiser.epochs == epochs
    assert resolve(Settings(preset=preset, dataset="mine", epochs=2), images_of())[0].optimiser.epochs == 2


def test_many_images_leave_a_preset_as_it_is():
    settings, images = resolve(Settings(preset="smoke"))
    values = settings.flat()
    for name in ("n_images", "batch_size", "budgets", "ablation_labels", "view_size"):
        assert values[name] == Settings(preset="smoke").flat()[name]
    assert images.note == ""


@pytest.mark.parametrize(("side", "view"), [(28, 24), (16, None), (20, None), (64, None), (24, 24)])
def test_the_view_size_of_digits_is_left_out_where_the_encoder_cannot_take_it(side, view):
    images = images_of(4000, side)
    settings, found = resolve(Settings(preset="digits"), images)
    assert settings.views.view_size == view
    said = f"The preset's view_size=24 does not suit images of {side}x{side}: views are as large."
    assert (said in found.note) == (view is None)
    assert "some numbers of the preset are others: view_size" not in found.note  # larger ones are not smaller
    if view is None:
        with pytest.raises(UserError, match=r"^parameter view_size=24: ") as caught:
            resolve(Settings(preset="digits", view_size=24), images)
        assert "\n" not in str(caught.value)


def test_digits_have_smaller_views_in_preset_quick_unless_asked_otherwise():
    digits, others = dataclasses.replace(images_of(4000, 28), handwriting=True), images_of(4000, 28)
    assert resolve(Settings(), digits)[0].views.view_size == 24
    assert resolve(Settings(), others)[0].views.view_size is None
    assert resolve(Settings(preset="full"), digits)[0].views.view_size is None
    asked, _ = resolve(Settings(view_size=28), digits)
    assert asked.views.view_size is None
    assert resolve(asked, digits)[0].views.view_size is None  # also when it is resolved again, as for a run
    assert asked.run_name == resolve(Settings(), others)[0].replace(augment=asked.views.augment).run_name


def test_where_labels_are_cross_validated_the_largest_budget_is_all_of_them():
    many = images_of(30_000, 28)
    unjudged = dataclasses.replace(many, test_labels=torch.full_like(many.test_labels, -1))
    budgets = resolve(Settings(), unjudged)[0].evaluation.budgets
    assert budgets[-1] == most_labels(unjudged, range(1))
    assert resolve(Settings(), many)[0].evaluation.budgets[-1] < 30_000


def test_budgets_of_a_preset_are_kept_as_far_as_there_are_labels():
    assert resolve(Settings(preset="smoke"), images_of(300))[0].evaluation.budgets == (100,)
    assert resolve(Settings(preset="smoke"), images_of(700))[0].evaluation.budgets == (100, 600)
    # and where none is left, they go by the data: 2, 5, 10 and 20 of 2 classes, half, and all
    assert resolve(Settings(preset="smoke"), images_of(60))[0].evaluation.budgets == (4, 10, 20, 30, 40, 60)
    # fewer labels than classes are no budget
    assert resolve(Settings(preset="smoke"), images_of(1200, n_classes=120))[0].evaluation.budgets == (600,)


def test_without_labels_numbers_of_labels_stay_and_nothing_is_said_of_them():
    settings, found = resolve(Settings(preset="smoke"), images_of(labelled=0))
    before = Settings(preset="smoke")
    assert settings.evaluation == before.evaluation
    assert settings.ablations == before.ablations
    assert "n_images=48" in found.note
    assert "budgets" not in found.note
    assert "ablation_labels" not in found.note


def test_labels_of_ablations_are_those_that_the_source_leaves_beside_validation():
    # Half of the images are set aside, far more than the fifth that is taken where nothing is.
    images = images_of(200, validation=range(100))
    settings, _ = resolve(Settings(preset="smoke"), images)
    assert settings.ablations.ablation_labels == len(split(images, 10, 0).rest) == 100
    check_evaluation(settings, images)
    check_validation(settings, images)


def test_with_groups_all_seeds_have_the_same_numbers():
    # Groups of very different sizes: how many images are kept for validation depends on the seed.
    groups = np.repeat(np.arange(8), [2, 4, 8, 16, 20, 30, 50, 70])
    images = images_of(200, groups=groups)
    seeds = range(5)
    pools = [n_unlabelled(images, seed) for seed in seeds]
    assert len(set(pools)) > 1
    settings, _ = resolve(Settings(preset="quick", n_seeds=5), images)
    assert settings.data.n_images == min(pools)
    assert settings.ablations.ablation_labels == min(len(split(images, 0, seed).rest) for seed in seeds)
    for seed in seeds:
        again, _ = resolve(settings.replace(seed=seed), images)
        assert (again.data.n_images, again.optimiser.batch_size) == (min(pools), settings.optimiser.batch_size)
    with pytest.raises(UserError, match=f"Ask for at most {min(pools)}"):  # at once, not with the seed that has fewest
        resolve(Settings(preset="quick", n_seeds=5, n_images=max(pools)), images)


# --- What was asked for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n_images": 49}, "parameter n_images=49: mine has 48 training images beside the 12 kept for validation."),
        ({"batch_size": 49}, "parameter batch_size=49: there are only 48 unlabelled images (n_images)."),
        ({"n_images": 20, "batch_size": 21}, "parameter batch_size=21: there are only 20 unlabelled images"),
        ({"n_images": 512}, "parameter n_images=512"),  # although the preset has the same
        ({"batch_size": 128}, "parameter batch_size=128"),
        ({"view_size": 12}, "parameter view_size=12: encoder cnn needs at least 16 pixels."),
    ],
)
def test_what_was_asked_for_and_cannot_be_is_refused(given, said):
    with pytest.raises(UserError) as caught:
        resolve(Settings(preset="smoke", **given), images_of())
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budgets": (20, 61)}, "parameter budgets=61: mine has 60 training labels. Ask for at most 60."),
        ({"budgets": (100, 600)}, "parameter budgets=600: mine has 60 training labels. Ask for at most 60."),
        (
            {"ablation_labels": 49},
            "parameter ablation_labels=49: mine has 48 training labels beside those of its validation images. Ask for "
            "at most 48.",
        ),
    ],
)
def test_labels_that_were_asked_for_and_are_not_there_stop_the_evaluation_and_not_the_training(given, said):
    images = images_of()
    settings, _ = resolve(Settings(preset="smoke", **given), images)
    assert {name: settings.flat()[name] for name in given} == given
    with pytest.raises(UserError) as caught:
        (check_evaluation if "budgets" in given else check_validation)(settings, images)
    assert str(caught.value) == said
    (check_validation if "budgets" in given else check_evaluation)(settings, images)


def test_what_was_asked_for_and_can_be_is_kept():
    given = {"n_images": 47, "batch_size": 47, "epochs": 3, "budgets": (2, 60), "ablation_labels": 48, "view_size": 24}
    settings, found = resolve(Settings(preset="smoke", **given), images_of())
    assert {name: settings.flat()[name] for name in given} == given
    assert found.note == ""
    check_evaluation(settings, images_of())
    check_validation(settings, images_of())


@pytest.mark.parametrize(
    ("given", "n_train", "epochs"),
    [
        ({"preset": "quick", "batch_size": 48}, 60, 300),  # one step an epoch, 300 in all
        ({"preset": "quick", "n_images": 20}, 60, 75),
        ({"preset": "smoke", "n_images": 40, "batch_size": 40}, 60, 16),  # as many steps as it has of 512 images
        ({"preset": "quick"}, 6400, 15),
    ],
)
def test_epochs_follow_the_steps_that_they_have(given, n_train, epochs):
    assert resolve(Settings(**given), images_of(n_train))[0].optimiser.epochs == epochs


def test_a_method_that_reads_labels_needs_all_of_them():
    resolve(Settings(preset="smoke", method="supervised"), images_of())
    for labelled in (59, 30, 0):
        with pytest.raises(UserError) as caught:
            resolve(Settings(preset="smoke", method="supervised"), images_of(labelled=labelled))
        assert str(caught.value) == (
            f"method=supervised learns from labels, and {60 - labelled} of 60 images of mine to train on have none. "
            "Choose another method."
        )


def test_fewer_images_that_were_asked_for_shrink_the_batch_that_was_not():
    settings, found = resolve(Settings(preset="smoke", n_images=20), images_of())
    assert settings.optimiser.batch_size == 5
    assert found.note.endswith("are others: batch_size=5, budgets=4,10,20,30,40,60, ablation_labels=48.")


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (images_of(labelled=0), "No image of mine has a label that can be used."),
        (without_test(labelled=7), "mine has 7 images with a label, too few to cross-validate a classifier on: at"),
        (dataclasses.replace(images_of(), test=images_of().test[:7]), "mine has 7 test images with a label: at least"),
    ],
)
def test_images_that_cannot_be_evaluated_can_be_pretrained_on(images, why):
    settings, _ = resolve(Settings(preset="smoke"), images)
    assert settings.data.n_images >= 48
    with pytest.raises(UserError) as caught:
        check_evaluation(settings, images)
    assert str(caught.value).startswith(why)
    assert str(caught.value).endswith("Pretraining (01_pretrain) needs no label.")
    with pytest.raises(UserError) as validation:  # which needs no less
        check_validation(settings, images)
    assert str(validation.value) == str(caught.value)


def test_a_run_is_trained_on_images_without_labels(fresh_runs):
    tiny = dict(epochs=1, base_channels=1, batch_size=16, projection_dim=2, warmup_epochs=0, budgets=(100_000,))
    run = pretrain(Settings(**tiny), progress=False, images=images_of(labelled=0))
    assert run.settings.data.n_images == 48
    assert (run.folder / "encoder.safetensors").is_file()


# --- Who asked ---------------------------------------------------------------------------------------------------


def test_what_was_asked_for_is_remembered():
    settings = Settings(preset="smoke", seed=3)
    assert settings.asked == {"preset", "seed"}
    assert settings.replace(epochs=2).asked == {"preset", "seed", "epochs"}
    assert settings.replace(method="byol").asked == {"preset", "seed", "method"}
    assert pickle.loads(pickle.dumps(settings)).asked == {"preset", "seed"}
    assert settings.found("0" * 64, n_images=7, epochs=2).asked == {"preset", "seed"}
    assert settings.found("0" * 64, n_images=7).data_sha256 == "0" * 64
    assert settings.asking(["epochs"]).asked == {"epochs"}
    assert resolve(settings, images_of())[0].asked == {"preset", "seed"}


def test_who_asked_changes_neither_equality_nor_hash_nor_name():
    plain, _ = resolve(Settings(preset="smoke"), images_of())
    asked = plain.asking(plain.flat())
    assert asked.asked != plain.asked
    assert asked == plain
    assert hash(asked) == hash(plain)
    assert len({asked, plain}) == 1
    assert (asked.run_name, asked.identity, asked.as_json()) == (plain.run_name, plain.identity, plain.as_json())
    assert Settings(preset="smoke", batch_size=128) == Settings(preset="smoke")
    assert plain != plain.replace(epochs=3)
    assert plain != plain.model_copy(update={"data_sha256": "0" * 64})


def test_asked_is_no_parameter():
    with pytest.raises(UserError, match="unknown parameter 'asked'"):
        Settings(asked={"seed"})
    assert "asked" not in Settings().flat()


@pytest.mark.parametrize(
    ("given", "images", "said"),
    [
        ({}, dataclasses.replace(images_of(), test=images_of().test[:7]), "mine has 7 test images: a report needs"),
        ({}, dataclasses.replace(without_test(7), train_labels=torch.arange(7) % 2), "mine has 7 images: a report"),
        ({"n_images": 7}, images_of(), "a report needs at least 8 images to pretrain on; n_images is 7."),
    ],
)
def test_a_report_needs_some_images_to_show(given, images, said):
    settings, _ = resolve(Settings(preset="smoke", **given), images)
    with pytest.raises(UserError) as caught:
        check_report(settings, images)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    for enough in (images_of(), without_test()):  # which shows training images
        check_report(*resolve(Settings(preset="smoke", n_images=8), enough))


def test_a_method_that_reads_labels_is_not_cross_validated():
    settings, images = resolve(Settings(preset="smoke", method="supervised"), without_test())
    with pytest.raises(UserError, match=r"^method=supervised .* mine has no test split .* another method"):
        check_evaluation(settings, images)
    check_evaluation(*resolve(Settings(preset="smoke", method="supervised"), images_of()))


@pytest.mark.parametrize("change", [{"image_size": 16}, {"split_seed": 3}, {"group": "x"}, {"dataset": "other"}])
def test_other_images_are_not_known_before_they_are_seen(change):
    settings, _ = resolve(Settings(preset="smoke", dataset="mine"), images_of())
    assert settings.replace(**change).data_sha256 == ""
    assert settings.replace(seed=3, n_images=20).data_sha256 == settings.data_sha256
