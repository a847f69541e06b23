"""Tables of labels beside images, as spreadsheets, pandas, R and people write them."""

import io
import os
import re

import pytest

from contrastive import load_images
from contrastive.data import pictures

from .source_cases import Case, check, noise, parametrised, put, refused, rows_of

pyarrow = pytest.importorskip("pyarrow")
parquet_files = pytest.importorskip("pyarrow.parquet")

NAMES = [f"{i:02}.png" for i in range(10)]
KINDS = ["cat", "dog"] * 5
FLAT = {".": 10}
ALL = {"train": {"cat": 5, "dog": 5}}  # of so few labelled images none are drawn to test on
GIVEN = {"train": {"cat": 4, "dog": 4}, "test": {"cat": 1, "dog": 1}}
GIVES = r"^labels.csv gives 10 of 10 images a label \(image from 'image', label from 'label'\)\.$"
HELD_OUT = "were held out to look at"


def few(n):
    return (
        rf"no test images, and {n} training images have a label: .*\. So classifiers are cross-validated on the label"
    )


FEW = few(10)


def table(*rows, header="image,label", end="\n"):
    return end.join([header, *rows]) + end


def rows(names=NAMES, kinds=KINDS, sign=","):
    return [f"{name}{sign}{kind}" for name, kind in zip(names, kinds, strict=True)]


def parquet(**columns):
    made = io.BytesIO()
    parquet_files.write_table(pyarrow.table(columns), made)
    return made.getvalue()


USUAL = table(*rows())
SPLITS = ["train", "TRAIN", "training", "train", "VALID", "val", "Test", "testing", "", "unlabeled"]


def with_csv(content, **files):
    return FLAT | {"labels.csv": content} | files


def of(n, names="image from 'image', label from 'label'", name="labels.csv"):
    return rf"^{re.escape(name)} gives {n} of 10 images a label \({names}\)\.$"


