"""Arrays from .npz and .npy files, IDX files and Python: what their numbers mean, and what is refused."""

import os

import numpy as np
import pytest
import torch

from contrastive import UserError, load_images

from .source_cases import Case, check, parametrised, rows_of

RNG = np.random.default_rng(0)
N, M = 40, 8  # images to train on, and to test on
PIXELS = RNG.integers(0, 256, (N + M, 12, 10), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (N + M, 12, 10, 3), dtype=np.uint8)
KINDS = np.arange(N + M) % 2
READ = {"train": {"0": 20, "1": 20}, "test": {"0": 4, "1": 4}}
UNLABELLED = {"train": {"": N}, "test": {"": M}}


class Attack:
    """Pickled, it is a command."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def parts(images=PIXELS, labels=KINDS, **more):
    found = {"train_images": images[:N], "test_images": images[N:]}
    if labels is not None:
        found |= {"train_labels": labels[:N], "test_labels": labels[N:]}
    return {name: array for name, array in (found | more).items() if array is not None}


def npz(save=np.savez, name="x.npz", **arrays):
    def make(root):
        with (root / name).open("wb") as file:
            save(file, **arrays)
        return root / name

    return make


def npy(array, name="x.npy"):
    def make(root):
        with (root / name).open("wb") as file:
            np.save(file, array)
        return root / name

    return make


def named(prefix, a="images", b="labels"):
    of = {"train": slice(0, N), "test": slice(N, None)}
    return {prefix(part, what): array[s] for part, s in of.items() for what, array in ((a, PIXELS), (b, KINDS))}


def classes(a, b):
    return {"train": {a: 20, b: 20}, "test": {a: 4, b: 4}}


ONE_HOT, MANY = np.eye(2, dtype=np.int64)[KINDS], RNG.integers(0, 2, (N + M, 14))
WORDS, FLOATS = np.array(["no", "yes"])[KINDS], PIXELS / np.float32(255)
HALF = np.where(np.arange(N + M) < 10, -1, KINDS)
HALF_READ = {"train": {"0": 15, "1": 15, "": 10}, "test": {"0": 4, "1": 4}}
FEW = r"no test images, and 40 training images have a label: .*\. So classifiers are cross-validated on the labelled im"
ALL = {"train": {"0": 20, "1": 20}}  # of so few labelled images none are drawn to test on
HELD_OUT = "^8 images, drawn by seed 0, were held out"

CASES = [
    # Names
    Case("as MedMNIST has them", npz(**parts(labels=KINDS[:, None])), READ, classes=("0", "1")),
    Case("compressed", npz(np.savez_compressed, **parts()), READ),
    Case("capitals in the ending", npz(name="X.NPZ", **parts()), READ),
    Case("x_train", npz(**named(lambda part, what: f"{what}_{part}", "x", "y")), READ),
    Case("X-train", npz(**named(lambda part, what: f"{what}-{part}", "X", "Y")), READ),
    Case("train_image", npz(**named(lambda part, what: f"{part}_{what}", "image", "target")), READ),
    Case("training_images", npz(**named(lambda part, what: f"{part}ing_{what}")), READ),
    Case("images and labels", npz(images=PIXELS[:N], labels=KINDS[:N]), ALL, remarks=(FEW,)),
    Case("images and test_images", npz(images=PIXELS[:N], labels=KINDS[:N], test_images=PIXELS[N:],
         test_labels=KINDS[N:]),
         READ),
    Case("val", npz(**parts(), val_images=PIXELS[:4], val_labels=KINDS[:4]), READ | {"val": {"0": 2, "1": 2}}),
    Case("validation", npz(**parts(), validation_images=PIXELS[:4], validation_labels=KINDS[:4]),
         READ | {"val": {"0": 2, "1": 2}}),
    Case("val without labels", npz(**parts(), val_images=PIXELS[:4]), {"train": READ["train"] | {"": 4}, "test":
         READ["test"]}, remarks=("^4 validation images have no label",)),
    Case("val, no test", npz(**parts(test_images=None, test_labels=None), val_images=PIXELS[:4], val_labels=KINDS[:4]),
         ALL | {"val": {"0": 2, "1": 2}}, remarks=(FEW,)),
    Case("an empty val", npz(**parts(), val_images=PIXELS[:0], val_labels=KINDS[:0]), READ,
         remarks=("^Arrays that are not used: val_images, val_labels",)),
    Case("labels of images that lack", npz(**parts(), val_labels=KINDS[:4]), READ,
         remarks=("^Arrays that are not used: val_labels",)),
    Case("other arrays", npz(**parts(), mean=np.zeros(3), **{"<b>": np.zeros(2)}), READ,
         remarks=("^Arrays that are not used: mean, _b_",)),
    Case("one array of any name", npz(arr_0=PIXELS[:N]), {"train": {"": 32}, "test": {"": 8}}, remarks=(HELD_OUT,)),
    Case("two arrays without names", npz(arr_0=PIXELS, arr_1=KINDS), "lacks train_images: it holds arr_0, arr_1"),
    Case("test only", npz(test_images=PIXELS, test_labels=KINDS),
         "lacks train_images: it holds test_images, test_labels"),
    Case("two of a kind", npz(**parts(), x_train=PIXELS), "several arrays of train images, train_images and x_train"),
    Case("none", npz(), "lacks train_images: it holds nothing"),
    # Shapes
    Case("in colour", npz(**parts(COLOUR)), READ),
    Case("N x C x H x W", npz(**parts(COLOUR.transpose(0, 3, 1, 2))), READ),
    Case("N x H x W x 1", npz(**parts(PIXELS[..., None])), READ),
    Case("order of Fortran", npz(**parts(np.asfortranarray(PIXELS))), READ),
    Case("splits of two sizes", npz(**parts(test_images=PIXELS[N:, :9])), READ),
    Case("one image in colour", npy(COLOUR[0]), "of the shape 12 x 10 x 3: N x H x W, .* is needed"),
    Case("one image", npy(PIXELS[0]), "images are uint8 of the shape 12 x 10: N x H x W"),
    Case("volumes", npz(**parts(np.zeros((N + M, 12, 12, 12), np.uint8))),
         "train images are uint8 of the shape 40 x 12 x 12 x 12: N x H x W, .* with C 1 or 3"),
    Case("5-D", npz(**parts(np.zeros((N + M, 4, 12, 12, 3), np.uint8))), "the shape 40 x 4 x 12 x 12 x 3"),
    Case("four channels", npz(**parts(np.zeros((N + M, 12, 12, 4), np.uint8))), "the shape 40 x 12 x 12 x 4"),
    Case("C may be the first or the last", npz(**parts(np.zeros((N + M, 3, 12, 3), np.uint8))), "40 x 3 x 12 x 3"),
    Case("empty", npz(train_images=PIXELS[:0]), "train images are uint8 of the shape 0 x 12 x 10"),
    Case("grey and colour", npz(**parts(test_images=COLOUR[N:])), "some splits have one channel, of others three"),
    # Pixels
    Case("floats from 0 to 1", npz(**parts(FLOATS)), READ, remarks=("float32 from 0 to 1: 1 is taken for white",)),
    Case("doubles from 0 to 255", npz(**parts(PIXELS.astype(np.float64))), READ, remarks=("range of 8 bits",)),
    Case("int64 from 0 to 255", npz(**parts(PIXELS.astype(np.int64))), READ, remarks=("range of 8 bits",)),
    Case("uint16", npz(**parts(PIXELS.astype(np.uint16) * 16)), READ, remarks=("uint16 from 0 to 4080, and are scaled",
         )),
    Case("big endian", npz(**parts(PIXELS.astype(">u2") * 16)), READ, remarks=("from 0 to 4080, and are scaled",)),
    Case("floats about 0", npz(**parts(FLOATS - 0.5)), READ, remarks=("from -0.5 to 0.5, and are scaled",)),
    Case("bool", npz(**parts(PIXELS > 127)), READ, remarks=("true or false: taken for white and black",)),
    Case("0 and 1", npz(**parts((PIXELS > 127).astype(np.uint8))), READ, remarks=("0 and 1: taken for black and white",
         )),
    Case("NaN", npz(**parts(np.where(PIXELS == 7, np.nan, FLOATS))), "some pixels are not finite numbers"),
    Case("infinite", npz(**parts(np.where(PIXELS == 7, np.inf, FLOATS))), "some pixels are not finite numbers"),
    Case("complex", npz(**parts(FLOATS + 1j)), "pixels are complex64. Numbers are needed"),
    Case("structured", npz(**parts(np.zeros((N + M, 12, 10), [("a", "u1"), ("b", "u1")]))), "Numbers are needed"),
    Case("text", npz(**parts(np.full((N + M, 12, 10), "x"))), "pixels are <U1. Numbers are needed"),
    Case("train of bytes, test of floats", npz(**parts(test_images=FLOATS[N:])),
         "pixels are float32 and uint8, in diff"),
    Case("train from 0 to 1, test to 255", npz(**parts(FLOATS, test_images=PIXELS[N:] * np.float32(1))),
         "pixels of one split reach 1, of another 255"),
    # Labels
    Case("no labels", npz(**parts(labels=None)), UNLABELLED),
    Case("labels of training images only", npz(**parts(test_labels=None)), ALL,
         remarks=("^8 test images have no label", FEW),
         left_out={("test", "test images without a label"): 8}),
    Case("from 1", npz(**parts(labels=KINDS + 1)), classes("1", "2"), classes=("1", "2")),
    Case("a gap", npz(**parts(labels=KINDS * 9)), classes("0", "9"), classes=("0", "9")),
    Case("huge", npz(**parts(labels=KINDS.astype(np.uint64) * (2**64 - 1))), classes("0", str(2**64 - 1))),
    Case("floats", npz(**parts(labels=KINDS * 1.0)), READ),
    Case("bool labels", npz(**parts(labels=KINDS > 0)), classes("False", "True")),
    Case("words", npz(**parts(labels=WORDS)), classes("no", "yes"), classes=("no", "yes")),
    Case("bytes", npz(**parts(labels=WORDS.astype("S"))), classes("no", "yes")),
    Case("one-hot", npz(**parts(labels=ONE_HOT)), READ),
    Case("1 x N", npz(**parts(labels=None, train_labels=KINDS[None, :N], test_labels=KINDS[None, N:])), READ),
    Case("-1 for none", npz(**parts(labels=HALF)), HALF_READ),
    Case("NaN for none", npz(**parts(labels=np.where(HALF < 0, np.nan, HALF))), HALF_READ),
    Case("empty text for none", npz(**parts(labels=np.where(HALF < 0, "", WORDS))),
         {"train": {"no": 15, "yes": 15, "": 10}, "test": {"no": 4, "yes": 4}}),
    Case("all are -1", npz(**parts(labels=KINDS * 0 - 1)), UNLABELLED),
    Case("multi-label", npz(**parts(labels=MANY)), UNLABELLED,
         remarks=(r"14 labels that are yes or no \(multi-label\)",)),
    Case("all alike", npz(**parts(labels=KINDS * 0)), UNLABELLED, remarks=("All labels are 0",)),
    Case("all different", npz(**parts(labels=np.arange(N + M))), UNLABELLED, remarks=("No two of the 48 labels",)),
    Case("-1 and 1", npz(**parts(labels=KINDS * 2 - 1)), "labels are -1, 1: here -1 means that there is no label"),
    Case("-2 and 0", npz(**parts(labels=KINDS * 2 - 2)), "labels are -2, 0: here -1 means"),
    Case("halves", npz(**parts(labels=KINDS * 0.5)), "labels such as 0.5 are no classes"),
    Case("infinite labels", npz(**parts(labels=np.where(KINDS, np.inf, 0))), "labels such as inf are no classes"),
    Case("complex labels", npz(**parts(labels=KINDS * 1j)), "labels are complex128. Whole numbers or text"),
    Case("too few labels", npz(**parts(train_labels=KINDS[:39])), "train labels have the shape 39 for 40 images"),
    Case("twice as many labels", npz(**parts(train_labels=np.tile(KINDS[:N], 2))), "have the shape 80 for 40 images"),
    Case("labels as N columns", npz(**parts(train_labels=ONE_HOT[:N].T)), "have the shape 2 x 40 for 40 images"),
    Case("a single label", npz(**parts(train_labels=np.array(3))), "have the shape no for 40 images"),
    Case("labels of several numbers", npz(**parts(labels=MANY * 2)), "labels are int64 of 14 columns"),
    Case("one-hot and plain", npz(**parts(test_labels=ONE_HOT[N:])),
         "some splits have one label an image, some several"),
    Case("a class of test images only", npz(**parts(test_labels=KINDS[N:] + 1)), "class '2' has test images, but none"),
    Case("a thousand classes and one", npz(images=np.zeros((2002, 8, 8), np.uint8), labels=np.arange(2002) // 2),
         "has 1,001 different labels; at most 1,000"),
    # Groups
    Case("groups", npz(images=PIXELS[:N], labels=KINDS[:N], groups=np.arange(N) // 4), ALL, remarks=(FEW,)),
    Case("groups of splits", npz(**parts(), train_groups=np.arange(N) // 4, test_groups=np.arange(M)), READ),
    Case("too few groups", npz(**parts(), train_groups=np.arange(9)),
         "9 groups for 40 train images. Give one for each"),
    Case("the parameter group", npz(**parts()), "group='p' is looked for in names of files", {"group": "p"}),
    # .npy
    Case("npy", npy(PIXELS[:N]), {"train": {"": 32}, "test": {"": 8}}, remarks=(HELD_OUT,)),
    Case("NPY in capitals", npy(PIXELS[:N], "X.NPY"), {"train": {"": 32}, "test": {"": 8}}, remarks=(HELD_OUT,)),
    Case("npy of objects", npy(np.array([Attack()] * N)), "x.npy cannot be read as .npy .it holds Python objects"),
    Case("npz of objects", npz(**parts(train_labels=np.array([Attack()] * N))), "train_labels holds Python objects"),
    Case("no npz", lambda root: (root / "x.npz").write_bytes(b"PK\3\4 no more") and root / "x.npz",
         r"x.npz cannot be read as .npz \(BadZipFile\). Write it anew by numpy.savez"),
    Case("no npy", lambda root: (root / "x.npy").write_bytes(b"\x93NUMPY\1") and root / "x.npy",
         "Write it anew by numpy.save."),
]  # fmt: skip


@parametrised(CASES)
def test_an_array_file(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(case, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_pixels_and_labels_are_those_of_the_array(tmp_path):
    np.savez(tmp_path / "x.npz", **parts(COLOUR, KINDS * 9), val_images=COLOUR[:6], val_labels=KINDS[:6] * 9)
    images = load_images(tmp_path / "x.npz")
    assert np.array_equal(images.train, np.concatenate([COLOUR[:N], COLOUR[:6]]).transpose(0, 3, 1, 2))
    assert np.array_equal(images.test, COLOUR[N:].transpose(0, 3, 1, 2))
    assert images.train_labels.tolist() == [*KINDS[:N], *KINDS[:6]]
    assert images.test_labels.tolist() == KINDS[N:].tolist()
    assert images.validation.tolist() == list(range(N, N + 6))
    assert images.name == "x"


@pytest.mark.parametrize(
    ("pixels", "low", "high"),
    [
        (FLOATS, 0, 1),
        (PIXELS.astype(np.int32), 0, 255),
        ((PIXELS > 99) * np.uint8(1), 0, 1),
        (PIXELS > 99, 0, 1),
        (FLOATS * 4 - 2, -2, 2),
        (PIXELS.astype(np.uint16) * 16, 0, 4080),
    ],
)
def test_numbers_become_grey_levels(pixels, low, high):
    images = load_images(pixels, window=f"{low}:{high}")
    seen = np.zeros(PIXELS.shape)
    for part, names in ((images.train, images.train_names), (images.test, images.test_names)):
        for x, name in zip(part, names, strict=True):
            seen[int(name.split()[1])] = x[0]
    expected = (pixels.astype(np.float64) - low) / (high - low) * 255
    assert abs(seen - expected).max() <= 0.51


# --- From Python ----------------------------------------------------------------------------------------------------


def test_arrays_from_python():
    images = load_images(list(PIXELS[:N]), labels=["no", None] * 10 + ["yes", float("nan")] * 10, split_seed=3)
    assert rows_of(images) == {"train": {"no": 10, "yes": 10, "": 20}}
    assert images.cross_validated
    assert images.name == "array"
    same = load_images(torch.from_numpy(PIXELS[:N]), labels=["no", ""] * 10 + ["yes", "-1"] * 10, split_seed=3)
    assert same.sha256 == images.sha256
    many, of = np.random.default_rng(1).integers(0, 256, (576, 8, 8), np.uint8), np.arange(576) % 2
    seen = [load_images(many, labels=of, split_seed=seed).test_names for seed in (3, 3, 4)]
    assert len(seen[0]) == 2 * 58
    assert seen[0] == seen[1] != seen[2]
    mixed = load_images(PIXELS[:N], labels=[1, None] * 10 + [2.0, None] * 10, groups=[f"p{i // 4}" for i in range(N)])
    assert mixed.classes == ("1", "2")
    assert len(mixed.groups) == len(mixed.train) == N
    assert [mixed.group_names[g] for g in mixed.groups] == [f"p{i // 4}" for i in range(N)]
    for given, said in (
        ({"labels": [1, 2]}, "train labels have the shape 2 for 40 images"),
        ({"groups": [1, 2]}, "2 groups for 40 train images"),
        ({"group": "p"}, "the array holds arrays"),
    ):
        with pytest.raises(UserError, match=said):
            load_images(PIXELS[:N], **given)
    with pytest.raises(UserError, match=r"images are no array: .*Give one array"):
        load_images([PIXELS[0], PIXELS[1, :5]])
    with pytest.raises(UserError, match=r"images are no array: .*Give one array"):
        load_images(torch.rand(9, 9, 9, requires_grad=True))
    with pytest.raises(UserError, match="labels and groups belong to arrays"):
        load_images("digits", labels=[1])


def test_the_checksum_of_data_tells_shapes_apart(tmp_path):
    flat = RNG.integers(0, 256, 60 * 16 * 18, dtype=np.uint8)
    sums = set()
    for height, width in ((16, 18), (18, 16)):
        x, y = flat.reshape(60, height, width), np.arange(60) % 2
        np.savez(tmp_path / f"{width}.npz", train_images=x, train_labels=y, test_images=x, test_labels=y)
        sums.add(load_images(tmp_path / f"{width}.npz").sha256)
    assert len(sums) == 2
