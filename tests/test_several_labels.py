"""Images with several labels each, such as findings on an X-ray, of which one is asked about."""

import numpy as np
import pytest

from contrastive import Settings, UserError, load_images
from contrastive.__main__ import main
from contrastive.training import transfer_images

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
CASE = {"train": {"case": 12, "no case": 12}}
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
         {"train": {"AP": 12, "PA": 12}}, {"label": "view"},
         remarks=(*SAID[:2], "'view' holds other words than yes and no", SAID[2])),
    Case("a column that is usual for groups", {".": N, "labels.csv": csv("image,Case", ["1", "0"] * 12)}, CASE,
         {"label": "case"}, remarks=(*SAID[:2], "So its column 'Case' tells no groups", SAID[2])),
    Case("a column that is usual for splits", {".": N, "labels.csv": csv("image,phase", ["+", "-"] * 12)},
         {"train": {"phase": 12, "no phase": 12}}, {"label": "phase"}, remarks=SAID),
    Case("just so before alike", {".": N, "labels.csv": csv("image,Ef fusion,effusion", ["0,1"] * 12 + ["0,0"] * 12)},
         HALF, {"label": "effusion"}, remarks=SAID),
    Case("two that are alike", {".": N, "labels.csv": csv("image,Ef fusion,Effusion", ["0,1"] * 24)},
         "has the columns 'Ef fusion' and 'Effusion'. Write one", {"label": "effusion"}),
    Case("called like a sign for nothing", {".": N, "labels.csv": csv("image,NA", ["1", "0"] * 12)},
         {"train": {"label NA": 12, "no label NA": 12}}, {"label": "NA"}, remarks=SAID),
    Case("of the table that has it", {".": N, "labels.csv": csv("image,label", ["x", "y"] * 12),
                                      "findings.csv": csv("image,effusion", ["1", "0"] * 12)},
         HALF, {"label": "effusion"}, left_out={("", "tables that are not used"): 1}, remarks=SAID),
    Case("in folders that are named otherwise", {"cat": 12, "dog": 12, "labels.csv": "image,effusion\ncat/00.png,1\n"
         "cat/01.png,0\ndog/00.png,1\ndog/01.png,0\n"}, {"train": {"effusion": 2, "no effusion": 2, "": 20}},
         {"label": "effusion"}, remarks=("gives 4 of 24", "asked about", "no test images")),
    Case("in folders, and nowhere known", {"cat": 12, "dog": 12, "labels.csv": "image,effusion\ncat/00.png,\n"},
         {"train": {"": 19}, "test": {"": 5}}, {"label": "effusion"},
         remarks=("gives 0 of 24", "asked about", "held out to look at")),
    Case("in other letters, after a semicolon", {".": N, "labels.csv": csv("image,findings",
                                                                         ["Edema; Ple_ural", "Edema"] * 12)},
         {"train": {"pleural": 12, "no pleural": 12}}, {"label": "pleural"}, remarks=SAID),
    Case("alone in a cell", {".": N, "labels.csv": csv("image,finding", ["Effusion", "Edema"] * 12)}, HALF,
         {"label": "effusion"}, remarks=SAID),
    Case("lists that nobody asked about", {".": N, "labels.csv": csv("image,finding", ["a|b", "a"] * 12)},
         {"train": {"a": 12, "a_b": 12}},
         remarks=("gives 24", "Some cells list several labels, such as 'a_b'", "no test images")),
    Case("listed in a cell", {".": N, "labels.csv": csv("Image Index,Finding Labels",
                                                        ["Edema|Effusion", "No Finding", "Effusion", "Edema"] * 6)},
         HALF, {"label": "effusion"}, remarks=SAID),
    Case("signs that tell labels apart",
         {".": N, "labels.csv": csv("image,finding", ["HER2-|z", "HER2+", "HER2+|z"] * 8)},
         {"train": {"HER2-": 8, "no HER2-": 16}}, {"label": "HER2-"}, remarks=SAID),
    Case("alike to two", {".": N, "labels.csv": csv("image,finding", ["HER2-|z", "HER2+"] * 12)},
         r"unknown label 'HER2'.* Choose one of: HER2\+, HER2-, z\.", {"label": "HER2"}),
    Case("between commas",
         {".": N, "labels.csv": csv("image,finding", ['"Effusion, Edema"', "Edema", "Effusion", "x"] * 6)},
         HALF, {"label": "effusion"}, remarks=SAID),
    Case("with a comma of its own", {".": N, "labels.csv": csv("image,finding", ['"Effusion, left"', "Effusion"] * 12)},
         {"train": {"Effusion, left": 12, "no Effusion, left": 12}}, {"label": "Effusion, left"}, remarks=SAID),
    Case("a list as Python writes it",
         {".": N, "labels.csv": csv("image,finding", ["\"['Edema', 'Effusion']\"", "['x']"] * 12)},
         HALF, {"label": "effusion"}, remarks=SAID),
    Case("no such column", {".": N, "labels.csv": csv("image,label,edema", ["x,1", "y,0"] * 12)},
         r"parameter label: in .*labels.csv there is an unknown label 'effusion'\. Choose one of: edema, x, y\.",
         {"label": "effusion"}),
    Case("the column of images", {".": N, "labels.csv": csv("image,label", ["x", "y"] * 12)},
         "parameter label='image': in .*labels.csv that column names the images", {"label": "image"}),
    Case("no table", {"cat": 12, "dog": 12}, "parameter label='effusion': there is no such label in .*It has no table "
         "of labels: add labels.csv", {"label": "effusion"}),
    Case("a typing error and a table that is not called labels",
         {".": N, "chexpert.csv": csv("Path,Effusion", ["1.0", "0.0"] * 12)},
         "no such label in .*chexpert.csv is not used: .*The parameter label chooses one of them: Path, Effusion",
         {"label": "effusoin"}),
    Case("a table that cannot be read", {".": N, "labels.xlsx": "x"}, "no such label in .*labels.xlsx is not read",
         {"label": "effusion"}),
]  # fmt: skip


