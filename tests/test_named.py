"""What is known of the data sets that have a name, and those of them that are there."""

import hashlib

import numpy as np
import pytest
from torchvision import datasets

from contrastive import UserError
from contrastive.data import cifar, medmnist, mnist, named
from contrastive.data.idx import IDX_FILES, read_idx
from contrastive.data.named import NAMED, SHORT_NAMES, ensure_named, named_note
from contrastive.settings import data_root

from .conftest import HAVE_MNIST
from .loopback import loopback_only  # noqa: F401 - a fixture for all tests here

PNEUMONIA = data_root() / "pneumoniamnist.npz"
LICENCES = {"CC BY-SA 3.0": 1, "CC BY-SA 4.0": 1, "MIT licence": 1, "no licence": 1, "CC BY 4.0": 44, "CC BY-NC 4.0": 4}


def test_the_names():
    assert SHORT_NAMES == (
        "mnist", "fashion_mnist", "kmnist", "cifar10", "pathmnist", "chestmnist", "dermamnist", "octmnist",
        "pneumoniamnist", "retinamnist", "breastmnist", "bloodmnist", "tissuemnist", "organamnist", "organcmnist",
        "organsmnist",
    )  # fmt: skip
    larger = {f"{name}_{side}" for name in SHORT_NAMES[4:] for side in (64, 128, 224)}
    assert set(NAMED) == {*SHORT_NAMES, *larger}
    assert NAMED["bloodmnist_64"].shape == (3, 64, 64)
    assert NAMED["bloodmnist_64"].place == "bloodmnist_64.npz"


def test_what_is_told_of_each():
    sums = [data.source.md5 for data in NAMED.values() if data.kind == "npz"]
    assert len(set(sums)) == len(sums) == 48
    assert all(len(md5) == 32 and int(md5, 16) for md5 in sums)
    for name, data in NAMED.items():
        assert data.name == name
        assert len(set(data.classes)) == len(data.classes) > 1
        assert all(0 < len(c) <= 40 for c in data.classes)  # longer ones are cut in figures
        assert data.about.startswith(f"{data.title}: ")
        assert "\n" not in data.about
    found = {licence: sum(licence in data.about for data in NAMED.values()) for licence in LICENCES}
    assert found == LICENCES
    assert [name for name in SHORT_NAMES if NAMED[name].multi_label] == ["chestmnist"]


@pytest.mark.parametrize("theirs", [datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST])
def test_torchvision_says_the_same(theirs):
    name = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist", "KMNIST": "kmnist"}[theirs.__name__]
    assert mnist.IDX_SETS[name].folder == theirs.__name__
    assert [file for file, _ in theirs.resources] == [f"{file}.gz" for file in IDX_FILES]
    if name == "kmnist":
        assert dict(theirs.resources) == {f"{file}.gz": md5 for file, md5 in mnist.KMNIST_PACKED_MD5.items()}
    told = [c.rpartition(" - ")[0] or c for c in theirs.classes]
    assert [c.lower() for c in told] == [c.lower() for c in NAMED[name].classes]


def test_every_mirror_is_asked_in_private():
    mirrors = [*medmnist.MIRRORS, *cifar.MIRRORS, *(one for mirrors in mnist.MIRRORS.values() for one in mirrors)]
    assert all(one.startswith("https://") and one.endswith("/") for one in mirrors)
    assert len(mirrors) >= 7


def test_an_unknown_name_is_answered_with_the_nearest(no_data):
    with pytest.raises(UserError, match=r"Did you mean 'pneumoniamnist'\?"):
        ensure_named("pneumonia_mnist", no_data)


# --- the real ones ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not PNEUMONIA.is_file(), reason="needs pneumoniamnist.npz")
def test_pneumoniamnist_as_it_is():
    assert ensure_named("pneumoniamnist", PNEUMONIA.parent) == PNEUMONIA
    data, known = np.load(PNEUMONIA), NAMED["pneumoniamnist"]
    assert (len(data["train_images"]), len(data["test_images"])) == known.n_images
    assert data["train_images"].shape[1:] == known.shape[1:]
    assert set(np.unique(data["train_labels"])) == set(range(len(known.classes)))
    original = hashlib.md5(PNEUMONIA.read_bytes()).hexdigest() == known.source.md5
    assert (named_note("pneumoniamnist", PNEUMONIA) == "") == original


@pytest.mark.skipif(not HAVE_MNIST, reason="needs MNIST")
def test_mnist_as_it_is():
    raw = ensure_named("mnist", PNEUMONIA.parent)
    assert named_note("mnist", raw) == ""
    assert (len(read_idx(raw / IDX_FILES[1])), len(read_idx(raw / IDX_FILES[3]))) == NAMED["mnist"].n_images
    assert "they are those of MNIST" in named.idx_note("fashion_mnist", raw)
