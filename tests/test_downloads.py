"""Data sets by name are downloaded once and whole, or not at all, by one process or several; failures are told."""

import hashlib
import multiprocessing
import os
import socket
import time

import pytest

from contrastive import UserError
from contrastive.data import download, medmnist
from contrastive.data.download import NoNetworkError
from contrastive.data.idx import IDX_FILES
from contrastive.data.named import NAMED, ensure_named, named_note

from .loopback import (  # noqa: F401 - fixtures
    archive,
    fixture_breast,
    fixture_serve,
    fixture_small_cifar,
    fixture_small_idx,
    loopback_only,
    visible,
)


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
