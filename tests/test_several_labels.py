"""Images with several labels each, such as findings on an X-ray, of which one is asked about."""

import numpy as np
import pytest

from contrastive import UserError, load_images
from contrastive.__main__ import main

from .source_cases import Case, check, noise, parametrised, put

N = 24
PIXELS = np.stack([noise(str(i)) for i in range(N)])
FINDINGS = np.random.default_rng(0).integers(0, 2, (N, 14)).astype(np.uint8)
FINDINGS[:12, 2], FINDINGS[12:, 2] = 1, 0
NAMES = [f"{i:02}.png" for i in range(N)]


def csv(header, rows):
    return "\n".join([header, *(f"{name},{row}" for name, row in zip(NAMES, rows, strict=True))]) + "\n"


HALF = {"train": {"effusion": 12, "no effusion": 12}}
YES, NO = "effusion", "no effusion"
SAID = (r"gives \d+ of 24 images a label", "^The label that is asked about is ", "no test images")
CASES = [
    Case("columns of 0 and 1", {".": N, "labels.csv": csv("image,edema,Effusion", ["1,1", "0,0"] * 12)}, HALF,
         {"label": "effusion"}, remarks=SAID),
    Case("of a table with any name", {".": N, "chexpert.csv": csv("Path,Effusion", ["1.0", "0.0"] * 12)}, HALF,
         {"label": "effusion"}, remarks=SAID),
    Case("blank and uncertain ones", {".": N, "labels.csv": csv("image,effusion", ["1.0", "0.0", "", "-1.0"] * 6)},
         {"train": {"effusion": 6, "no effusion": 6, "": 12}}, {"label": "effusion"}, remarks=SAID),
    Case("beside a label that is not asked about",
         {".": N, "labels.csv": csv("image,label,effusion", ["x,yes", "y,no"] * 12)}, HALF,
         {"label": "effusion"}, remarks=SAID),
    Case("a column of other words", {".": N, "labels.csv": csv("image,label,view", ["x,AP", "y,PA"] * 12)},
         {"train": {"AP": 12, "PA": 12}}, {"label": "view"}, remarks=SAID),
    Case("listed in a cell", {".": N, "labels.csv": csv("Image Index,Finding Labels",
                                                        ["Edema|Effusion", "No Finding", "Effusion", "Edema"] * 6)},
         HALF, {"label": "effusion"}, remarks=SAID),
    Case("no such column", {".": N, "labels.csv": csv("image,label,edema", ["x,1", "y,0"] * 12)},
         r"parameter label='effusion': .*labels.csv has no such column, and no cell lists it between '\|'\. Its other "
         "columns: edema", {"label": "effusion"}),
    Case("no table", {"cat": 12, "dog": 12}, "parameter label='effusion' chooses one of several labels, and images of "
         ".* have one each. Leave it out", {"label": "effusion"}),
]  # fmt: skip


@parametrised(CASES)
def test_of_a_table_the_label_that_is_asked_about_is_used(case, tmp_path):
    check(case, tmp_path)


def test_of_an_array_a_column_is_used():
    images = load_images(PIXELS, FINDINGS, label="2")
    assert images.classes == ("label 2", "no label 2")
    assert images.train_labels.tolist() == [0] * 12 + [1] * 12
    assert any("Of the 14 labels of each image 2 is used, as yes or no." in remark for remark in images.account.remarks)
    one_hot = load_images(PIXELS, np.eye(3, dtype=int)[np.arange(N) % 3], label="1")
    assert one_hot.train_labels.tolist() == [int(i % 3 != 1) for i in range(N)]


def test_without_a_choice_none_is_used_and_how_to_choose_is_said():
    images = load_images(PIXELS, FINDINGS)
    assert images.n_labels == 0
    assert any(remark.endswith("Choose one by the parameter label: 0 to 13.") for remark in images.account.remarks)


@pytest.mark.parametrize(
    ("labels", "label", "said"),
    [
        (FINDINGS, "14", "parameter label='14': the array has the labels 0 to 13 an image. Give one of these."),
        (FINDINGS, "effusion", "the array has the labels 0 to 13"),
        (FINDINGS[:, 0], "0", "chooses one of several labels, and images of the array have one each"),
        (None, "0", "chooses one of several labels"),
        (FINDINGS * 3, "0", "One a row is needed, or 0 and 1"),
    ],
)
def test_what_cannot_be_chosen_is_said_in_a_line(labels, label, said):
    with pytest.raises(UserError, match=said) as problem:
        load_images(PIXELS, labels, label=label)
    assert "\n" not in str(problem.value)


def test_chestmnist_has_names_for_its_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRASTIVE_DATA", str(tmp_path))
    parts = {"train": slice(0, 12), "val": slice(12, 16), "test": slice(16, N)}
    named = {f"{part}_images": PIXELS[own] for part, own in parts.items()}
    labels = FINDINGS.copy()
    labels[:, 2] = np.arange(N) % 2
    np.savez(tmp_path / "chestmnist.npz", **named, **{f"{part}_labels": labels[own] for part, own in parts.items()})
    images = load_images("chestmnist", label="Effusion")
    assert images.classes == (YES, NO)
    assert images.test_labels.tolist() == [1, 0] * 4
    assert "Choose one by the parameter label: atelectasis, for example." in load_images("chestmnist").note
    with pytest.raises(UserError, match=r"parameter label: unknown label 'efusion'\. Did you mean 'effusion'"):
        load_images("chestmnist", label="efusion")


def test_the_command_line_asks_about_one_label(tmp_path, capsys):
    put(tmp_path, {".": N, "labels.csv": csv("image,edema,effusion", ["1,1", "0,0"] * 12)})
    assert main(["pretrain", "--dataset", str(tmp_path), "--preset", "smoke", "-p", "label=none"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: parameter label='none': ")
    assert said.count("\n") == 1
