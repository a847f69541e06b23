"""CIFAR-10 is read from its archive or its folder; damaged files, bombs and the version made of pickles are told."""

import gzip
import shutil
import tarfile

import numpy as np
import pytest

from contrastive import UserError
from contrastive.data import cifar
from contrastive.data.download import NoNetworkError
from contrastive.data.named import ensure_named, named_note, read_cifar10

from .loopback import batches, fixture_serve, fixture_small_cifar, loopback_only, tar_of, visible  # noqa: F401 - fixtures


def unpacked(root, files):
    """The folder that the archive would unpack to, with these files in it."""
    folder = root / cifar.FOLDER
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def same_as_made(path):
    parts = read_cifar10(path)
    made = batches()[1]
    assert [part.dtype for part in parts] == [np.uint8, np.int64] * 2
    assert np.array_equal(parts[0], np.concatenate([images for images, _ in made[:5]]))
    assert np.array_equal(parts[1], np.concatenate([labels for _, labels in made[:5]]))
    assert np.array_equal(parts[2], made[5][0])
    assert np.array_equal(parts[3], made[5][1])
    return True


def test_cifar10_is_downloaded_and_read_in_place(small_cifar, no_data):
    path = ensure_named("cifar10", no_data)
    assert path == no_data / "cifar-10-binary.tar.gz"
    assert same_as_made(path)
    assert named_note("cifar10", path) == ""
    assert visible(no_data) == [path.name]


def test_cifar10_unpacked_or_packed_again_is_the_same(small_cifar, no_data):
    files = batches()[0]
    folder = unpacked(no_data, files)
    assert ensure_named("cifar10", no_data) == folder
    assert same_as_made(folder)
    assert named_note("cifar10", folder) == ""
    shutil.rmtree(folder)
    (no_data / cifar.ARCHIVE).write_bytes(tar_of(dict(reversed(files.items())), "./elsewhere", level=1))
    path = ensure_named("cifar10", no_data)
    assert same_as_made(path)
    assert named_note("cifar10", path) == ""
    assert small_cifar.asked == []


def test_other_pixels_are_used_and_said(small_cifar, no_data):
    files = batches()[0]
    files["test_batch.bin"] = files["test_batch.bin"][:-1] + b"?"
    folder = unpacked(no_data, files)
    assert read_cifar10(ensure_named("cifar10", no_data))[2].shape == (20, 3, 32, 32)
    assert named_note("cifar10", folder).endswith("not those of the original CIFAR-10.")


def cut_batch(files):
    files["data_batch_3.bin"] = files["data_batch_3.bin"][:-1]


def another_label(files):
    files["data_batch_3.bin"] = b"\x0a" + files["data_batch_3.bin"][1:]


def lacking(files):
    del files["data_batch_3.bin"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("damage", "said"),
    [(cut_batch, "another size than 61,460 bytes"), (another_label, "the label 10"), (lacking, "missing|lacks")],
)
def test_damaged_files_of_cifar10_are_named(small_cifar, no_data, damage, said, packed):
    files = batches()[0]
    damage(files)
    if packed:
        no_data.mkdir()
        (no_data / cifar.ARCHIVE).write_bytes(tar_of(files))
    else:
        unpacked(no_data, files)
    with pytest.raises(UserError, match=said) as caught:
        read_cifar10(ensure_named("cifar10", no_data))
    assert "data_batch_3.bin" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["cut", "other", "empty", "no tar", "bomb", "long name"])
def test_archives_that_are_none_are_told(small_cifar, no_data, monkeypatch, peak, kind):
    whole = tar_of(batches()[0])
    header = tarfile.TarInfo("x")
    header.type, header.size = (tarfile.GNUTYPE_LONGNAME if kind == "long name" else tarfile.REGTYPE), 2**32
    content = {
        "cut": whole[: len(whole) // 2],
        "other": b"hello",
        "empty": b"",
        "no tar": gzip.compress(b"hello"),
        "bomb": gzip.compress(header.tobuf() + bytes(2**20)) + 64 * gzip.compress(bytes(2**24)),
        "long name": gzip.compress(header.tobuf() + bytes(2**20)) + 64 * gzip.compress(bytes(2**24)),
    }[kind]
    monkeypatch.setattr(cifar, "LARGEST", 2**25)
    no_data.mkdir()
    (no_data / cifar.ARCHIVE).write_bytes(content)
    path = ensure_named("cifar10", no_data)
    peak()
    with pytest.raises(UserError, match=r"cannot be read as an archive|lacks") as caught:
        read_cifar10(path)
    assert "\n" not in str(caught.value)
    assert peak() < 2**28


def test_the_version_made_of_pickles_is_not_loaded(no_data, monkeypatch):
    monkeypatch.setenv("CONTRASTIVE_OFFLINE", "1")
    (no_data / "cifar-10-batches-py").mkdir(parents=True)
    with pytest.raises(NoNetworkError, match="cifar-10-batches-py, which is there, is made of pickles"):
        ensure_named("cifar10", no_data)
