"""What pages say of the data: counts, what was left out, copies, and a table of images to label, to be filled in."""

import csv
import dataclasses
import io
import json
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive import load_images
from contrastive.data import Account, Copy
from contrastive.data.images import inert
from contrastive.evaluation.label_first import Choice
from contrastive.report import data_section
from contrastive.report.data_section import (
    account,
    copies_sentence,
    file_name,
    inert_path,
    label_first_sentence,
    show_copies,
    show_label_first,
)

from .few_images import images_of

ROWS = (
    ("train", "cat", 1200),
    ("train", "dog", 7),
    ("train", "", 30),
    ("val", "cat", 3),
    ("test", "cat", 4),
    ("test", "dog", 5),
)
HOSTILE = "<script>alert(1)</script>|**b** `$x_1$` [a](javascript:b)"


def with_account(**parts):
    return dataclasses.replace(images_of(), account=Account(**parts))


def rows_of(picture):
    return list(csv.DictReader(io.StringIO(picture.as_json()["csv"])))


# --- Account -----------------------------------------------------------------------------------------------------


def test_images_are_counted_by_class_and_split():
    assert account(with_account(rows=ROWS)).splitlines() == [
        "| class | training images | validation images | test images |",
        "|:--|--:|--:|--:|",
        "| cat | 1,200 | 3 | 4 |",
        "| dog | 7 | 0 | 5 |",
        "| *without a label* | 30 | 0 | 0 |",
        "| **all** | **1,237** | **3** | **9** |",
    ]


def test_of_many_classes_the_first_are_listed_and_all_are_counted():
    rows = tuple((split, f"c{i}", i) for split in ("train", "test") for i in range(100))
    lines = account(with_account(rows=rows)).splitlines()
    assert len(lines) == 2 + data_section.SHOWN_CLASSES + 2
    assert lines[-2].startswith("| *70 more classes* |")
    assert lines[-1] == "| **all** | **4,950** | **4,950** |"
    assert {line.count("|") for line in lines if line.startswith("| ")} == {4}


def test_what_was_left_out_and_what_was_done_is_said():
    parts = dict(
        rows=ROWS[:2], left_out=(("", "no images", 1), ("train", "damaged", 1200)), done=(("turned", 1), ("cut", 20)),
        prepared="grey, 20x20 pixels", damaged=(("a.png", "is empty"),), remarks=("Mind the gap.",),
    )  # fmt: skip
    said = account(with_account(**parts)).split("\n\n")[1]
    assert said.splitlines() == [
        "- As the network sees them: grey, 20x20 pixels.",
        "- 1 picture: turned.",
        "- 20 pictures: cut.",
        "- Left out: 1 – no images.",
        "- Left out: 1,200 in training: damaged.",
        "- Damaged, and left out: a.png is empty.",
        "- Mind the gap.",
    ]


def test_of_many_damaged_files_ten_are_named():
    said = account(with_account(damaged=tuple((f"{i}.png", "is empty") for i in range(25))))
    assert said.count("is empty") == 10
    assert said.endswith("- 15 more are damaged.")


