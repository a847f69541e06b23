"""The answer of 04_methods: which method, with which encoder, on these images, in words."""

import re

import numpy as np
import pytest

from contrastive import Settings
from contrastive.report.method_answer import method_answer, method_facts, method_numbers
from contrastive.sweeps.standings import Standings

from .made_up import judged
from .made_up_methods import ALONE, FEW, MANY, standings

A, B, C, D = (("simclr", "cnn"), ("byol", "cnn"), ("dino", "cnn"), ("swav", "cnn"))
NINE = ("simclr", "byol", "dino", "swav", "mocov2", "mocov3", "simsiam", "vicreg", "barlow_twins")
NUMBER = r"\d+\.\d % accuracy \(95 %: \d+\.\d to \d+\.\d\)"


def said(s):
    verdict, _, more = method_answer(s).partition("\n")
    return verdict, more


def test_one_that_beats_all_others_is_advised():
    verdict, more = said(standings({A: 0.60, B: 0.85, C: 0.55}, seconds={B: 600}))
    best = "each of the 2 others gets less, by more than noise"
    assert re.fullmatch(rf"Take BYOL: with 100 labels, it gets {NUMBER}, and {best}\.", verdict)
    assert re.match(r"That is \d+\.\d points more than an untrained network \(95 %: [\d.]+ to [\d.]+\), \d+\.\d points "
                    r"more than labels alone \(95 %: [\d.]+ to [\d.]+\)\. ", more)  # fmt: skip
    assert re.search(rf"With 1,000 labels it is best again: \d+\.\d %, and {best}\.", more)
    assert "BYOL trained for 10 min a run. " in more
    assert more.endswith("The best of 3 is best partly by luck, so its number is a little too good.")


def test_of_several_that_are_as_good_the_cheaper_one_is_named():
    verdict, more = said(standings({A: 0.801, B: 0.80, C: 0.30}, seconds={A: 600, B: 600, C: 5}))
    first = re.fullmatch(
        rf"(\w+) is first, but not alone: with 100 labels, it gets {NUMBER}; 1 of the 2 others is within noise of "
        r"that: (\w+)\.", verdict,
    )  # fmt: skip
    assert set(first.groups()) == {"SimCLR", "BYOL"}
    assert f"{first[1]} trained for 10 min a run. " in more  # DINO is cheaper, but worse
    cheap = {"SimCLR": A, "BYOL": B}[first[2]]
    _, more = said(standings({A: 0.801, B: 0.80, C: 0.30}, seconds={A: 600, B: 600, C: 5} | {cheap: 60}))
    assert f"{first[1]} trained for 10 min a run; {first[2]}, within noise of it, for 60 s." in more


def test_where_all_are_as_good_none_stands_out():
    verdict, more = said(standings({A: 0.8, B: 0.8, C: 0.8}))
    assert re.fullmatch(
        rf"None stands out: with 100 labels, \w+, the best of 3, gets {NUMBER}, and each of the 2 others is within "
        r"noise of that\.", verdict,
    )  # fmt: skip
    assert re.search(r"With 1,000 labels .*: \d+\.\d %, and none is worse by more than noise\.", more)
    verdict, _ = said(standings({A: 0.8, B: 0.8}))
    assert verdict.endswith("and the other one is within noise of that.")


@pytest.mark.parametrize(
    ("alone", "over"),
    [({"random_encoder": 0.8}, "an untrained network"), ({"supervised": 0.8}, "labels alone"),
     ({"supervised_plain": 0.95}, "labels alone"),
     ({"random_encoder": 0.9, "supervised": 0.9}, "an untrained network")],
)  # fmt: skip
def test_where_training_gains_nothing_that_is_the_verdict(alone, over):
    verdict, more = said(standings({A: 0.8, B: 0.5}, alone=ALONE | alone))
    assert re.fullmatch(
        rf"No gain over {over}: with 100 labels, SimCLR, the best of 2, gets {NUMBER}, {over} \d+\.\d %\.", verdict
    )
    assert "trained for" not in more
    assert "luck" not in more


def test_what_needs_no_method_counts_with_whatever_encoder_it_is_best():
    poor, good = {"supervised": 0.1, "random_encoder": 0.1}, {"supervised": 0.9, "random_encoder": 0.4}
    s = standings({A: 0.5, ("simclr", "resnet9"): 0.8}, alone=poor)
    assert said(s)[0].startswith("Take SimCLR with resnet9: ")
    s.comparison.references["cnn"] = standings({A: 0.5}, alone=good).comparison.references["cnn"]
    verdict, more = said(Standings(s.comparison, s.judging, FEW))
    assert verdict.startswith("No gain over labels alone: ")
    assert re.search(r"SimCLR with resnet9, the best of 2, gets .*, labels alone with cnn 9\d\.\d %\.$", verdict)
    assert "points less than labels alone with cnn" in more