CASES = [
    # How it is written
    Case("commas", with_csv(USUAL), ALL, remarks=(GIVES, FEW), classes=("cat", "dog")),
    Case("semicolons", with_csv(table(*rows(sign=";"), header="image;label")), ALL, remarks=(GIVES, FEW)),
    Case("tabs", with_csv(table(*rows(sign="\t"), header="image\tlabel")), ALL, remarks=(GIVES, FEW)),
    Case("tsv", FLAT | {"labels.tsv": table(*rows(sign="\t"), header="image\tlabel")}, ALL,
         remarks=(of(10, name="labels.tsv"), FEW)),
    Case("a BOM and Windows' ends of lines", with_csv(b"\xef\xbb\xbf" + table(*rows(), end="\r\n").encode()), ALL,
         remarks=(GIVES, FEW)),
    Case("old ends of lines", with_csv(table(*rows(), end="\r")), ALL, remarks=(GIVES, FEW)),
    Case("UTF-16, as Excel's Unicode text", with_csv(table(*rows(sign="\t"), header="image\tlabel").encode("utf-16")),
         ALL, remarks=(GIVES, FEW)),
    Case("sep=;", with_csv("sep=;\r\n" + table(*rows(sign=";"), header="image;label")), ALL, remarks=(GIVES, FEW)),
    Case("quotes, blanks, empty lines", with_csv(table(*[f'"{n}",{k} ' for n, k in zip(NAMES, KINDS, strict=True)], "",
         header='"image", label ')), ALL, remarks=(GIVES, FEW)),
    Case("parquet", FLAT | {"labels.parquet": parquet(image=NAMES, label=KINDS)}, ALL,
         remarks=(of(10, name="labels.parquet"), FEW)),
    Case("parquet of numbers with gaps",
         FLAT | {"labels.parquet": parquet(image=NAMES, label=[1.0, 3.0] * 4 + [None] * 2)},
         {"train": {"1": 4, "3": 4, "": 2}}, remarks=(of(8, name="labels.parquet"), few(8))),
    Case("Latin-1", with_csv(table(*rows(kinds=["Kätzchen", "Hund"] * 5)).encode("latin-1")),
         "labels.csv is not in UTF-8. Save it as CSV in UTF-8"),
    Case("broken quotes", with_csv('image,label\n"00.png,cat\n01.png,dog\n'), "labels.csv cannot be read as a table"),
    Case("zeros", with_csv(b"image,label\n\0\0\0,1\n"), "labels.csv (cannot be read as a table|names no image)"),
    Case("no parquet", FLAT | {"labels.parquet": b"PAR1 but no more"}, r"labels.parquet cannot be read \(Arrow"),
    Case("commas within labels", with_csv("image,label\n00.png,cat, black\n"),
         "cannot be read as a table: line 2 has more cells than the header. Save it again"),
    Case("empty cells beyond the header", with_csv(table(*[f"{row},," for row in rows()])), ALL, remarks=(GIVES,
         FEW)),
    Case("empty file", with_csv(""), "labels.csv has the columns : one named image, .* and one named label are needed"),
    Case("header only", with_csv("image,label\n"), "labels.csv names no image that is there: it has 'nothing'"),
    Case("no header", with_csv("\n".join(rows())), "labels.csv has the columns 00.png, cat: one named image"),
    Case("no labels, no groups", with_csv("image\n00.png\n"), "has the columns image: one named image"),
    Case("two columns of a name", with_csv(table("00.png,cat,dog", header="image,label,label")),
         "labels.csv has two columns named 'label'. Keep one"),
    # Names of columns
    Case("HAM10000", FLAT | {"HAM10000_metadata.csv": table(*[f"HAM_{i},{i:02},{k},vidir" for i, k in enumerate(KINDS)],
         header="lesion_id,image_id,dx,dataset")}, ALL,
         remarks=(of(10, "image from 'image_id', label from 'dx', group from 'lesion_id'", "HAM10000_metadata.csv"),
                  "^Its column 'dataset' is not used", FEW)),
    Case("usual names in capitals", FLAT | {"x.csv": table(*rows(), header="File Name,Finding Labels")}, ALL,
         remarks=(of(10, "image from 'File Name', label from 'Finding Labels'", "x.csv"), FEW)),
    Case("folds", with_csv(table(*[f"{r},{i % 5}" for i, r in enumerate(rows())], header="image,label,fold")), ALL,
         remarks=(GIVES, "^Its column 'fold' is not used: it holds other words than train, val and test", FEW)),
    Case("a set column that holds splits", with_csv(table(*[f"{r},{'TEST' if i > 7 else 'Training'}" for i, r in
         enumerate(rows())], header="image,label,set")), GIVEN, remarks=("split from 'set'",)),
    # Names of images
    Case("without ending", with_csv(table(*rows([n[:2] for n in NAMES]))), ALL, remarks=(GIVES, FEW)),
    Case("in other capitals", with_csv(table(*rows([n.upper() for n in NAMES]))), ALL, remarks=(GIVES, FEW)),
    Case("absolute", with_csv(table(*rows([f"/home/me/data/{n}" for n in NAMES]))), ALL, remarks=(GIVES, FEW)),
    Case("of Windows", with_csv(table(*rows([f"C:\\data\\{n}" for n in NAMES]))), ALL, remarks=(GIVES, FEW)),
    Case("with ./", with_csv(table(*rows([f"./{n}" for n in NAMES]))), ALL, remarks=(GIVES, FEW)),
    Case("umlauts, composed otherwise",
         {f"u\u0308{n}": ... for n in NAMES} | {"labels.csv": table(*rows([f"ü{n}" for n in NAMES]))}, ALL,
         remarks=(GIVES, FEW)),
    Case("of images in a folder", {"images": 10, "labels.csv": USUAL}, ALL, remarks=(GIVES, FEW)),
    Case("a table in a folder", {"images": 10, "meta/labels.csv": USUAL}, ALL,
         remarks=(of(10, name="meta/labels.csv"), FEW)),
    Case("images in train and test", {"train": 8, "test": 2, "labels.csv": table(*rows(
         [f"train/{i:02}.png" for i in range(8)] + ["test/00.png", "test/01.png"]))}, GIVEN, remarks=(GIVES,)),
    Case("that may be of two images", {"a": 5, "b": 5, "labels.csv": USUAL},
         "labels.csv: '00.png' may be 'a/00.png' or 'b/00.png'. Write the folders, and the ending"),
    Case("two endings", {"a.png": ..., "a.bmp": ..., "labels.csv": table("a,cat")}, "'a' may be 'a.bmp' or 'a.png'"),
    Case("in another folder than they are", {"train": 10, "labels.csv": table(*rows([f"test/{n}" for n in NAMES]))},
         "names no image that is there: it has 'test/00.png', and there is 'train/00.png'"),
    Case("of no image", with_csv(table("a.png,cat")), "it has 'a.png', and there is '00.png'"),
    Case("of some images that are missing", with_csv(table(*rows(), "x.png,cat", "y.png,dog")), ALL,
         remarks=(GIVES, "^2 rows name an image that is not there", FEW)),
    Case("twice, alike", with_csv(table(*rows(), "00,cat")), ALL, remarks=(GIVES, FEW)),
    Case("twice, not alike", with_csv(table(*rows(), "00.png,dog")), "two rows for '00.png' that differ. Keep one"),
    # Labels
    Case("1.0 and 2.0", with_csv(table(*rows(kinds=["1.0", "2.0"] * 5))),
         {"train": {"1": 5, "2": 5}}, remarks=(GIVES, FEW), classes=("1", "2")),
    Case("001 and 1e3 are names", with_csv(table(*rows(kinds=["001", "1e3"] * 5))),
         {"train": {"001": 5, "1e3": 5}}, remarks=(GIVES, FEW)),
    Case("none, in seven ways", {".": 17, "labels.csv": table(*rows(), *[f"{i},{word}" for i, word in zip(range(10, 17),
         ("", "nan", "-1", "-1.0", "NA", "NULL", "<NA>"), strict=True)])},
         {"train": {"cat": 5, "dog": 5, "": 7}},
         remarks=("gives 10 of 17 images a label", FEW)),
    Case("None is a class", with_csv(table(*rows(kinds=["None", "dog"] * 5))),
         {"train": {"None": 5, "dog": 5}}, remarks=(GIVES, FEW)),
    Case("of some images", with_csv(table(*rows()[:6])), {"train": {"cat": 3, "dog": 3, "": 4}},
         remarks=(of(6), few(6))),
    Case("of one class", with_csv(table(*rows(kinds=["cat", ""] * 5))), {"train": {"": 8}, "test": {"": 2}},
         remarks=(of(5), "All labels are cat", HELD_OUT)),
    Case("all different", with_csv(table(*rows(kinds=range(10)))), {"train": {"": 8}, "test": {"": 2}},
         remarks=(GIVES, "No two of the 10 labels are alike, so they are no classes", HELD_OUT)),
    Case("of many images",
         {".": 510, "labels.csv": table(*rows([f"{i:02}" for i in range(500)], ["cat", "dog"] * 250))},
         {"train": {"cat": 200, "dog": 200, "": 10}, "test": {"cat": 50, "dog": 50}},
         remarks=("gives 500 of 510", r"no test images: 100 of 500 labelled images were drawn by seed 0\.$")),
    Case("all empty", with_csv(table(*rows(kinds=[""] * 10))), {"train": {"": 8}, "test": {"": 2}},
         remarks=(of(0), HELD_OUT)),
    Case("of test images only", {"train": 8, "test": 4,
         "labels.csv": table(*[f"test/{i:02},{'ab'[i % 2]}" for i in range(4)])},
         {"train": {"": 8}, "test": {"": 4}},
         remarks=("^labels.csv gives 4 of 12 images", "Only validation or test images have labels")),
    Case("instead of folders", {"a/b": 5, "c/d": 5, "labels.csv": table(*rows(
         [f"{f}/{i:02}.png" for f in ("a/b", "c/d") for i in range(5)]))}, ALL, remarks=(GIVES, FEW)),
    Case("of one folder only", {"cat": 5, "dog": 5, "labels.csv": table(*rows([f"cat/{i:02}" for i in range(5)],
         ["a", "b"] * 2 + ["a"]))}, {"train": {"a": 3, "b": 2, "": 5}}, remarks=(of(5), few(5))),
    Case("markup", with_csv(table(*rows(kinds=["<script>", "=1+1"] * 5))),
         {"train": {"_script_": 5, "_1+1": 5}}, remarks=(GIVES, FEW)),
    # Splits and groups
    Case("splits", with_csv(table(*[f"{r},{s}" for r, s in zip(rows(), SPLITS, strict=True)],
         header="image,label,split")),
         {"train": {"cat": 3, "dog": 3}, "val": {"cat": 1, "dog": 1}, "test": {"cat": 1, "dog": 1}},
         remarks=("split from 'split'",)),
    Case("an odd word as split", with_csv(table("00.png,cat,holdout", header="image,label,split")),
         "labels.csv: 'holdout' is no split. Write train, val or test"),
    Case("a split of train folders that the table tells", {"train": 10, "more": 2, "labels.csv": table(*rows(
         [f"train/{n}" for n in NAMES]))}, ALL, remarks=(GIVES, FEW),
         left_out={("more", "beside the folders of the splits"): 2}),
    Case("groups", with_csv(table(*[f"{r},p{i // 2}" for i, r in enumerate(rows())], header="image,label,patient_id")),
         ALL, remarks=("group from 'patient_id'", FEW)),
    Case("groups only", with_csv(table(*[f"{n},p{i // 2}" for i, n in enumerate(NAMES)], header="image,group")),
         {"train": {"": 8}, "test": {"": 2}}, remarks=("^labels.csv is used", HELD_OUT)),
    Case("groups that are empty are none", with_csv(table(*[f"{r},{'nan' if i else ''}" for i, r in enumerate(rows())],
         header="image,label,patient")), ALL, remarks=("group from 'patient'", "10 images are in no group", FEW)),
    # Several tables
    Case("labels.csv and others", with_csv(USUAL, **{"x.csv": table(*rows(kinds=KINDS[::-1])), "y.csv": "a,b\n"}),
         ALL, remarks=(GIVES, FEW), left_out={("", "tables that are not used"): 2}),
    Case("two that fit", FLAT | {"a.csv": USUAL, "b.csv": USUAL}, "several tables of labels, a.csv and b.csv. Keep"),
    Case("two named labels", with_csv(USUAL, **{"labels.tsv": USUAL}), "labels.csv and labels.tsv. Keep one"),
]  # fmt: skip


