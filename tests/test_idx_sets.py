"""MNIST, Fashion-MNIST and KMNIST: four IDX files each, downloaded all or none, and recognised by their checksums."""

import gzip

import numpy as np
import pytest
from torchvision import datasets

from contrastive import UserError
from contrastive.data import mnist
from contrastive.data.download import NoNetworkError
from contrastive.data.idx import FASHION_MD5, IDX_FILES, read_idx
from contrastive.data.named import NAMED, ensure_named, named_note

from .loopback import fixture_serve, fixture_small_idx, loopback_only, visible  # noqa: F401 - fixtures
from .mnist_files import small_set


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_four_files_are_downloaded_as_torchvision_has_them(small_idx, no_data, capsys, name):
    raw = ensure_named(name, no_data)
    theirs = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}[name]
    assert raw == no_data / theirs.__name__ / "raw"
    for train, files in ((True, IDX_FILES[:2]), (False, IDX_FILES[2:])):
        loaded = theirs(no_data, train=train)
        assert np.array_equal(read_idx(raw / files[0]), loaded.data.numpy())
        assert np.array_equal(read_idx(raw / files[1]), loaded.targets.numpy())
    assert named_note(name, raw) == ""
    assert capsys.readouterr().err == f"NOTE: fetching {NAMED[name].title} into {raw}\n"
    assert [path for path in raw.parent.iterdir() if path.name not in ("raw", ".raw.lock")] == []


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
@pytest.mark.parametrize("fault", ["missing", "other", "stall", "cut"])
def test_one_file_that_does_not_come_leaves_none(small_idx, no_data, name, fault):
    small_idx.faults[f"{IDX_FILES[3]}.gz"] = fault
    with pytest.raises(NoNetworkError, match=f"{IDX_FILES[3]}.gz") as caught:
        ensure_named(name, no_data)
    assert f"is not in {mnist.IDX_SETS[name].raw(no_data)} and its download failed" in str(caught.value)
    assert visible(no_data) == []


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
def test_a_whole_archive_of_something_else_is_refused(small_idx, no_data, name):
    other = small_set()[IDX_FILES[2]][:-1] + b"?"
    small_idx.files[f"{IDX_FILES[2]}.gz"] = gzip.compress(other, mtime=0)
    with pytest.raises(NoNetworkError, match="its checksum is another"):
        ensure_named(name, no_data)
    assert visible(no_data) == []


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
def test_archives_that_lie_there_are_unpacked(small_idx, no_data, monkeypatch, name):
    monkeypatch.setenv("CONTRASTIVE_OFFLINE", "1")
    raw = mnist.IDX_SETS[name].raw(no_data)
    raw.mkdir(parents=True)
    for file, content in small_idx.files.items():
        (raw / file).write_bytes(content)
    assert ensure_named(name, no_data) == raw
    assert {file: (raw / file).read_bytes() for file in IDX_FILES} == small_set()
    assert named_note(name, raw) == ""


def test_plain_files_of_kmnist_are_used_and_said_not_to_be_known(small_idx, no_data):
    raw = no_data / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for file, content in small_set().items():
        (raw / file).write_bytes(content)
    assert ensure_named("kmnist", no_data) == raw
    assert "cannot be told" in named_note("kmnist", raw)
    for file, content in small_idx.files.items():
        (raw / file).write_bytes(content)
    assert named_note("kmnist", raw) == ""
    (raw / IDX_FILES[3]).write_bytes(small_set()[IDX_FILES[3]][:-1] + b"\x05")
    assert "not those of the original KMNIST" in named_note("kmnist", raw)
    assert small_idx.asked == []


def test_files_of_another_data_set_are_recognised(small_idx, no_data, monkeypatch):
    for name in IDX_FILES:
        monkeypatch.setitem(FASHION_MD5, name, "0" * 32)
    raw = no_data / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file, content in small_set().items():
        (raw / file).write_bytes(content)
    assert ensure_named("fashion_mnist", no_data) == raw
    assert named_note("fashion_mnist", raw).endswith(
        "not those of the original Fashion-MNIST: they are those of MNIST."
    )
    (raw / IDX_FILES[1]).write_bytes(b"hello, I am no IDX file")
    with pytest.raises(UserError, match="not an IDX file"):
        ensure_named("fashion_mnist", no_data)


def test_a_folder_with_something_else_in_it_keeps_it(small_idx, no_data):
    raw = no_data / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "notes.txt").write_text("mine")
    ensure_named("fashion_mnist", no_data)
    assert visible(raw) == sorted([*IDX_FILES, "notes.txt"])
