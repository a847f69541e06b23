"""Folders: which images are of which class and split, what is left out, and what may mean several things."""

import os

import pytest

from contrastive import load_images
from contrastive.data import trees

from .source_cases import Case, check, parametrised, picture, put, refused, rows_of

CLASSES = {"cat": 5, "dog": 5}
FOUR = {"train/cat": 5, "train/dog": 6, "test/cat": 2, "test/dog": 3}
READ = {"train": {"cat": 5, "dog": 6}, "test": {"cat": 2, "dog": 3}}
ALL = {"train": CLASSES}  # of so few labelled images none are drawn to test on
HELD_OUT = r"^2 images, drawn by seed 0, were held out to look at\.$"
UNLABELLED = {"train": {"": 8}, "test": {"": 2}}
NUMBERS = ("2.5", "9", "10", "b", "inf", "nan")
TOOLS, BESIDE = "left behind by an operating system or a tool", "beside the folders of the splits"


def few(n):
    return rf"no test images, and {n} training images have a label: .*\. So classifiers are cross-validated on the lab"


FEW = few(10)


def under(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


def parts(train, test):
    return {f"{part}/{name}": n for part, n in ((train, 5), (test, 2)) for name in ("cat", "dog")}


CASES = [
    # One folder
    Case("a flat folder", {".": 10}, UNLABELLED, remarks=(HELD_OUT,)),
    Case("a flat folder in folders", {"a/b": 10}, UNLABELLED, remarks=(HELD_OUT,)),
    Case("one class only", {"cat": 10}, UNLABELLED, remarks=(HELD_OUT,)),
    Case("unlabeled only", {"unlabeled": 10}, UNLABELLED, remarks=(HELD_OUT,)),
    Case("two images", {".": 2}, {"train": {"": 2}}, remarks=("^0 images, drawn",)),
    # Classes
    Case("classes", CLASSES, ALL, remarks=(FEW,), classes=("cat", "dog")),
    Case("classes in outer/inner beside __MACOSX",
         under("outer/inner", CLASSES) | {"__MACOSX/outer/inner/cat/._00.png": "\0", "__MACOSX/x.png": ...}, ALL,
         remarks=(FEW,), left_out={("", TOOLS): 2}),
    Case("classes and loose images", CLASSES | {"x.png": ..., "y.png": ...},
         {"train": {"cat": 5, "dog": 5, "": 2}},
         remarks=("^2 training images have no label", FEW)),
    Case("classes and unlabeled", CLASSES | {"Unlabelled": 3},
         {"train": {"cat": 5, "dog": 5, "": 3}},
         remarks=("^3 training images have no label", FEW)),
    Case("an image a class", {"cat": 1, "dog": 1, "emu": 1}, {"train": {"": 2}, "test": {"": 1}},
         remarks=("No two of the 3 labels are alike", "held out")),
    Case("two images, two classes", {"cat": 1, "dog": 1}, {"train": {"": 2}},
         remarks=("No two of the 2 labels are alike", "0 images")),
    Case("a class of one image", {"cat": 5, "dog": 5, "emu": 1},
         {"train": {"cat": 5, "dog": 5, "emu": 1}},
         remarks=(few(11), "^Class emu has one labelled image, .* cannot be measured. Label more of them")),
    Case("two classes of one image", {"cat": 5, "dog": 5, "emu": 1, "fox": 1},
         {"train": {"cat": 5, "dog": 5, "emu": 1, "fox": 1}},
         remarks=(few(12), "^Classes emu, fox have one labelled image, .* cannot be measured. Label more of them")),
    Case("classes of many images", {"cat": 249, "dog": 249}, {"train": {"cat": 199, "dog": 199},
         "test": {"cat": 50, "dog": 50}}, remarks=("no test images: 100 of 498 labelled images were drawn by seed 0",)),
    Case("numbers as names", {"10": 5, "9": 5, "2.5": 5, "nan": 5, "inf": 5, "b": 5},
         {"train": dict.fromkeys(NUMBERS, 5)}, classes=NUMBERS, remarks=(few(30),)),
    Case("names that differ in capitals", {"Cat": 5, "cat": 5},
         {"train": {"Cat": 5, "cat": 5}},
         remarks=("capitals or blanks are taken for several: Cat and cat", FEW)),
    Case("patients within classes", {"cat/p1": 3, "cat/p2": 2, "dog/p1": 5}, ALL,
         remarks=("^10 images in sub-folders of a class, such as cat/p1: taken", FEW)),
    Case("a class named train", CLASSES | {"train": 5}, "'train' may be a split or, like 'cat', a class"),
    Case("a class named Test", CLASSES | {"Test": 5}, "'Test' may be a split or, like 'cat', a class"),
    # Splits
    Case("train and test", FOUR, READ),
    Case("Train and TEST", parts("Train", "TEST"), {"train": CLASSES, "test": {"cat": 2, "dog": 2}}),
    Case("training and testing", parts("training", "testing"), {"train": CLASSES, "test": {"cat": 2, "dog": 2}}),
    Case("train and val", parts("train", "val"), ALL | {"val": {"cat": 2, "dog": 2}}, remarks=(FEW,)),
    Case("train and Valid", parts("train", "Valid"), ALL | {"val": {"cat": 2, "dog": 2}}, remarks=(FEW,)),
    Case("train, validation and test", FOUR | {"validation/dog": 2}, READ | {"val": {"dog": 2}}),
    Case("Train and train", {"Train/cat": 2, "train/cat": 3, "train/dog": 6, "test/cat": 2, "test/dog": 3}, READ),
    Case("train only", under("train", CLASSES), ALL, remarks=(FEW,)),
    Case("outer/inner/train", under("outer/inner", FOUR), READ),
    Case("a picture beside the folder", under("outer", FOUR) | {"preview.png": ...}, READ,
         left_out={("", BESIDE): 1}),
    Case("the data set a second time within", FOUR | under("inner", FOUR), READ, left_out={("inner", BESIDE): 16}),
    Case("folders and images beside train and test", FOUR | {"extra/cat": 3, "more": 2, "x.png": ...}, READ,
         left_out={("extra", BESIDE): 3, ("more", BESIDE): 2, ("", BESIDE): 1}),
    Case("cat/train", {"cat/train": 5, "cat/test": 2, "dog/Train": 6, "dog/test": 3}, READ),
    Case("cat/train and unlabeled", {"cat/train": 5, "cat/test": 2, "dog/train": 6, "dog/test": 3, "unlabeled": 4},
         {"train": {"cat": 5, "dog": 6, "": 4}, "test": READ["test"]}, remarks=("^4 training images have no label",)),
    Case("cat/train/patient", {"cat/train/p1": 5, "cat/test/p2": 2, "dog/train/p3": 6, "dog/test/p4": 3}, READ,
         remarks=("^16 images in sub-folders of a class, such as cat/p2",)),
    Case("cat/train beside a class without splits", {"cat/train": 5, "cat/test": 2, "dog/train": 6, "dog/test": 3,
         "emu": 4, "x.png": ...}, READ, left_out={("emu", BESIDE): 4, ("", BESIDE): 1}),
    Case("two data sets", under("fold1", FOUR) | under("fold2", FOUR), "several data sets, 'fold1' and 'fold2'"),
    Case("train and test without classes", {"train": 8, "test": 3}, {"train": {"": 8}, "test": {"": 3}}),
    Case("train, val and test without classes", {"train": 8, "val": 2, "test": 3},
         {"train": {"": 8}, "val": {"": 2}, "test": {"": 3}}),
    Case("a train/unlabeled", FOUR | {"train/unlabeled": 4},
         {"train": {"cat": 5, "dog": 6, "": 4}, "test": READ["test"]}, remarks=("^4 training images have no label",)),
    Case("an unlabeled beside train", FOUR | {"UNLABELED": 3, "unlabelled/deeper": 1},
         {"train": {"cat": 5, "dog": 6, "": 4}, "test": READ["test"]}, remarks=("^4 training images have no label",)),
    Case("unlabeled within a class", FOUR | {"train/cat/unlabeled": 4},
         {"train": {"cat": 5, "dog": 6, "": 4}, "test": READ["test"]}, remarks=("^4 training images have no label",)),
    Case("test images without label", FOUR | {"test/unlabelled": 4, "test/x.png": ...}, READ,
         left_out={("test", "test images without a label"): 5}, remarks=("^5 test images have no label",)),
    Case("validation images without label", FOUR | {"val/cat": 1, "val/unlabeled": 2},
         {"train": {"cat": 5, "dog": 6, "": 2}, "val": {"cat": 1}, "test": READ["test"]},
         remarks=("^2 validation images have no label: for pretraining",)),
    Case("labels of the test images only", {"train": 8, "test/cat": 2, "test/dog": 2}, {"train": {"": 8},
         "test": {"": 4}},
         remarks=("^8 training images have no label", "Only validation or test images have labels")),
    Case("one class in train and test", {"train/cat": 8, "test/cat": 3}, {"train": {"": 8}, "test": {"": 3}},
         remarks=("All labels are cat: there is nothing to tell apart",)),
    Case("a class without test images", FOUR | {"train/emu": 4},
         {"train": {"cat": 5, "dog": 6, "emu": 4}, "test": READ["test"]}, remarks=("^Class emu has no test images",)),
    Case("a class whose folder in test is empty", FOUR | {"train/emu": 4, "test/emu": None},
         {"train": {"cat": 5, "dog": 6, "emu": 4}, "test": READ["test"]}, remarks=("^Class emu has no test images",)),
    Case("seven classes without test images", FOUR | {f"train/{c}": 2 for c in "tuvwxyz"},
         {"train": {"cat": 5, "dog": 6} | dict.fromkeys("tuvwxyz", 2), "test": READ["test"]},
         remarks=("^Classes t, u, v, w, x and 2 more have no test images",)),
    Case("a class without training images", FOUR | {"test/emu": 4}, "class 'emu' has test images, but none to"),
    Case("a class whose folder in train is empty", FOUR | {"test/emu": 4, "train/emu": None}, "class 'emu' has test"),
    Case("a class in validation only", FOUR | {"val/emu": 4}, "class 'emu' has val images, but none to train on"),
    Case("a class in other capitals in test", {"train/Cat": 5, "train/dog": 5, "test/cat": 2, "test/dog": 2},
         r"class 'cat' has test images, but none to train on \(there is 'Cat'\)"),
    Case("test only", {"test/cat": 5, "test/dog": 5}, ALL,
         remarks=("test images only, so they are divided anew", FEW)),
    Case("val and test only", {"val/cat": 4, "test/cat": 4}, "images, but none to train on"),
    # Files
    Case("what systems leave behind",
         FOUR | {"train/cat/.DS_Store": "x", "train/Thumbs.db": "x", "train/cat/._00.png": "\0", "DESKTOP.INI": "x",
                 "train/.ipynb_checkpoints/00.png": ..., "train/@eaDir/00.png": ..., ".git/config": "x"}, READ,
         left_out={("", TOOLS): 7}),
    Case("other files", FOUR | {"README.md": "x", "train/cat/notes.txt": "x", "test/dog/model": "x"}, READ,
         left_out={("", "no images"): 3}),
    Case("a class without an image", FOUR | {"train/emu/x.txt": "x", "train/emu/y": "y", "test/emu/z.heic": "z"}, READ,
         left_out={("train/emu", "no images"): 2, ("test/emu", "images of a kind that is not read, .heic"): 1}),
    Case("capitals and kinds", {"train/cat/A.PNG": ..., "train/cat/b.Jpeg": picture("b", "JPEG"),
         "train/cat/c.TIF": picture("c", "TIFF"), "train/cat/d.bmp": picture("d", "BMP"),
         "train/cat/e": picture("e", "GIF"), "train/dog/f.WEBP": picture("f", "WEBP"), "train/dog": 5,
         "test/cat": 2, "test/dog": 3}, READ),
    Case("a table of something else", FOUR | {"weather.csv": "day,rain\n1,2\n"}, READ,
         left_out={("", "tables that are not used"): 1}),
    Case("labels in Excel", {".": 10, "labels.xlsx": "PK"}, UNLABELLED,
         remarks=("^labels.xlsx is not read: save it as labels.csv", HELD_OUT), left_out={("", "no images"): 1}),
    Case("an empty folder", {}, "there are no images in .*: it holds no files"),
    Case("text only", {"a.txt": "x", "b/c.txt": "y", "d": "z"}, "it holds 2 with .txt, 1 with no ending. Images"),
    Case("an archive in a folder", {"my data.zip": "PK"}, "To read 'my data.zip', give its path"),
    Case("damaged files", FOUR | {"train/cat/05.png": "", "test/dog/06.jpg": "<html>404", "test/dog/\n.jpg": "JFIF"},
         r"^3 files in .* cannot be read: test/dog/\?.jpg is no image; test/dog/06.jpg is no image \(HTML\); "
         r"train/cat/05.png is empty\. Replace .*skip_damaged=true"),
    Case("damaged files, skipped", FOUR | {"train/cat/05.png": "", "test/dog/06.jpg": "<html>404"}, READ,
         {"skip_damaged": True}, left_out={("train/cat", "damaged"): 1, ("test/dog", "damaged"): 1}),
    Case("a class that is damaged as a whole", FOUR | {"train/emu/0.png": "x", "train/emu/1.png": ""}, READ,
         {"skip_damaged": True}, left_out={("train/emu", "damaged"): 2}),
    Case("all are damaged", {"train/cat/a.png": "x", "train/cat/b.png": ""}, "none of 2 pictures can be read"),
    # Groups
    Case("groups by file names", {"cat/p1": 3, "cat/p2": 3, "cat/p3": 3, "dog/p4": 3, "dog/p5": 3, "dog/p6": 3},
         {"train": {"cat": 9, "dog": 9}}, {"group": r"(p\d)/"}, remarks=("sub-folders", few(18))),
    Case("groups of some file names", CLASSES, ALL,
         {"group": "cat/0[01]"}, remarks=("^8 file names do not match the parameter group", FEW)),
    Case("groups of no file name", CLASSES, "group='patient' matches no file name of .*, such as 'cat/00.png'",
         {"group": "patient"}),
    Case("groups that are empty", CLASSES, "matches no file name", {"group": "cat/(x?)"}),
    Case("all of one group", CLASSES, ALL, {"group": "png"},
         remarks=(FEW, "^Classes cat, dog have one labelled image, or one group, so how well they are")),
    Case("a group that is a class", CLASSES | {"emu": 1}, ALL | {"train": CLASSES | {"emu": 1}},
         {"group": "cat|dog/0[01]|emu"},
         remarks=("^3 file names do not match", few(11), "^Classes cat, emu have one labelled image, or one group")),
    Case("a hundred groups but one", {f"{c}/p{i}": 6 for c in ("cat", "dog") for i in range(49)} | {"dog/p49": 6},
         {"train": {"cat": 294, "dog": 300}}, {"group": r"\w+/p\d+"},
         remarks=("sub-folders", "594 training images have a label: they are of 99 groups, and a fifth of these")),
    Case("a hundred groups", {f"{c}/p{i}": 5 for c in ("cat", "dog") for i in range(50)},
         {"train": {"cat": 200, "dog": 200}, "test": {"cat": 50, "dog": 50}}, {"group": r"\w+/p\d+"},
         remarks=("sub-folders", "100 of 500 labelled images were drawn")),
    Case("groups of three images a class", {f"{c}/p{i}": 1 for c in ("cat", "dog") for i in range(3)},
         {"train": {"cat": 3, "dog": 3}}, {"group": r"\w+/p\d"}, remarks=("sub-folders", few(6))),
    Case("groups in train and validation", parts("train", "val") | parts("train", "test"),
         {"train": CLASSES, "test": {"cat": 2, "dog": 2}, "val": {"cat": 2, "dog": 2}}, {"group": r"\d\d"},
         remarks=("^2 groups are in both training and validation images",)),
    Case("two large groups without labels", dict.fromkeys(("p1_0.png", "p1_1.png", "p2_0.png", "p2_1.png", "p2_2.png"),
         ...),
         {"train": {"": 3}, "test": {"": 2}}, {"group": "p."}, remarks=("^2 images, drawn",)),
]  # fmt: skip


@parametrised(CASES)
def test_a_folder(case, tmp_path):
    check(case, tmp_path)


def test_names_of_every_kind(tmp_path):
    names = ("with  spaces", "Röntgen", "猫", "<b>&amp;", "new\nline", "=1+1", os.fsdecode(b"\xff\xfe"), "$x$")
    put(tmp_path, {f"{part}/{name}": n for part, n in (("train", 3), ("test", 1)) for name in names})
    put(tmp_path, {f"train/猫/{name}.png": ... for name in names})
    images = load_images(tmp_path)
    counts = {name: n for split, name, n in images.account.rows if split == "train"}
    assert sorted(counts.values()) == [3] * 7 + [11]
    assert counts["猫"] == 11
    assert len(set(images.classes)) == 8
    assert all(name.isprintable() and not set(name) & set("<&$\n=") for name in images.classes)
    for i, name in enumerate(images.train_names):
        label = images.classes[images.train_labels[i]]
        assert label == "猫" or "猫" not in name
    put(tmp_path, {"train/new\nline/\x1b[31m.png": b"\x89PNG broken"})
    refused(tmp_path, r"^1 file in .* cannot be read: train/new\?line/\?\[31m\.png is no image")


def test_the_account_does_not_change_with_the_order_of_the_disk(tmp_path, monkeypatch):
    put(tmp_path, FOUR)
    before = load_images(tmp_path)
    put(tmp_path, {"note.txt": "x"})
    walk = trees.Folder._walk
    monkeypatch.setattr(trees.Folder, "_walk", lambda self: reversed(list(walk(self))))
    after = load_images(tmp_path)
    assert before.sha256 == after.sha256
    assert before.train_names == after.train_names


# --- Links and what is no file --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    put(tmp_path / "pets", FOUR)
    return tmp_path / "pets"


@pytest.mark.parametrize("where", ["a file", "a class", "a part"])
def test_links_that_lead_out_are_refused_unless_they_may(folder, tmp_path, where):
    before = load_images(folder)
    outside = tmp_path / "outside"
    (folder / "train" / "cat").rename(outside)
    if where == "a file":
        (folder / "train" / "cat").mkdir()
        for file in outside.iterdir():
            (folder / "train" / "cat" / file.name).symlink_to(file)
    elif where == "a class":
        (folder / "train" / "cat").symlink_to(outside)
    else:
        outside.rename(folder / "train" / "cat")
        (folder / "train").rename(tmp_path / "train")
        (folder / "train").symlink_to(tmp_path / "train")
    refused(folder, "is a link that leads out of .*follow_links=true")
    assert load_images(folder, follow_links=True).sha256 == before.sha256


def test_links_inside_and_the_folder_itself_may_be_links(folder, tmp_path):
    (folder / "train" / "dog" / "link.png").symlink_to("00.png")
    (folder / "train" / "dog" / "up").symlink_to("..")  # what is there is read anyway
    (folder / "train" / "emu").symlink_to("../.emus")
    put(folder / ".emus", {".": 4})
    (tmp_path / "elsewhere").symlink_to(folder)
    images = load_images(tmp_path / "elsewhere")
    assert rows_of(images)["train"] == {"cat": 5, "dog": 7, "emu": 4}
    assert ("", "no regular files", 1) in images.account.left_out


def test_links_of_tools_are_not_followed(folder, tmp_path):
    (folder / ".venv").mkdir()
    (folder / ".venv" / "python").symlink_to("/usr/bin")
    images = load_images(folder)
    assert len(images.train) == 11
    assert images.account.left_out == (("", "no regular files", 1),)


def test_pipes_are_counted_and_loops_refused(folder, tmp_path):
    os.mkfifo(folder / "train" / "dog" / "x.png")
    assert load_images(folder).account.left_out == (("", "no regular files", 1),)
    (folder / "train" / "dog" / "y.png").symlink_to("y.png")
    refused(folder, "y.png cannot be read: .*Mend or remove that link")
    (folder / "train" / "dog" / "y.png").unlink()
    (folder / "train" / "dog" / "y.png").symlink_to("nothing")
    refused(folder, "y.png cannot be read: .*Mend or remove that link")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "pipe is no data set: give a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read(folder):
    (folder / "train" / "dog").chmod(0)
    refused(folder, "dog cannot be read: Permission denied")
    (folder / "train" / "dog").chmod(0o700)


def test_what_is_no_data_set(tmp_path):
    put(tmp_path, {"x.png": ..., "x.txt": "text", "x.7z": "7z"})
    for name in ("x.png", "x.txt", "x.7z"):
        refused(tmp_path / name, f"{name} is no data set: give a folder, a .zip or .tar")
    refused(tmp_path / "nothing", "there is no .*nothing")
