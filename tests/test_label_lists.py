"""Lists of images with pictures: each row is its image's, in words, as a table and as a picture."""

import csv
import io

import pytest
import torch

from contrastive.data.images import make_images
from contrastive.evaluation.label_errors import MOST, Suspect
from contrastive.evaluation.label_first import Choice
from contrastive.report.label_lists import (
    label_errors_sentence,
    label_next_sentence,
    show_label_errors,
    show_label_next,
)

CLASSES = ("a class with a long name", "-x", "z")


@pytest.fixture
def images():
    """Forty training and ten test images, each grey level its own."""
    levels = torch.arange(50).byte().view(50, 1, 1).expand(50, 8, 8).numpy().copy()
    labels = (torch.arange(50) % 3).numpy()
    made = make_images("made", (levels[:40], labels[:40], levels[40:], labels[40:]), classes=CLASSES)
    object.__setattr__(made, "train_names", tuple(f"=train {i}.png" for i in range(40)))
    object.__setattr__(made, "test_names", tuple(f"test {i}.png" for i in range(10)))
    return made


def rows(picture):
    return list(csv.DictReader(io.StringIO(picture.as_json()["csv"])))


def panels(picture):
    """Of each image that is drawn its title and its grey level."""
    axes = [a for a in picture.light.figure.axes if a.images]
    return [(a.get_title(), int(a.images[0].get_array().mean())) for a in axes]


def test_suspects_are_shown_with_their_names_classes_and_pictures(images):
    suspects = [
        Suspect(i, i % 3, (i + 1) % 3, 0.99 - 0.01 * k, 0.001, 9.0 - k) for k, i in enumerate((2, 0, *range(3, 12)))
    ]
    place_of = torch.arange(20) + 35  # some training images, then test images
    picture = show_label_errors(images, suspects, place_of)
    found = rows(picture)
    assert [row["image"] for row in found[:4]] == [
        "./=train 37.png",
        "./=train 35.png",
        "./=train 38.png",
        "./=train 39.png",
    ]
    assert found[4]["image"] == "test 0.png"
    shown = ["a class with a long name", "'-x", "z"]
    for row, suspect in zip(found, suspects, strict=True):
        assert (row["given"], row["predicted"]) == (shown[suspect.given], shown[suspect.predicted])
        assert float(row["certainty"]) == pytest.approx(suspect.confidence)
    assert [level for _, level in panels(picture)] == [int(place_of[s.index]) for s in suspects[:8]]  # one whole row
    assert [title for title, _ in panels(picture)][:2] == ["z\n→ a class wi…, 99 %", "a class wi…\n→ -x, 98 %"]
    assert show_label_errors(images, [], place_of) is None


def test_few_suspects_are_one_row(images):
    picture = show_label_errors(images, [Suspect(4, 0, 2, 0.9, 0.1, 2.0)] * 3, torch.arange(40))
    assert len(panels(picture)) == len(rows(picture)) == 3
    assert "3 of 3" in picture.alt


def test_images_to_label_next_are_shown_in_order(images):
    chosen = [Choice(i, 50 - i) for i in range(30, 0, -1)]
    picture = show_label_next(images, chosen)
    found = rows(picture)
    assert [row["image"] for row in found] == [f"./=train {choice.index}.png" for choice in chosen]
    assert [int(row["stands for"]) for row in found] == [choice.like for choice in chosen]
    assert {row["label"] for row in found} == {""}
    assert panels(picture) == [(str(k + 1), 30 - k) for k in range(24)]
    assert show_label_next(images, []) is None


def test_what_is_said(images):
    assert "take 12 images" in label_errors_sentence(12, 500)
    assert "Of 500 labels" in label_errors_sentence(12, 500)
    assert "take one image" in label_errors_sentence(1, 500)
    assert f"{MOST:,} labels, drawn at random from {MOST + 1:,}," in label_errors_sentence(3, MOST + 1)
    assert label_errors_sentence(0, 500).startswith("No label is suspected")
    assert "Every training image has a label" in label_next_sentence(images, 0)
    images.train_labels[5:] = -1
    assert label_next_sentence(images, 7).startswith("35 training images")
    assert "the 5 labels is unsure of the 7 below" in label_next_sentence(images, 7)
