"""The answer of a report in plain words, for evaluations that are made up: which way, how sure, what to do next."""

import re

import numpy as np
import pytest

from contrastive import Settings
from contrastive.evaluation.alike import APART
from contrastive.report import advice, ways

from .made_up import findings, some_right

N = 400
LABELS = np.arange(N) % 4  # guessing gets 25 %
SETTINGS = Settings(preset="smoke", epochs=200)


def told(shares, n=N, labels=None, epochs=200, read_labels=False, headline=100, before=None, **options):
    """The answer where each way got that share of n images right with the headline's labels; those of equal seeds
    (share, seed) are of the same images. Arms in `before` had a quarter of the labels, too."""
    own = np.arange(n) % 4 if labels is None else labels
    right = {}
    for arm, given in shares.items():
        share, seed = given if isinstance(given, tuple) else (given, 0)
        right[arm] = {headline: some_right(n, share, seed)}
        if before and arm in before:
            right[arm][headline // 4] = some_right(n, before[arm], seed)
    found = findings(right, own, headline, **options)
    said = advice.answer(found, SETTINGS.replace(epochs=epochs), read_labels)
    checked(said)
    return said, found


def sentences(text):
    """The sentences of a text; a colon or a number's point ends none."""
    return re.findall(r".+?[.!?](?= [A-Z]|$)", text)


def checked(said):
    """What holds for every answer: a line with the verdict, and five sentences at most in all."""
    verdict, more = said.split("\n")
    assert sentences(verdict)
    assert sentences(more)
    assert len(sentences(verdict)) + len(sentences(more)) <= 5, said
    assert more.endswith(".")
    for text in ("nan", "inf", "None", "  ", "..", " ."):
        assert text not in said.replace("information", ""), said


# --- Verdicts -----------------------------------------------------------------------------------------------------


def test_imagenet_features_that_are_best_for_sure_are_advised():
    said, _ = told({"general": 0.9, "linear": 0.7, "supervised": 0.5})
    verdict, more = said.split("\n")
    assert verdict.startswith("Take ImageNet features: with 100 labels they give 90.0 % accuracy (95 %: ")
    assert "noise" not in said
    assert more.startswith("Training on the labels alone gives 40.0 points less (95 %: ")
    assert re.search(r", your own pretraining gives 20\.0 points less \(95 %: [\d.]+ to [\d.]+\)\.", more)
    assert more.endswith("Next: use them as they are.")


def test_own_pretraining_that_is_best_for_sure_is_advised():
    said, _ = told({"general": 0.7, "linear": 0.9, "supervised": 0.5, "finetuned": 0.8, "general_own": 0.75})
    assert said.startswith("Yes: pretrain on your own images: with 100 labels that gives 90.0 % accuracy")
    assert "ImageNet features give 20.0 points less (95 %: " in said
    assert "noise" not in said
    for other in ("fine-tuned", "joined"):  # which nobody asked for
        assert other not in said


@pytest.mark.parametrize(
    ("best", "verdict"),
    [
        ("finetuned", "Yes: pretrain on your own images, then fine-tune: "),
        ("general_own", "Take ImageNet features and pretrain on your own images: "),
        ("general_finetuned", "Take a network pretrained on ImageNet and fine-tune it: "),
        ("supervised", "No: train on the labels alone: "),
        ("supervised_plain", "No: train on the labels alone: "),
    ],
)
def test_every_way_can_be_the_best(best, verdict):
    shares = {"general": 0.6, "linear": 0.62, "supervised": 0.5, "finetuned": 0.55, "general_own": 0.6}
    said, found = told({**shares, best: 0.9})
    assert said.startswith(verdict)
    assert said.startswith(f"{verdict}with 100 labels that gives 90.0 % accuracy")
    assert ways.best_way(found).arm == best


def test_of_ways_that_are_alike_the_one_with_less_to_do_is_advised():
    said, found = told({"general": (0.80, 1), "linear": (0.81, 2), "supervised": 0.4})
    assert said.startswith("Take ImageNet features: with 100 labels they give 80.0 % accuracy")
    assert said.split("\n")[0].endswith(", and no other way is better by more than noise.")
    assert re.search(r"your own pretraining gives 1\.0 points more \(95 %: -[\d.]+ to [\d.]+, within noise\)", said)
    assert ways.best_way(found).name == "linear"
    assert ways.advised(found).name == "general"


def test_labels_alone_are_advised_where_nothing_beats_them():
    said, _ = told({"general": (0.80, 1), "linear": (0.81, 2), "supervised": (0.79, 3)})
    assert said.startswith(
        "No: nothing beats training on the labels alone by more than noise: with 100 labels that gives 79.0 % accuracy "
    )


def test_a_best_way_that_is_little_better_than_one_with_more_to_do_is_named_as_such():
    said, _ = told({"general": (0.82, 1), "linear": (0.80, 2), "supervised": 0.4})
    assert said.startswith("Take ImageNet features: with 100 labels they give 82.0 % accuracy")
    assert said.split("\n")[0].endswith(", and no other way is better by more than noise.")


def test_few_images_cannot_tell_which_way_is_best():
    said, _ = told({"general": (0.70, 1), "linear": (0.75, 2), "supervised": (0.65, 3)}, n=48)
    assert said.startswith("Too few labels to tell which way is best: with 100 labels, training on the labels alone gi")
    assert "and no other way is better by more than noise." in said.split("\n")[0]
    assert "Next: label more images: four times as many halve the uncertainty" in said
    # With a test split the interval is of its images, however many labels there are
    shares = {"general": (0.70, 1), "linear": (0.75, 2), "supervised": (0.65, 3)}
    said, _ = told(shares, n=48, folds=0)
    assert said.startswith("Too few test images to tell which way is best: with 100 labels")
    assert "Next: label more test images: four times as many" in said
    # also where the best way is the one with least to do
    said, _ = told({"linear": (1.0, 1), "supervised": (1.0, 2)}, n=8, folds=0)
    assert said.startswith("Too few test images to tell which way is best: with 100 labels, training on the labels al")
    assert "saves no labels" not in said


# --- Where nothing is to be told ----------------------------------------------------------------------------------


def test_labels_that_cannot_be_told_from_the_images_are_named():
    said, _ = told({"general": (0.26, 1), "linear": (0.25, 2), "supervised": (0.24, 3)}, n=1000)
    assert said.startswith(
        "No: these labels cannot be told from the images.\nWith 100 labels the best way, ImageNet features, gets 26.0 %"
    )
    assert "always guessing the most frequent class gets 25.0 %. So nothing can be said of labels saved." in said
    assert said.endswith("if so, label more images.")


def test_where_little_is_known_that_is_not_said():
    groups = np.arange(40) // 2
    for given, what in ((None, "images"), (groups, "groups")):
        said, _ = told({"linear": (0.35, 2), "supervised": (0.25, 3)}, n=40, groups=given)
        few = "labelled groups" if given is not None else "labels"
        assert said.startswith(f"Too few {few} to tell whether anything is better than guessing.\nWith 100 labels")
        assert said.endswith(f"So nothing can be said of labels saved. Next: label more {what}.")


def test_near_duplicates_that_may_explain_it_all_come_first():
    said, _ = told({"linear": 0.9, "supervised": 0.6, APART: (0.26, 2)})
    assert said.startswith(
        "Nothing can be said yet: near-duplicates in several folds may explain what was measured.\nWith 100 labels the "
        "best way, your own pretraining, gets 90.0 % accuracy (95 %: "
    )
    assert "held out together, the linear probe gets 26.0 % accuracy (95 %: " in said
    assert said.endswith("Next: say which images belong together, such as those of one patient, by `group`.")
    said, _ = told({"linear": 0.9, "supervised": 0.6, APART: (0.5, 2)})
    assert said.startswith("Yes: pretrain on your own images: ")
    assert "near-duplicates" not in said


def test_near_duplicates_are_not_blamed_for_what_noise_or_another_network_explains():
    # What is left is little, but so was what there was: the two differ by noise
    said, found = told({"linear": (0.33, 1), "supervised": (0.30, 3), APART: (0.28, 2)}, n=400)
    assert found.percent("linear")["low"] > 25 >= found.percent(APART)["low"]
    assert "near-duplicates" not in said
    # It was not asked of other features, which are far better
    said, _ = told({"linear": 0.5, "general": 0.9, "supervised": 0.3, APART: (0.26, 2)})
    assert said.startswith("Take ImageNet features: ")


def test_a_way_that_another_one_surely_beats_is_not_advised():
    # Fine-tuning has the best mean, but differs from labels alone image by image; the probe is right wherever these are
    said, found = told({"supervised": 0.70, "linear": 0.74, "finetuned": (0.745, 5)}, n=400)
    assert ways.best_way(found).name == "finetuned"
    assert not ways.surely(found.difference("finetuned", "supervised"))
    assert ways.surely(found.difference("linear", "supervised"))
    assert ways.advised(found).name == "linear"
    assert said.startswith("Yes: pretrain on your own images: with 100 labels that gives 74.0 %")


def test_an_encoder_that_was_trained_on_labels_saves_none():
    start = "This encoder was trained on labels, so nothing here is a saving of labels. "
    for shares, then in (
        ({"linear": 0.9, "supervised": 0.6}, "Take the encoder that was trained on labels: with 100 labels that gives"),
        ({"linear": 0.25, "supervised": 0.24}, "No: these labels cannot"),
        ({"linear": 0.9, "supervised": 0.6, APART: 0.2}, "Nothing can be said yet"),
    ):
        said, _ = told(shares, n=1000, read_labels=True)
        assert said.startswith(start + then)
        assert "would need" not in said
        assert "pretrain longer" not in told(shares, n=1000, read_labels=True, epochs=15)[0]


# --- Labels saved, costs, what to do next ---------------------------------------------------------------------------


def test_labels_saved_are_interpolated_or_more_than_there_are():
    scratch = {"supervised": 0.3}  # with a quarter of the labels, and 60 % with all
    said, found = told({"linear": 0.45, "supervised": 0.60, "general": 0.9}, before=scratch)
    assert found.saved["general"]["100"]["needed"] is None
    assert "Labels alone would need more than the 100 that were tried for that." in said
    options = {"few": 25, "before": {**scratch, "general": 0.45}}
    said, _ = told({"linear": 0.45, "supervised": 0.60, "general": 0.9}, **options)
    assert (
        "Labels alone would need more than the 100 that were tried for that; for what it gets with 25, they need about "
        "50 (95 %: "
    ) in said


def test_that_pretraining_saves_no_label_is_said():
    said, _ = told({"linear": 0.6, "supervised": 0.9}, before={"supervised": 0.7})
    assert said.startswith("No: train on the labels alone: ")
    assert "So pretraining saves no labels with 100." in said
    alike = told({"linear": (0.905, 1), "supervised": (0.9, 2)}, before={"supervised": 0.7})[0]
    assert alike.startswith("No: nothing beats")
    assert "saves no labels" not in alike


def test_where_labels_alone_are_best_it_is_said_whether_that_is_so_with_fewer_of_them_too():
    arms = {"linear": 0.6, "general": 0.7, "supervised": 0.9}
    said, _ = told(arms, before={"linear": 0.5, "general": 0.65, "supervised": 0.3})
    assert re.search(
        r"So pretraining saves no labels with 100; with 25, though, ImageNet features give 35\.0 points more than they "
        r"alone \(95 %: [\d.]+ to [\d.]+\)\.",
        said,
    )
    for before in ({"general": 0.65, "supervised": 0.64}, {"supervised": 0.3}):  # within noise; nothing to compare with
        assert "though" not in told(arms, before=before)[0]
    # Fine-tuning saves some, though the linear probe does not
    before = {"linear": 0.4, "finetuned": 0.9, "supervised": 0.5}
    tuned, _ = told({"linear": 0.6, "finetuned": (0.92, 5), "supervised": 0.9}, before=before)
    assert "saves no labels" not in tuned
    assert "With 25 labels, though, fine-tuning after your own pretraining gives 4" in tuned


def test_costs_are_told_unless_they_were_paid_before():
    shares = {"linear": 0.9, "supervised": 0.6, "general": 0.8}
    said, _ = told(
        shares, costs={"general": 30.4, "supervised": 130.0, "supervised_plain": 110.0}, pretraining_seconds=99.0
    )
    assert "Computing took: ImageNet features 30 s, pretraining 99 s, networks from labels alone 4 min." in said
    said, _ = told(shares, costs={"general": 0.2, "supervised": 0.1}, pretraining_seconds=240.0)
    assert "Computing took: pretraining 4 min." in said
    assert "Computing" not in told(shares)[0]
    assert [advice.seconds(n) for n in (0.4, 99.4, 100, 3600)] == ["0 s", "99 s", "2 min", "60 min"]


def test_more_labels_are_advised_with_what_each_doubling_gained():
    shares = {"linear": 0.9, "supervised": 0.4}
    said, _ = told(shares, before={"linear": 0.8})
    assert said.endswith("Next: label more: from 25 to 100 labels, each doubling gained 5.0 points.")
    said, _ = told(shares, before={"linear": 0.87})  # 1.5 points
    assert said.endswith("Next: nothing, as far as these ways go.")


def test_longer_pretraining_is_advised_where_it_was_short_and_comes_near():
    said, far = told({"linear": 0.9, "supervised": 0.4}, epochs=15)[0], {"linear": 0.6, "supervised": 0.9}
    assert said.endswith("Next: pretrain longer (-p epochs=60): it was 15 epochs only.")
    assert told(far, epochs=3)[0].endswith("Next: pretrain longer (-p epochs=12): it was 3 epochs only.")
    for shares in (far, {"linear": (0.9, 1), "general": (0.9, 2), "supervised": 0.4}):
        assert "pretrain longer" not in told(shares, epochs=15)[0]  # far from the best; others are good enough
    assert "pretrain longer" in told({"linear": 0.88, "supervised": 0.9}, epochs=15)[0]


def test_groups_are_asked_for_where_images_are_near_copies(monkeypatch):
    shares = {"linear": 0.9, "supervised": 0.4}
    monkeypatch.setattr(advice, "n_alike", lambda judging: 30)
    said, _ = told(shares, before={"linear": 0.5})
    assert "Next: say which images belong together (`group`), since many are near copies; or label more: from" in said


def test_uncertain_results_ask_for_more_groups_or_images():
    for groups, what in ((None, "images"), (np.arange(48) // 2, "groups")):
        said, _ = told({"linear": 0.9, "supervised": 0.2}, n=48, groups=groups)
        half = re.search(r"\(95 %: ([\d.]+) to ([\d.]+)\)", said)
        wide = float(half[2]) - float(half[1]) > 2 * ways.WIDE
        assert wide == (f"label more {what}: four times as many halve the uncertainty" in said)
    assert wide  # of 24 groups


# --- By which metric, and its numbers --------------------------------------------------------------------------------


def test_two_classes_are_told_of_by_balanced_accuracy():
    labels = np.repeat([0, 1], [300, 100])
    said, found = told({"linear": 0.9, "supervised": 0.6}, labels=labels)
    expected = f"{found.percent('linear')['mean']:.1f} % balanced accuracy (95 %: "
    assert expected in said
    tiles = advice.key_numbers(found)
    assert tiles[-1] == ("50.0 %", "", "balanced accuracy by guessing")
    for arm, (_, _, what) in zip(("supervised", "linear"), tiles, strict=False):
        scores = found.evaluations[0].values[f"{arm}_macro_auc@100"].mean()
        assert what.endswith(f"; AUC {100 * scores:.1f} %")
    assert advice.spread(found) == (
        "balanced accuracy with 100 labels (of 400, one part in 5 is held out at a time); 95 % interval from 400 "
        "cross-validated images, one seed"
    )


def test_key_numbers_are_the_ways_that_people_ask_for_with_their_intervals():
    _, found = told({"general": 0.8, "linear": 0.9, "supervised": 0.5, "supervised_plain": 0.6, "finetuned": 0.95})
    tiles = advice.key_numbers(found)
    # And, last before guessing, the one that is advised
    assert [value for value, *_ in tiles] == ["60.0 %", "80.0 %", "90.0 %", "95.0 %", "25.0 %"]
    for arm, (_, shown, _) in zip(("supervised_plain", "general", "linear", "finetuned"), tiles, strict=False):
        assert shown == f"{found.percent(arm)['low']:.1f} to {found.percent(arm)['high']:.1f}"
    assert len({what for *_, what in tiles}) == 5
    fewer = advice.key_numbers(told({"general": 0.9, "linear": 0.8, "supervised": 0.5, "finetuned": 0.7})[1])
    assert [value for value, *_ in fewer] == ["50.0 %", "90.0 %", "80.0 %", "25.0 %"]
    assert not any("AUC" in what for *_, what in tiles)  # of even classes it would say much the same


def test_what_intervals_are_of_is_said():
    shares = {"linear": 0.9, "supervised": 0.6}
    _, found = told(shares, folds=0, n_seeds=3)
    assert advice.spread(found) == "accuracy with 100 labels; 95 % interval from 400 test images, 3 seeds"
    _, found = told(shares, groups=np.arange(N) // 4)
    assert advice.spread(found).endswith("from 400 cross-validated images, whole groups, one seed")