@parametrised(CASES)
def test_a_table(case, tmp_path):
    check(case, tmp_path)


def test_each_image_gets_its_label_split_and_group(tmp_path):
    said = {
        f"{i:02}.png": (f"c{i % 3}" if i % 5 else "", ("train", "val", "test")[i % 7 % 3], f"g{i % 4}")
        for i in range(40)
    }
    put(tmp_path, {"images": 40})
    lines = [f"{name},{','.join(of)}" for name, of in sorted(said.items(), reverse=True)]
    text = "\n".join(["file,y,subset,subject", *lines])
    (tmp_path / "labels.csv").write_text(text)
    images = load_images(tmp_path)
    seen = {}
    validation = set(images.validation.tolist())
    for i, (name, label) in enumerate(zip(images.train_names, images.train_labels.tolist(), strict=True)):
        label = images.classes[label] if label >= 0 else ""
        seen[name.removeprefix("images/")] = (label, "val" if i in validation else "train")
        assert (images.train[i, 0].numpy() == noise(name)).all()
    for i, (name, label) in enumerate(zip(images.test_names, images.test_labels.tolist(), strict=True)):
        seen[name.removeprefix("images/")] = (images.classes[label], "test")
        assert (images.test[i, 0].numpy() == noise(name)).all()
    expected = {n: (label, "train" if not label and s == "val" else s) for n, (label, s, _) in said.items()}
    assert seen == {n: of for n, of in expected.items() if of != ("", "test")}
    groups = {}
    for name, group in zip(images.train_names, images.groups.tolist(), strict=True):
        groups.setdefault(group, set()).add(said[name.removeprefix("images/")][2])
    assert sorted(map(len, groups.values())) == [1] * 4
    assert images.straddling == 4