@parametrised(CASES)
def test_of_a_table_the_label_that_is_asked_about_is_used(case, tmp_path):
    check(case, tmp_path)


def test_of_an_array_a_column_is_used():
    images = load_images(PIXELS, FINDINGS, label="2")
    assert images.classes == ("label 2", "no label 2")
    assert images.train_labels.tolist() == [0] * 12 + [1] * 12
    assert "Each image has 14 labels; label 2 is asked about, as yes or no." in images.account.remarks
    assert load_images(PIXELS, FINDINGS, label=2).train_labels.tolist() == images.train_labels.tolist()
    unsure = FINDINGS.astype(float)
    unsure[:4, 2], unsure[:, 3], unsure[4, 2] = -1, 7, np.nan
    assert load_images(PIXELS, unsure, label="2").train_labels.tolist() == [-1] * 5 + [0] * 7 + [1] * 12
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
        (FINDINGS, "9" * 5000, "the array has the labels 0 to 13"),
        (FINDINGS[:, 0], "0", "asks about one of several labels, and the array has one label an image. Leave it out"),
        (None, "0", "asks about one of several labels, and the array has no labels. Leave it out"),
        (FINDINGS * 3, "0", "its column in the array has to hold 0 and 1, and -1 for unknown"),
        (FINDINGS * 3, None, "One a row is needed, or 0 and 1; or the parameter label, which chooses a column"),
    ],
)
def test_what_cannot_be_chosen_is_said_in_a_line(labels, label, said):
    with pytest.raises(UserError, match=said) as problem:
        load_images(PIXELS, labels, label=label)
    assert "\n" not in str(problem.value)


def test_lists_of_parquet_are_lists_of_labels(tmp_path):
    pyarrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    put(tmp_path, {".": N})
    table = pyarrow.table({"image": NAMES, "findings": [["Edema", "Effusion"], ["Edema"], []] * 8})
    parquet.write_table(table, tmp_path / "labels.parquet")
    images = load_images(tmp_path, label="effusion")
    assert images.train_labels.tolist() == [0, 1, -1] * 8


def test_a_data_set_to_transfer_to_has_labels_of_its_own(tmp_path):
    np.savez(tmp_path / "x.npz", train_images=PIXELS, train_labels=FINDINGS)
    settings = Settings(preset="smoke", dataset=str(tmp_path / "x.npz"), label="2", transfer="sklearn_digits")
    assert transfer_images(settings).n_labels == 1437


def test_splits_with_other_numbers_of_labels_are_refused(tmp_path):
    named = {"train_images": PIXELS, "test_images": PIXELS, "train_labels": FINDINGS, "test_labels": FINDINGS[:, :7]}
    np.savez(tmp_path / "x.npz", **named)
    with pytest.raises(UserError, match=r"some splits have 7 labels an image, some 14\. Make them alike"):
        load_images(tmp_path / "x.npz", label="2")


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
    assert said.startswith("error: parameter label: in ")
    assert "unknown label 'none'. Choose one of: edema, effusion." in said
    assert said.count("\n") == 1
