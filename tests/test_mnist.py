"""MNIST downloaded from a server on loopback, or unpacked from what somebody put there."""

import gzip
import hashlib
import os
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from contrastive import UserError, load_images
from contrastive.data import download, forget_images, mnist
from contrastive.data.idx import IDX_FILES, ORIGINAL_MD5
from contrastive.data.images import make_images
from contrastive.settings import RunError, data_root
from contrastive.storage.files import atomic_write

from .conftest import HAVE_MNIST
from .mnist_files import Mirror, small_set

ORIGINALS = str(data_root())


@pytest.fixture
def small_mnist(monkeypatch):
    """The small set, which counts as MNIST now."""
    for name, content in small_set().items():
        monkeypatch.setitem(ORIGINAL_MD5, name, hashlib.md5(content).hexdigest())
    return small_set()


@pytest.fixture
def mirrors(tmp_path, no_data, small_mnist, monkeypatch):
    """A broken mirror and then a good one in the place of MNIST's."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    for place in (good, bad):
        place.mkdir()
        for name, data in small_mnist.items():
            packed = gzip.compress(data, mtime=0)
            (place / f"{name}.gz").write_bytes(packed if place is good else packed[:-1] + b"?")
    served = [Mirror(bad), Mirror(good)]
    monkeypatch.setitem(mnist.MIRRORS, "mnist", [m.url for m in served])
    yield served
    for mirror in served:
        mirror.server.shutdown()
        mirror.server.server_close()


def test_download_checks_sums_and_goes_on_to_the_next_mirror(mirrors, no_data, small_mnist):
    images = load_images("mnist")
    assert images.train.shape == (60, 1, 28, 28)
    assert images.note == ""
    raw = no_data / "MNIST" / "raw"
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == small_mnist


def test_auto_takes_mnist_when_it_can_be_downloaded(mirrors):
    assert load_images("auto").name == "mnist"


@pytest.mark.parametrize("content", ["cut", "other", "page", "nothing"])
def test_a_download_of_something_else_is_not_used(mirrors, no_data, tmp_path, monkeypatch, content):
    monkeypatch.setitem(mnist.MIRRORS, "mnist", [mirrors[0].url])
    for path in (tmp_path / "bad").iterdir():
        if content == "cut":
            path.write_bytes((tmp_path / "good" / path.name).read_bytes()[:-20])
        elif content == "other":
            path.write_bytes(gzip.compress(b"something else"))
        elif content == "page":
            path.write_text("<html>Please log in to this network</html>")
        else:
            path.unlink()
    with pytest.raises(UserError, match="download failed") as caught:
        load_images("mnist")
    assert "\n" not in str(caught.value)
    assert not any(no_data.rglob("*ubyte"))


@pytest.mark.parametrize("kind", ["refuses", "silent", "garbage"])
def test_no_network_is_found_out_soon_and_said(no_data, monkeypatch, kind):
    assert download.STALL_SECONDS <= 10
    monkeypatch.setattr(download, "STALL_SECONDS", 0.3)
    with socket.socket() as listener:  # refuses connections; or takes them and never answers, or not in HTTP
        listener.bind(("127.0.0.1", 0))
        if kind != "refuses":
            listener.listen()
        if kind == "garbage":
            threading.Thread(target=babble, args=(listener,), daemon=True).start()
        monkeypatch.setitem(mnist.MIRRORS, "mnist", [f"http://127.0.0.1:{listener.getsockname()[1]}/"] * 2)
        started = time.monotonic()
        images = load_images("auto")
        assert time.monotonic() - started < 5
    assert (images.name, images.handwriting) == ("sklearn_digits", True)
    assert str(no_data / "MNIST" / "raw") in images.note
    assert "no mirror can be reached" in images.note
    with pytest.raises(UserError, match="Put its four files") as caught:  # without another look
        load_images("mnist")
    assert "digits" in str(caught.value)


def babble(listener):
    """Answer whoever connects with what is no HTTP."""
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\xffhello\r\n\r\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RunError("the disk is full")])
def test_an_interrupted_download_leaves_nothing_that_passes_for_data(mirrors, no_data, monkeypatch, error):
    def write_two(path, content):
        if path.name == IDX_FILES[2]:
            raise error
        atomic_write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(mnist, "atomic_write", write_two)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else UserError):
            load_images("mnist")
    assert [path.name for path in no_data.rglob("*")] == ["MNIST", ".raw.lock"]
    assert load_images("mnist").train.shape == (60, 1, 28, 28)


# --- archives that lie there -------------------------------------------------------------------------------------


@pytest.fixture
def packed(no_data, small_mnist, monkeypatch):
    """A data folder, without a network, with MNIST's files as somebody compressed them anew."""
    monkeypatch.setenv("CONTRASTIVE_OFFLINE", "1")
    raw = no_data / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for level, (name, content) in enumerate(small_mnist.items()):
        (raw / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=level, mtime=level))
    return raw


