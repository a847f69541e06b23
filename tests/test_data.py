"""Data sets by name, and folders of IDX files: read as others read them, or told what is damaged."""

import shutil

import pytest
import torch
from torchvision import datasets

from contrastive import UserError, load_images
from contrastive.data import forget_images
from contrastive.data.idx import IDX_FILES
from contrastive.settings import data_root

from .conftest import HAVE_MNIST
from .mnist_files import small_set


@pytest.fixture
def folder(tmp_path):
    for name, content in small_set().items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_folder_of_idx_files(folder):
    images = load_images(str(folder))
    assert images.train.shape == (60, 1, 28, 28)
    assert images.train.dtype == images.test.dtype == torch.uint8
    assert images.train_labels.tolist() == [i % 10 for i in range(60)]
    assert images.classes == tuple("0123456789")
    assert images.name == folder.name
    assert images.mean[0] == pytest.approx(images.train.float().div(255).mean().item(), abs=1e-4)


def test_a_folder_does_not_take_the_name_of_a_known_data_set(folder, tmp_path):
    for inside, name in (("mnist", "mnist (folder)"), ("digits", "digits (folder)"), ("F/raw", "F")):
        (tmp_path / "copies" / inside).mkdir(parents=True)
        for file in IDX_FILES:
            shutil.copy(folder / file, tmp_path / "copies" / inside)
        images = load_images(str(tmp_path / "copies" / inside))
        assert images.name == name
        assert images.mean[0] != pytest.approx(0.1307, abs=1e-3)


def cut(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-3])


def swap(folder, a, b):
    content = (folder / a).read_bytes()
    (folder / a).write_bytes((folder / b).read_bytes())
    (folder / b).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "name", "said"),
    [
        (lambda f: cut(f, IDX_FILES[0]), IDX_FILES[0], "truncated"),
        (lambda f: cut(f, IDX_FILES[3]), IDX_FILES[3], "truncated"),
        (lambda f: (f / IDX_FILES[1]).write_bytes(b"hello, I am no IDX file"), IDX_FILES[1], "not an IDX file"),
        (lambda f: (f / IDX_FILES[2]).write_bytes(b""), IDX_FILES[2], "not an IDX file"),
        (lambda f: (f / IDX_FILES[2]).write_bytes(b"\0\0\x08\x03" + b"\xff" * 12), IDX_FILES[2], "truncated"),
        (lambda f: (f / IDX_FILES[2]).unlink(), IDX_FILES[2], "missing"),
        (lambda f: swap(f, IDX_FILES[0], IDX_FILES[1]), IDX_FILES[0], "swapped"),
        (lambda f: swap(f, IDX_FILES[1], IDX_FILES[3]), IDX_FILES[1], "swapped"),
    ],
)
def test_damaged_files_are_named(folder, damage, name, said):
    damage(folder)
    with pytest.raises(UserError) as caught:
        load_images(str(folder))
    assert str(folder / name) in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.skipif(not HAVE_MNIST, reason="needs MNIST")
def test_mnist(tmp_path):
    images = load_images("mnist")
    theirs = datasets.MNIST(data_root(), train=False)
    assert torch.equal(images.test[:, 0], theirs.data)
    assert torch.equal(images.test_labels, theirs.targets)
    assert images.train.shape == (60_000, 1, 28, 28)
    assert images.note == ""
    assert images.train.float().div(255).mean().item() == pytest.approx(images.mean[0], abs=1e-4)
    raw = data_root() / "MNIST" / "raw"
    for name in IDX_FILES:
        shutil.copy(raw / name, tmp_path / name)
    for a, b in zip(IDX_FILES[:2], IDX_FILES[2:], strict=True):
        swap(tmp_path, a, b)
    with pytest.raises(UserError, match="holds what belongs in"):
        load_images(str(tmp_path))


def test_digits_are_bundled():
    images = load_images("digits")
    assert images is load_images("sklearn_digits")
    assert (images.name, images.note) == ("sklearn_digits", "")
    assert images.train.shape == (1437, 1, 28, 28)
    assert images.test.shape == (360, 1, 28, 28)
    assert set(images.test_labels.tolist()) == set(range(10))
    assert images.train.max() == 255


def test_images_that_were_forgotten_are_loaded_again():
    images = load_images("sklearn_digits")
    assert load_images("sklearn_digits") is images
    forget_images()
    again = load_images("sklearn_digits")
    assert again is not images
    assert again.sha256 == images.sha256