def test_the_order_of_the_rows_plays_no_part(tmp_path):
    put(tmp_path / "a", with_csv(USUAL))
    put(tmp_path / "b", with_csv(table(*rows()[::-1])))
    a, b = load_images(tmp_path / "a"), load_images(tmp_path / "b")
    assert (a.sha256, a.train_names) == (b.sha256, b.train_names)


def test_a_label_that_is_added_or_changed_is_read_without_decoding_anew(tmp_path, fresh_runs, monkeypatch):
    put(tmp_path / "x", with_csv(table(*rows()[:8])))
    before = load_images(tmp_path / "x")
    caches = sorted(fresh_runs.glob("cache/images-*"))
    assert len(caches) == 1
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "decode", None)
        (tmp_path / "x" / "labels.csv").write_text(USUAL)
        after = load_images(tmp_path / "x")
    assert (before.n_labels, after.n_labels) == (8, 10)
    assert before.sha256 != after.sha256
    assert sorted(fresh_runs.glob("cache/images-*")) == caches


def test_a_picture_that_was_edited_is_noticed(tmp_path, fresh_runs):
    put(tmp_path / "x", with_csv(USUAL))
    before = load_images(tmp_path / "x")
    path = tmp_path / "x" / before.train_names[3]
    status = path.stat()
    content = (tmp_path / "x" / before.train_names[5]).read_bytes()
    assert len(content) == status.st_size  # nothing but the content tells, and the time that cannot be set
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = load_images(tmp_path / "x")
    assert after.sha256 != before.sha256
    assert (after.train[3] == before.train[5]).all()
    assert rows_of(after) == rows_of(before)