def test_archives_that_somebody_compressed_again_are_taken(packed):
    images = load_images("mnist")
    assert images.train.shape == (60, 1, 28, 28)
    assert images.note == ""
    assert {name: (packed / name).read_bytes() for name in IDX_FILES} == small_set()


def test_files_that_are_unpacked_already_stay(packed):
    other = small_set()[IDX_FILES[0]][:-1] + b"?"
    (packed / IDX_FILES[0]).write_bytes(other)
    (packed / f"{IDX_FILES[0]}.gz").write_bytes(b"not looked at")
    assert "not those of the original MNIST" in load_images("mnist").note
    assert (packed / IDX_FILES[0]).read_bytes() == other


@pytest.mark.skipif(not HAVE_MNIST, reason="needs MNIST")
def test_the_original_files_compressed_again_are_mnist(no_data, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTRASTIVE_DATA", ORIGINALS)
        images, source = load_images("mnist"), data_root() / "MNIST" / "raw"
    raw = no_data / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in IDX_FILES:
        with gzip.GzipFile(raw / f"{name}.gz", "wb", compresslevel=1, mtime=7) as file:
            file.write((source / name).read_bytes())
    again = load_images("mnist")
    assert (again.sha256, again.note) == (images.sha256, "")
    forget_images()


def other_content(path):
    path.write_bytes(gzip.compress(b"hello"))


def another_archive(path):
    (path.parent / f"{IDX_FILES[3]}.gz").replace(path)


def one_byte_less(path):
    path.write_bytes(path.read_bytes()[:-1])


def one_byte_changed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def no_archive(path):
    path.write_bytes(b"hello")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (other_content, "its checksum is another"),
        (another_archive, "its checksum is another"),
        (empty, "its checksum is another"),
        (one_byte_less, "ended before"),
        (one_byte_changed, ""),
        (no_archive, "Not a gzipped file"),
    ],
)
@pytest.mark.parametrize("name", [IDX_FILES[0], IDX_FILES[1]])
def test_archives_of_something_else_are_named(packed, damage, said, name):
    damage(packed / f"{name}.gz")
    with pytest.raises(UserError) as caught:
        load_images("mnist")
    assert f"{packed / name}.gz does not hold MNIST's {name} (" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (packed / name).exists()


def test_a_gzip_bomb_is_not_unpacked(packed, peak):
    path = packed / f"{IDX_FILES[0]}.gz"
    path.write_bytes(64 * gzip.compress(bytes(2**24)))  # a gigabyte
    assert path.stat().st_size < 2**21
    peak()
    with pytest.raises(UserError, match="does not hold MNIST's"):
        load_images("mnist")
    assert peak() < 2**28


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_archives_that_lead_elsewhere_are_refused(packed, tmp_path, kind):
    path = packed / f"{IDX_FILES[0]}.gz"
    if kind == "link":
        path.replace(tmp_path / "outside.gz")
        path.symlink_to(tmp_path / "outside.gz")
        with pytest.raises(UserError, match="is a link that leads out of"):
            load_images("mnist")
        return
    path.unlink()
    os.mkfifo(path)  # reading it would wait for ever
    with pytest.raises(UserError, match=f"{IDX_FILES[0]} is missing"):
        load_images("mnist")


def test_a_folder_that_cannot_be_written_is_told(packed, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=r"cannot write .*Set CONTRASTIVE_DATA to a folder that can be written\."):
        load_images("mnist")
    assert not (packed / IDX_FILES[0]).exists()


@pytest.mark.skipif(not HAVE_MNIST, reason="needs MNIST")
def test_the_same_pixels_are_the_same_data_whatever_file_they_are_in(tmp_path):
    mnist = load_images("mnist")
    parts = {"train_images": mnist.train, "train_labels": mnist.train_labels, "test_images": mnist.test,
             "test_labels": mnist.test_labels}  # fmt: skip
    np.savez(tmp_path / "m.npz", **{name: part.squeeze(1).numpy() if "images" in name else part.numpy()
                                    for name, part in parts.items()})  # fmt: skip
    other = load_images(str(tmp_path / "m.npz"))
    assert (other.sha256, other.format, other.handwriting) == (mnist.sha256, mnist.format, True)
    assert (mnist.format.mean, mnist.format.std) == ((0.1307,), (0.3081,))


def test_a_class_without_an_image_is_part_of_the_checksum():
    arrays = [np.zeros((4, 20, 20), np.uint8), np.array([0, 1, 0, 1])] * 2
    two, three = (make_images("x", arrays, classes=classes) for classes in (("a", "b"), ("a", "b", "c")))
    assert (two.format.n_classes, three.format.n_classes) == (2, 3)
    assert two.sha256 == make_images("y", arrays).sha256 != three.sha256
