"""What 01_pretrain says of a training, in the terms of its method."""

from types import SimpleNamespace

import pytest
import torch

from contrastive import Settings
from contrastive.methods import Logged, Method
from contrastive.report.pretraining import (
    conclusion,
    logged,
    neighbours_sentence,
    same_class_share,
    training_sentence,
)

SHARES = {"random encoder": 40.0, "pretrained encoder": 90.0}  # of neighbours
PAIRED = {"random encoder": [12.5], "pretrained encoder": [75.0]}  # of views
MNIST = SimpleNamespace(name="mnist")


class Own(Method):
    TITLE = "Ours"
    LOG = {"found": Logged("found", "% of anchors", lambda n: 1 / n), "spread": Logged("spread of the targets")}

    def __init__(self):
        torch.nn.Module.__init__(self)


class Silent(Own):
    TITLE, LOG, NEEDS_LABELS = "", {}, True


def run_of(*losses, **last):
    epochs = [{"epoch": i, "loss": loss, **last} for i, loss in enumerate(losses, 1)]
    settings = Settings(preset="smoke", batch_size=50)
    return SimpleNamespace(settings=settings, history=epochs, seconds=12.4, images_per_second=1234.5)


def test_a_training_is_told_by_all_that_its_method_logs():
    said = training_sentence(Own(), run_of(5.0, 3.25, found=0.5, spread=0.875, chance_loss=4.6))
    assert said == (
        "The loss went from 5.00 in the first epoch to **3.25**; chance is 4.60. In the last epoch, found: **50.0 % of "
        "anchors** (by chance: 2.0 % of anchors). In the last epoch, spread of the targets: **0.88**."
    )
    assert training_sentence(Silent(), run_of(5.0, 3.25)) == "The loss went from 5.00 in the first epoch to **3.25**."


def test_the_first_that_is_logged_is_drawn():
    assert logged(Own()) == ("found", Own.LOG["found"])
    assert logged(Silent()) is None


def test_neighbours_of_the_same_class_are_counted_without_the_image_itself():
    labels = torch.tensor([0, 0, 1, 1])
    assert same_class_share(labels, [[0, 1, 2], [2, 3, 0], [3, 1, 0]]) == pytest.approx(100 / 3)
    assert same_class_share(labels, [[0, 1], [1, 0]]) == 100


def test_the_conclusion_of_one_seed_has_no_spread_over_seeds():
    run = run_of(1.0, found=0.5, spread=0.5)
    answer, numbers, spread = conclusion(Own(), [run], MNIST, SHARES, PAIRED, 100)
    assert answer == (
        "Ours trained on 512 images of mnist for 4 epochs. Of a test image's seven nearest neighbours, 90.0 % now "
        "share its class; with random weights 40.0 % did. No label was used."
    )
    assert numbers[0] == ("50.0 %", "", "found, in the last epoch (% of anchors)")
    assert numbers[1] == ("90.0 %", "± 5.9", "neighbours of the same class, pretrained encoder")
    assert numbers[2] == ("40.0 %", "± 9.6", "neighbours of the same class, random encoder")
    assert numbers[3:] == [("12 s", "", "of training, at 1,234 images/s")]
    assert spread == "of neighbours, 95 % interval from 100 test images, one seed"


def test_the_conclusion_of_several_seeds_tells_their_spread():
    runs = [run_of(1.0, found=found, spread=0.5) for found in (0.5, 0.7)]
    _, numbers, spread = conclusion(Own(), runs, MNIST, SHARES, PAIRED, 100)
    assert numbers[0][:2] == ("60.0 %", "± 14.1")
    assert numbers[-1][2].startswith("of training a seed, at ")
    assert spread.endswith("; of training, over seeds")


def test_a_method_that_read_labels_says_so_and_one_without_a_log_has_no_number_for_it():
    answer, numbers, _ = conclusion(Silent(), [run_of(1.0)], MNIST, SHARES, PAIRED, 100)
    assert answer.startswith("simclr trained on")  # without a title by its name
    assert answer.endswith("It read the labels of these images.")
    assert [value for value, *_ in numbers] == ["90.0 %", "40.0 %", "12 s"]


@pytest.mark.parametrize("shares", [None, {}])
def test_without_labels_the_conclusion_is_about_pairs_of_views(shares):
    run = run_of(1.0, found=0.5, spread=0.5)
    answer, numbers, spread = conclusion(Own(), [run], MNIST, shares, PAIRED, 400)
    assert answer == (
        "Ours trained on 512 images of mnist for 4 epochs. Of two views of each of 400 images that it never saw, 75.0 "
        "% are nearest to their partner; with random weights 12.5 % were. No image has a label that can be used, so "
        "what a classifier would get from these features is not known: label the images that are listed below, and "
        "this report can tell."
    )
    assert numbers[1:3] == [
        ("75.0 %", "± 4.2", "held-out views that find their partner, pretrained encoder"),
        ("12.5 %", "± 3.2", "held-out views that find their partner, random encoder"),
    ]
    assert spread == "of views, 95 % interval from 400 test images, one seed"


def test_neighbours_are_counted_for_each_encoder_where_there_are_labels():
    assert neighbours_sentence(SHARES) == (
        "Over all of them, as many of the seven nearest share the image's class: random encoder **40.0 %**, pretrained "
        "encoder **90.0 %**."
    )
    for nothing in (None, {}):
        assert neighbours_sentence(nothing).startswith("No image has a label that could tell")