def test_too_many_classes(tmp_path):
    put(tmp_path, {".": 1202})
    text = table(*[f"{i:02}.png,{i % 1001}" for i in range(1202)])
    (tmp_path / "labels.csv").write_text(text)
    refused(tmp_path, "has 1,001 different labels; at most 1,000 can be told apart. .*parameter group")


def test_a_table_for_some_images_leaves_the_classes_of_folders(tmp_path):
    put(tmp_path, {"cat": 10, "dog": 10, "unlabeled": 4})
    names = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "unlabeled").iterdir())
    (tmp_path / "labels.csv").write_text("image,label\n" + f"{names[0]},cat\n{names[1]},dog\n")
    images = load_images(tmp_path)
    assert images.classes == ("cat", "dog")
    assert (images.n_labels, len(images.test)) == (22, 0)
    # Other words than the folders': these are no classes then, but cameras, say
    (tmp_path / "labels.csv").write_text(
        "image,label\n" + "".join(f"{name},{'xy'[i % 2]}\n" for i, name in enumerate(names))
    )
    images = load_images(tmp_path)
    assert images.classes == ("x", "y")
    assert (images.n_labels, len(images.test)) == (4, 0)


def test_a_few_labels_are_no_worse_than_none(tmp_path):
    put(tmp_path, {"scans": 100})
    names = sorted(path.name for path in (tmp_path / "scans").iterdir())
    for n, n_test, few in ((0, 20, False), (3, 19, True), (20, 16, True), (21, 0, True), (50, 0, True)):
        rows = "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names[:n]))
        (tmp_path / "labels.csv").write_text(f"image,label\n{rows}" if n else "image,label\nx,\n")
        if not n:
            (tmp_path / "labels.csv").unlink()
        images = load_images(tmp_path)
        # No label is lost; images to look at are taken of those without one, where they are 80 at least.
        assert (images.n_labels, len(images.train), len(images.test)) == (n, 100 - n_test, n_test)
        assert (images.test_labels == -1).all()
        assert images.cross_validated == few
        assert any("are cross-validated" in remark for remark in images.account.remarks) == few
        assert (f"{n_test} images, drawn by seed 0, were held out to look at." in images.account.remarks) == (
            n_test > 0
        )
        assert len(images.to_look_at(8)[0]) == 8
