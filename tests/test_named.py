"""Data sets by name: found, or downloaded from a server on loopback, well-behaved or not. Nothing else is asked."""

import gzip
import hashlib
import http.server
import io
import multiprocessing
import os
import shutil
import socket
import tarfile
import threading
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from torchvision import datasets

from contrastive import UserError
from contrastive.data import cifar, download, medmnist, mnist, named
from contrastive.data.download import NoNetworkError
from contrastive.data.idx import FASHION_MD5, IDX_FILES, ORIGINAL_MD5, read_idx
from contrastive.data.named import NAMED, SHORT_NAMES, ensure_named, named_note, read_cifar10
from contrastive.settings import data_root

from .conftest import HAVE_MNIST
from .mnist_files import small_set

PNEUMONIA = data_root() / "pneumoniamnist.npz"
LICENCES = {"CC BY-SA 3.0": 1, "CC BY-SA 4.0": 1, "MIT licence": 1, "no licence": 1, "CC BY 4.0": 44, "CC BY-NC 4.0": 4}


class Server:
    """Files on loopback. faults: by path, what goes wrong: missing, other, stall, cut, chatter or norange."""

    def __init__(self):
        self.files, self.faults, self.asked = {}, {}, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                with suppress(OSError):  # nobody reads on
                    outer.answer(self, self.path.partition("?")[0].removeprefix("/"))
                self.close_connection = True

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def answer(self, request, name):
        asked = request.headers.get("Range")
        self.asked.append((name, asked))
        fault, content = self.faults.get(name), self.files.get(name)
        if content is None or fault == "missing":
            return request.send_error(404)
        if fault == "chatter":
            return request.wfile.write(b"\xffhello\r\n\r\n")
        if fault == "other":
            content = b"<html>Please log in to this network</html>".ljust(len(content))
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and fault != "norange" else 0
        if start >= len(content) > 0:
            return request.send_error(416)
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        rest = content[start:]
        request.wfile.write(rest[: len(rest) // 2] if fault in ("cut", "stall") else rest)
        if fault == "stall":
            request.wfile.flush()
            time.sleep(5)

    def downloads(self, name):
        """Requests for a file, without those that only ask whether it is there."""
        return [asked for asked in self.asked if asked[0] == name][1:]


@pytest.fixture
def serve():
    """A function that starts a server."""
    started = []

    def start():
        started.append(Server())
        return started[-1]

    yield start
    for one in started:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch, no_data):
    """Connections to anywhere else fail the test."""
    connect = socket.socket.connect

    def local(self, address):
        assert address[0] == "127.0.0.1", address
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
    monkeypatch.setattr(download, "STALL_SECONDS", 0.3)


def archive(n=6, side=28):
    """The bytes of an .npz file as MedMNIST has them."""
    rng, parts = np.random.default_rng(0), {}
    for part in ("train", "val", "test"):
        parts[f"{part}_images"] = rng.integers(0, 256, (n, side, side), dtype=np.uint8)
        parts[f"{part}_labels"] = (np.arange(n, dtype=np.uint8) % 2)[:, None]
    file = io.BytesIO()
    np.savez_compressed(file, **parts)
    return file.getvalue()


@pytest.fixture
def breast(serve, monkeypatch):
    """A server with a small breastmnist.npz that counts as the original."""
    server = serve()
    server.files["breastmnist.npz"] = archive()
    monkeypatch.setattr(medmnist, "MIRRORS", [server.url])
    original_is(monkeypatch, "breastmnist", archive())
    return server


def original_is(monkeypatch, name, content):
    source = replace(NAMED[name].source, md5=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(NAMED, name, replace(NAMED[name], source=source))


def visible(folder):
    """Files that could pass for data."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


# --- what is known ------------------------------------------------------------------------------------------------


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


# --- .npz files ---------------------------------------------------------------------------------------------------


def test_an_archive_is_downloaded_once(breast, no_data, capsys):
    path = ensure_named("breastmnist", no_data)
    assert path == no_data / "breastmnist.npz"
    assert path.read_bytes() == breast.files["breastmnist.npz"]
    assert named_note("breastmnist", path) == ""
    said = capsys.readouterr().err.splitlines()
    assert said == [f"NOTE: fetching BreastMNIST into {no_data} ({len(path.read_bytes()) / 1e6:.1f} MB)"]
    asked = len(breast.asked)
    assert ensure_named("breastmnist", no_data) == path
    assert len(breast.asked) == asked
    assert visible(no_data) == ["breastmnist.npz"]
    assert not list(no_data.glob(".*.part"))


@pytest.mark.parametrize("fault", ["missing", "other", "stall", "cut", "chatter"])
def test_a_bad_mirror_gives_nothing_and_the_next_one_is_tried(breast, serve, no_data, monkeypatch, fault):
    breast.faults["breastmnist.npz"] = fault
    with pytest.raises(NoNetworkError) as caught:
        ensure_named("breastmnist", no_data)
    line = str(caught.value)
    assert line.startswith(f"BreastMNIST is not in {no_data} and its download failed: ")
    assert "Put breastmnist.npz there" in line
    assert "\n" not in line
    assert caught.value.reason.startswith("its download failed")
    assert visible(no_data) == []
    good = serve()
    good.files = breast.files
    monkeypatch.setattr(medmnist, "MIRRORS", [breast.url, good.url])
    assert ensure_named("breastmnist", no_data).read_bytes() == archive()
    assert not list(no_data.glob(".*.part"))


def test_a_server_that_refuses_is_told_soon(no_data, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setattr(medmnist, "MIRRORS", [f"http://127.0.0.1:{nobody.getsockname()[1]}/"] * 2)
        with pytest.raises(NoNetworkError, match="no mirror can be reached"):
            ensure_named("breastmnist", no_data)
    assert not no_data.exists()  # no folder is made for what does not come


@pytest.mark.parametrize("fault", [None, "norange"])
def test_a_download_that_broke_off_goes_on_where_it_can(breast, no_data, fault):
    whole = breast.files["breastmnist.npz"]
    breast.faults["breastmnist.npz"] = "cut"
    with pytest.raises(NoNetworkError, match=f"broke off after {len(whole) // 2:,} of {len(whole):,} bytes"):
        ensure_named("breastmnist", no_data)
    breast.faults["breastmnist.npz"] = fault
    breast.asked.clear()
    assert ensure_named("breastmnist", no_data).read_bytes() == whole
    assert breast.downloads("breastmnist.npz") == [("breastmnist.npz", f"bytes={len(whole) // 2}-")]


@pytest.mark.parametrize("left", ["of another file", "too long", "a link"])
def test_what_an_earlier_process_left_behind_spoils_nothing(breast, no_data, tmp_path, left):
    whole, part, outside = breast.files["breastmnist.npz"], no_data / ".breastmnist.npz.part", tmp_path / "outside"
    no_data.mkdir()
    outside.write_bytes(whole[:100])
    if left == "a link":
        part.symlink_to(outside)
    else:
        part.write_bytes(b"?" * (100 if left == "of another file" else len(whole) + 100))
    assert ensure_named("breastmnist", no_data).read_bytes() == whole
    assert outside.read_bytes() == whole[:100]
    assert not part.exists()


def test_more_bytes_than_there_can_be_are_not_stored(breast, no_data):
    breast.files["breastmnist.npz"] = bytes(3_000_000)  # 780 images of 784 bytes, labels, and some
    with pytest.raises(NoNetworkError, match="far more than the right file"):
        ensure_named("breastmnist", no_data)
    assert not [path for path in no_data.iterdir() if path.stat().st_size > 2_000_000]


def test_what_lies_there_is_used_and_said_to_be_another_file(no_data, monkeypatch):
    monkeypatch.setattr(medmnist, "MIRRORS", [])
    no_data.mkdir()
    path = no_data / "breastmnist.npz"
    path.write_bytes(archive())
    assert ensure_named("breastmnist", no_data) == path
    assert "not the file that is published as BreastMNIST" in named_note("breastmnist", path)
    assert path.read_bytes() == archive()
    monkeypatch.setitem(medmnist.FIRST_RELEASE_MD5, "organamnist", hashlib.md5(archive()).hexdigest())
    assert "first release of OrganAMNIST" in named_note("organamnist", path)


def test_a_link_that_leads_out_is_refused_and_not_written_to(breast, no_data, tmp_path):
    no_data.mkdir()
    (tmp_path / "outside.npz").write_bytes(b"mine")
    for target in (tmp_path / "outside.npz", tmp_path / "nothing.npz"):
        (no_data / "breastmnist.npz").symlink_to(target)
        with pytest.raises(UserError, match=r"link that leads out|cannot be read"):
            ensure_named("breastmnist", no_data)
        (no_data / "breastmnist.npz").unlink()
    assert (tmp_path / "outside.npz").read_bytes() == b"mine"
    assert not (tmp_path / "nothing.npz").exists()
    assert breast.asked == []


@pytest.mark.parametrize("name", ["mnist", "kmnist", "cifar10", "pathmnist_64"])
def test_offline_means_offline(no_data, monkeypatch, name):
    monkeypatch.setenv("CONTRASTIVE_OFFLINE", "1")
    monkeypatch.setattr(os, "sysconf", lambda what: 2**20)  # a terabyte of memory
    monkeypatch.setattr(socket.socket, "connect", None)
    with pytest.raises(NoNetworkError, match=r"CONTRASTIVE_OFFLINE is set\. Put ") as caught:
        ensure_named(name, no_data)
    assert f"CONTRASTIVE_DATA to the folder that holds {NAMED[name].place}." in str(caught.value)
    assert caught.value.reason == "CONTRASTIVE_OFFLINE is set"
    assert not no_data.exists()


def test_data_that_memory_cannot_hold_are_not_downloaded(breast, no_data, monkeypatch):
    breast.files["pathmnist_224.npz"] = archive()
    monkeypatch.setattr(os, "sysconf", lambda what: 2**17)  # 16 GB of memory
    with pytest.raises(UserError, match=r"pathmnist_224 holds 14\.6 GB"):
        ensure_named("pathmnist_224", no_data)
    assert breast.asked == []


@pytest.mark.parametrize("name", ["breastmnist", "cifar10", "mnist"])
def test_a_place_that_cannot_be_written_is_told(breast, no_data, small_idx, small_cifar, monkeypatch, name):
    no_data.write_text("a file")
    with pytest.raises(UserError, match=r"^cannot write to .*Set CONTRASTIVE_DATA to a folder that can be written\.$"):
        ensure_named(name, no_data)
    assert no_data.read_text() == "a file"


@pytest.mark.parametrize("name", ["breastmnist", "cifar10", "mnist"])
def test_a_full_disk_is_not_blamed_on_the_network(breast, no_data, small_idx, small_cifar, monkeypatch, name):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="is full") as caught:
            ensure_named(name, no_data)
    assert not isinstance(caught.value, NoNetworkError)
    assert visible(no_data) == []
    assert ensure_named(name, no_data).exists()


# --- several processes --------------------------------------------------------------------------------------------


def in_process(name, root):
    """The data set ensured by another process, which has this one's patches."""
    process = multiprocessing.get_context("fork").Process(target=ensure_named, args=(name, root), daemon=True)
    process.start()
    return process


@pytest.mark.parametrize("name", ["breastmnist", "fashion_mnist"])
def test_processes_do_not_harm_each_other(breast, small_idx, no_data, name):
    processes = [in_process(name, no_data) for _ in range(4)]
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert named_note(name, ensure_named(name, no_data)) == ""
    file, server = ("breastmnist.npz", breast) if name == "breastmnist" else (f"{IDX_FILES[3]}.gz", small_idx)
    only_looks = 4 if name == "breastmnist" else 0  # each process may ask whether the first file is there
    assert 1 <= len([asked for asked in server.asked if asked[0] == file]) <= 1 + only_looks


@pytest.mark.parametrize("name", ["breastmnist", "kmnist"])
def test_a_process_that_is_killed_leaves_nothing_that_passes_for_data(breast, small_idx, no_data, monkeypatch, name):
    monkeypatch.setattr(download, "STALL_SECONDS", 20)
    file, server = ("breastmnist.npz", breast) if name == "breastmnist" else (f"{IDX_FILES[2]}.gz", small_idx)
    server.faults[file] = "stall"
    process = in_process(name, no_data)
    for _ in range(400):
        if [path for path in no_data.rglob(f".{file}.part") if path.stat().st_size]:
            break
        time.sleep(0.02)
    else:
        pytest.fail("it did not begin")
    process.kill()
    process.join()
    assert not [path for path in no_data.rglob("*") if path.name in ("breastmnist.npz", "raw")]
    server.faults.clear()
    assert named_note(name, ensure_named(name, no_data)) == ""
    assert not [path for path in no_data.rglob("*") if path.name.endswith((".part", ".new"))]


# --- MNIST and its like -------------------------------------------------------------------------------------------


@pytest.fixture
def small_idx(serve, monkeypatch):
    """A server with the small set, which counts as MNIST, Fashion-MNIST and KMNIST now."""
    server = serve()
    for name, content in small_set().items():
        server.files[f"{name}.gz"] = packed = gzip.compress(content, mtime=0)
        monkeypatch.setitem(ORIGINAL_MD5, name, hashlib.md5(content).hexdigest())
        monkeypatch.setitem(FASHION_MD5, name, hashlib.md5(content).hexdigest())
        monkeypatch.setitem(mnist.KMNIST_PACKED_MD5, name, hashlib.md5(packed).hexdigest())
    for name in mnist.MIRRORS:
        monkeypatch.setitem(mnist.MIRRORS, name, [server.url])
    return server


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


# --- CIFAR-10 -----------------------------------------------------------------------------------------------------


def batches():
    """Names and bytes of the six files in small, with their images and labels."""
    rng = np.random.default_rng(0)
    files, parts = {}, []
    for name in cifar.FILE_MD5:
        images = rng.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
        labels = rng.permutation(np.repeat(np.arange(10), 2))
        files[name] = b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True))
        parts.append((images, labels))
    return files, parts


def tar_of(files, folder="cifar-10-batches-bin", level=9):
    """A .tar.gz of files, with what else the original holds."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=level) as archive:
        entry = tarfile.TarInfo(folder)
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
        for name, content in {"readme.html": b"<html>", **files, "batches.meta.txt": b"airplane\n"}.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def small_cifar(serve, monkeypatch):
    """A server with CIFAR-10 in small, which counts as the original now."""
    server, (files, _) = serve(), batches()
    server.files[cifar.ARCHIVE] = tar_of(files)
    monkeypatch.setattr(cifar, "MIRRORS", [server.url])
    monkeypatch.setattr(cifar, "IMAGES_PER_FILE", 20)
    monkeypatch.setattr(cifar, "ARCHIVE_MD5", hashlib.md5(server.files[cifar.ARCHIVE]).hexdigest())
    for name, content in files.items():
        monkeypatch.setitem(cifar.FILE_MD5, name, hashlib.md5(content).hexdigest())
    return server


def unpacked(root, files):
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