def test_of_a_real_folder_all_is_accounted_for(tmp_path):
    rng = np.random.default_rng(0)
    for part, name, n in (("train", "a", 12), ("train", HOSTILE.replace("/", "_"), 13), ("test", "a", 9)):
        for i in range(n):
            (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (20, 20), np.uint8)).save(tmp_path / part / name / f"{i}.png")
    (tmp_path / "train" / "a" / "<img src=x>.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "train" / "notes|*.txt").write_text("x")
    images = load_images(tmp_path, skip_damaged=True)
    said = account(images)
    assert re.search(r"\| a \| 12 \| 9 \|", said)
    assert re.search(r"\| [^|]+ \| 13 \| 0 \|", said)
    assert "| **all** | **25** | **9** |" in said
    assert re.search(r"Left out: 1 .*damaged", said)
    assert "img src" in said.partition("Damaged, and left out: ")[2]
    assert not set("<>`$[]") & set(said)  # nothing that HTML, TeX or Markdown would take for more than text
    assert HOSTILE.partition("|")[0] not in json.dumps(images.classes)


# --- Copies ------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_copies(monkeypatch):
    """60 training and 40 test images, of which some are said to be copies."""
    images = images_of()
    labels, test_labels = images.train_labels.clone(), images.test_labels.clone()
    labels[[1, 2, 5]] = test_labels[0] = 0
    images = dataclasses.replace(
        images,
        train_labels=labels,
        test_labels=test_labels,
        train_names=tuple(f"=t{i}.png" for i in range(60)),
        test_names=tuple(f"s{i}.png" for i in range(40)),
    )
    found = [
        Copy(1, 2, True, 1.0, False), Copy(3, 4, False, 0.9444, True),  # both to train on
        Copy(61, 62, False, 0.9, False),  # both to test on
        Copy(5, 60, True, 1.0, False), Copy(6, 99, False, 0.95, False),
    ]  # fmt: skip
    monkeypatch.setattr(data_section, "copies_of", lambda _: found)
    return images


def test_copies_are_counted_by_where_they_are(with_copies):
    assert copies_sentence(with_copies) == (
        "Found: 2 copies within the training images (1 of them exact); 1 copy within the test images (0 of them "
        "exact); 2 copies **of a training image among the test images** (1 of them exact)."
    )


def test_identical_images_with_different_labels_are_named(with_copies):
    """Exact copies only, and only where both have a label."""
    train, test = with_copies.train_labels.clone(), with_copies.test_labels.clone()
    train[[1, 2, 3, 5]] = torch.tensor([0, 1, 0, 1])
    test[0] = 0
    different = dataclasses.replace(with_copies, train_labels=train, test_labels=test)
    assert copies_sentence(different).endswith(
        "(1 of them exact). **4 identical images have different labels**, such as ./_t1.png (0) and ./_t2.png (1): a "
        "label is wrong, or what tells them apart is not in the picture."
    )
    rows = {row["image"]: (row["label"], row["copy's label"]) for row in rows_of(show_copies(different))}
    assert (rows["./=t5.png"], rows["./=t1.png"]) == (("1", "0"), ("0", "1"))
    train[1], test[0] = -1, 1
    assert copies_sentence(different).endswith("exact).")


def test_pairs_across_splits_are_shown_first_and_all_are_in_the_table(with_copies):
    picture = show_copies(with_copies)
    assert picture.alt.startswith("5 of 5 pairs of copies")
    rows = rows_of(picture)
    assert [(row["image"], row["copy"]) for row in rows] == [
        ("./=t6.png", "s39.png"), ("./=t5.png", "s0.png"), ("./=t3.png", "./=t4.png"), ("s1.png", "s2.png"),
        ("./=t1.png", "./=t2.png"),
    ]  # fmt: skip
    assert [(row["exact"], row["mirrored"], row["likeness"]) for row in rows[1:3]] == [
        ("True", "False", "1.0"), ("False", "True", "0.944"),
    ]  # fmt: skip
    titles = [axes.get_title(loc="center") for axes in picture.light.figure.axes]
    assert titles[:5] == ["train", "train", "train", "test", "train"]
    assert titles[5:] == ["test, near", "test, exact", "train, mirrored", "test, near", "train, exact"]


def test_without_copies_there_is_a_sentence_and_no_picture(monkeypatch):
    monkeypatch.setattr(data_section, "copies_of", lambda _: [])
    assert copies_sentence(images_of()) == "No copies were found, neither exact nor near ones."
    assert show_copies(images_of()) is None


def test_files_are_named_wherever_they_are(with_copies):
    assert [file_name(with_copies, i) for i in (0, 59, 60, 99)] == ["./=t0.png", "./=t59.png", "s0.png", "s39.png"]
    assert [file_name(images_of(), i) for i in (0, 59, 60)] == ["0", "59", "0"]  # of arrays: their places


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_name_is_a_formula(first):
    assert inert_path(f"{first}1.png") == f"./{first}1.png"


def test_other_names_are_left_as_they_are():
    for name in ("a=b.png", "sub/=b.png", 'ü ß,".png', "<b>.png"):
        assert inert_path(name) == name
    assert inert_path(os.fsdecode(b"\xffx.png")).endswith("x.png")  # and can be written as UTF-8
    assert inert_path(os.fsdecode(b"\xff=x.png")).encode()


# --- Which to label first -----------------------------------------------------------------------------------------


def test_the_list_names_files_in_order_and_what_they_stand_for():
    images = dataclasses.replace(images_of(labelled=10), train_names=tuple(f"{i}.png" for i in range(60)))
    without = (images.train_labels < 0).nonzero().flatten()
    picture = show_label_first(images, without, [Choice(7, 30), Choice(0, 12), Choice(49, 8)])
    assert rows_of(picture) == [
        {"rank": "1", "image": "17.png", "split": "train", "stands for": "30", "label": ""},
        {"rank": "2", "image": "10.png", "split": "train", "stands for": "12", "label": ""},
        {"rank": "3", "image": "59.png", "split": "train", "stands for": "8", "label": ""},
    ]
    assert picture.alt == "Images to label first, in order, the first of 3."
    shown = picture.light.figure.axes[0].images[0].get_array()
    assert np.array_equal(np.asarray(shown).squeeze(), images.train[17, 0].numpy())


@pytest.mark.parametrize(("n", "shown"), [(1, 1), (7, 7), (8, 8), (13, 8), (50, 24)])
def test_a_picture_has_whole_rows_and_the_table_has_all(n, shown):
    images = images_of(labelled=10)
    picture = show_label_first(images, torch.arange(10, 60), [Choice(i, 1) for i in range(n)])
    assert len(picture.light.figure.axes) == shown
    assert len(rows_of(picture)) == n


def test_where_nothing_has_a_label_as_many_are_drawn_to_test_on():
    images = images_of(labelled=0)
    images = dataclasses.replace(images, test_names=tuple(f"held/{i}.png" for i in range(len(images.test))))
    picture = show_label_first(images, torch.arange(60), [Choice(i, 1) for i in range(8)])
    rows = [row for row in rows_of(picture) if row["split"] == "test"]
    drawn = [f"held/{i}.png" for i in images.test_sample(8).tolist()]
    assert [row["image"] for row in rows] == drawn
    assert len(picture.light.figure.axes) == 16
    assert "drawn at random, to test on" in label_first_sentence(images, 8)
    some = label_first_sentence(images_of(labelled=10), 8)
    assert some.startswith("50 training images have no label that can be used. The 8 below")
    assert "at random" not in some
    assert label_first_sentence(images_of(), 0).startswith("*Every training image has a label")


def test_the_table_filled_in_labels_the_images(tmp_path):
    rng = np.random.default_rng(0)
    odd = ["=cmd.png", "+1,2.png", '-x"y".png', "@a.png", "ü ß.png", "<b>x.png"]
    for name in [*odd, *(f"{i:03}.png" for i in range(94))]:
        Image.fromarray(rng.integers(0, 256, (20, 20), np.uint8)).save(tmp_path / name)
    images = load_images(tmp_path)
    assert images.n_labels == 0
    chosen = [Choice(i, 1) for i in range(len(images.train))]
    rows = rows_of(show_label_first(images, torch.arange(len(images.train)), chosen))
    for i, row in enumerate(rows):
        row["label"] = "ab"[i % 2]
    with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    again = load_images(tmp_path)
    # What was held out, and drawn at random, is what is tested on
    assert set(again.test_names) == set(images.test_names)
    expected = {row["image"].removeprefix("./"): row["label"] for row in rows}
    labelled = zip([*again.train_names, *again.test_names], [*again.train_labels, *again.test_labels], strict=True)
    assert {name: again.classes[label] for name, label in labelled if label >= 0} == expected
    assert set(odd) <= set(expected)


def test_names_of_classes_and_files_are_harmless():
    assert not set(inert(HOSTILE)) & set("<>|*`$_[]") - {"_"}