def test_one_method_alone_is_compared_with_what_needs_none():
    verdict, more = said(standings({A: 0.8}, seeds=1))
    assert re.fullmatch(rf"Yes, it helps: with 100 labels, SimCLR gets {NUMBER}\.", verdict)
    assert not re.search("best|others", more)
    verdict, _ = said(standings({A: 0.3}, seeds=1))
    assert re.fullmatch(rf"No gain over an untrained network: with 100 labels, SimCLR gets {NUMBER}, .*", verdict)


def test_a_difference_that_the_best_of_many_has_by_luck_is_called_so():
    shares = {(name, "cnn"): 0.45 for name in NINE}
    for seed in range(20):  # until the best one looks better than what it was picked against
        s = standings(shares, alone={"supervised": 0.36 + seed / 200, "random_encoder": 0.1})
        d = s.less(s.ranked(FEW)[0], "supervised", FEW)
        if d.low > 0 and not s.surely(d):
            break
    verdict, more = said(s)
    assert verdict.startswith("No gain over labels alone: ")
    assert re.search(r"more than labels alone \(95 %: [\d.]+ to [\d.]+, which the best of 9 may get by luck\)", more)


def test_imagenet_features_are_told_of_where_they_were_measured():
    _, more = said(standings({A: 0.7, ("simclr", "resnet9"): 0.6}, alone=ALONE | {"general": 0.9}))
    assert re.search(r", \d+\.\d points less than ImageNet features \(95 %: \d+\.\d to \d+\.\d\)", more)


def test_who_is_first_with_each_encoder_is_told():
    depends = {A: 0.8, B: 0.6, ("simclr", "resnet9"): 0.6, ("byol", "resnet9"): 0.8}
    more = said(standings(depends))[1]
    assert "Who is first depends on the encoder: SimCLR with cnn, BYOL with resnet9." in more
    assert "With every encoder SimCLR is first." in said(standings({**depends, ("simclr", "resnet9"): 0.9}))[1]


def test_what_has_read_labels_and_what_failed_is_told_apart():
    shares = {A: 0.9, B: 0.5, C: 0.6, D: 0.6, ("supcon", "cnn"): 0.99}
    verdict, more = said(standings(shares, seeds=4, collapsed={B: "spread 0.01"}, failed={A: {2: "no memory"}}))
    assert re.match("Take SimCLR: ", verdict)
    assert "SupCon has read the labels of all images, and so stands apart." in more
    assert more.endswith("Failed or collapsed, at least with one seed: SimCLR, BYOL.")
    many = standings({(name, "cnn"): 0.5 for name in NINE}, collapsed={(name, "cnn"): "x" for name in NINE[:6]})
    assert more.count("\n") == 0
    assert said(many)[1].endswith("SimCLR, BYOL, DINO, SwAV and 2 more.")


def test_where_few_labels_are_the_headlines_they_are_told_of_once(monkeypatch):
    s = standings({A: 0.8, B: 0.5})
    assert said(Standings(s.comparison, s.judging, MANY))[1].count("With 1,000 labels") == 0


def test_key_numbers_and_facts():
    s = standings({A: 0.8, B: 0.5, ("simclr", "resnet9"): 0.6}, alone=ALONE | {"general": 0.7})
    assert [what for _, _, what in method_numbers(s)] == [
        "SimCLR with cnn", "labels alone, cnn", "random weights, cnn", "ImageNet features",
    ]  # fmt: skip
    settings = Settings(preset="smoke", method_seeds=3)
    data, trained = method_facts(settings, s)
    assert data == "mine: 512 images without labels, judged on 400"
    assert trained == "2 methods, 2 encoders, 3 seeds, 4 epochs"
    object.__setattr__(s.entries[0], "settings", s.entries[0].settings.replace(epochs=9))
    assert method_facts(settings, s)[1].endswith(", 4 to 9 epochs")
    assert method_facts(settings.replace(minutes=2.5), s)[1].endswith(", 2.5 minutes each")


def test_two_classes_are_told_by_balanced_accuracy():
    labels = np.repeat([0, 1], [90, 30])
    s = standings({A: 0.9, B: 0.6}, labels=labels, judging=judged(labels, folds=5))
    assert re.match(r"Take SimCLR: with 100 labels, it gets \d+\.\d % balanced accuracy", said(s)[0])
