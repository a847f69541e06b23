import dataclasses
import gzip
import hashlib
import http.server
import shutil
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from contrastive import Settings, UserError, load_images
from contrastive.data.images import Images, resolve, split
from contrastive.data.mnist import IDX_FILES, PROBE_SECONDS
from contrastive.settings.model import data_root

from .conftest import HAVE_MNIST


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def small_set():
    """The bytes of four IDX files: 60 training and 20 test images of random pixels."""
    rng = np.random.default_rng(0)
    parts = []
    for n in (60, 20):
        parts += [rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8)]
    return dict(zip(IDX_FILES, map(idx, parts), strict=True))


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
    for inside, name in (("mnist", "mnist (folder)"), ("FashionMNIST/raw", "FashionMNIST")):
        (tmp_path / "copies" / inside).mkdir(parents=True)
        for file in IDX_FILES:
            shutil.copy(folder / file, tmp_path / "copies" / inside)
        images = load_images(str(tmp_path / "copies" / inside))
        assert images.name == name
        assert images.mean[0] != pytest.approx(0.1307, abs=1e-3)


def test_an_interrupted_download_leaves_nothing_that_passes_for_data(mirrors, no_data, monkeypatch):
    def interrupted(self):
        (no_data / "MNIST" / "raw").mkdir(parents=True)
        (no_data / "MNIST" / "raw" / IDX_FILES[0]).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(datasets.MNIST, "download", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_images("mnist")
    assert load_images("mnist").train.shape == (60, 1, 28, 28)


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
    assert images.train.shape == (1437, 1, 28, 28)
    assert images.test.shape == (360, 1, 28, 28)
    assert set(images.test_labels.tolist()) == set(range(10))
    assert images.train.max() == 255


# --- the download, from a server on loopback ---------------------------------------------------------------------


class Mirror:
    """An HTTP server on loopback with the files of a folder."""

    def __init__(self, folder: Path):
        handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def mirrors(tmp_path, no_data, monkeypatch):
    """Point torchvision at a broken mirror and then a good one."""
    content = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in small_set().items()}
    good, bad = tmp_path / "good", tmp_path / "bad"
    for place in (good, bad):
        place.mkdir()
        for name, data in content.items():
            (place / name).write_bytes(data if place is good else data[:-1] + b"?")
    served = [Mirror(bad), Mirror(good)]
    monkeypatch.setattr(datasets.MNIST, "mirrors", [m.url for m in served])
    resources = [(f"{name}.gz", hashlib.md5(content[f"{name}.gz"]).hexdigest()) for name in IDX_FILES]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    yield served
    for mirror in served:
        mirror.server.shutdown()
        mirror.server.server_close()


def test_download_checks_sums_and_goes_on_to_the_next_mirror(mirrors, no_data):
    images = load_images("mnist")
    assert images.train.shape == (60, 1, 28, 28)
    assert "not those of the original MNIST" in images.note
    assert (no_data / "MNIST" / "raw" / IDX_FILES[0]).is_file()


def test_auto_takes_mnist_when_it_can_be_downloaded(mirrors):
    assert load_images("auto").name == "mnist"


def test_a_download_with_wrong_sums_is_not_used(mirrors, no_data, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [mirrors[0].url])
    with pytest.raises(UserError, match="download failed"):
        load_images("mnist")
    assert not (no_data / "MNIST" / "raw" / IDX_FILES[0]).exists()


def test_archives_that_lie_there_need_no_network(mirrors, no_data, tmp_path, monkeypatch):
    raw = no_data / "MNIST" / "raw"
    shutil.copytree(tmp_path / "good", raw)
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setenv("CONTRASTIVE_OFFLINE", "1")
    assert load_images("mnist").train.shape == (60, 1, 28, 28)


@pytest.mark.parametrize("silent", [False, True])
def test_no_network_is_found_out_soon_and_said(no_data, monkeypatch, silent):
    with socket.socket() as listener:  # refuses connections, or takes them and never answers
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{listener.getsockname()[1]}/"] * 2)
        started = time.monotonic()
        images = load_images("auto")
        assert time.monotonic() - started < PROBE_SECONDS + 4
    assert images.name == "digits"
    assert str(no_data / "MNIST" / "raw") in images.note
    assert "no mirror can be reached" in images.note
    with pytest.raises(UserError, match="Put its four files") as caught:
        load_images("mnist")
    assert "digits" in str(caught.value)


# --- splits ------------------------------------------------------------------------------------------------------


def test_splits_are_disjoint_seeded_and_nested():
    images = load_images("digits")
    splits = split(images, 512, seed=1)
    assert not set(splits.pretrain.tolist()) & set(splits.validation.tolist())
    assert set(splits.pretrain.tolist()) <= set(splits.rest.tolist())
    assert sorted([*splits.validation.tolist(), *splits.rest.tolist()]) == list(range(len(images.train)))
    assert torch.equal(split(images, 512, seed=1).pretrain, splits.pretrain)
    assert not torch.equal(split(images, 512, seed=2).pretrain, splits.pretrain)
    assert torch.equal(split(images, 100, seed=1).pretrain, splits.pretrain[:100])


def test_label_budgets_are_balanced_and_nested():
    images = load_images("digits")
    splits = split(images, 512, seed=0)
    seen: set[int] = set()
    for n in (20, 100, 600, len(images.train)):
        fit, choose = splits.budget(n)
        both = [*fit.tolist(), *choose.tolist()]
        assert len(set(both)) == n
        assert seen <= set(both)
        seen = set(both)
        assert not set(choose.tolist()) & set(splits.pretrain.tolist())
        if n <= 600:
            counts = torch.bincount(images.train_labels[both], minlength=10)
            assert counts.max() - counts.min() <= (2 if n == 20 else 0)


def images_of(train_labels, test_labels):
    """Grey images with these labels, a tensor each."""
    train, test = (torch.zeros(len(labels), 1, 28, 28, dtype=torch.uint8) for labels in (train_labels, test_labels))
    names = tuple(map(str, range(int(train_labels.max()) + 1)))
    return Images("x", train, train_labels, test, test_labels, names, (0.5,), (0.5,), "")


def test_rare_classes_do_not_go_to_validation_whole():
    counts = torch.tensor([1, 2, 6, 40, 951])
    labels = torch.arange(5).repeat_interleave(counts)
    images = images_of(labels, labels[:8])
    splits = split(images, 500, seed=0)
    kept, spared = (torch.bincount(labels[part], minlength=5) for part in (splits.rest, splits.validation))
    assert spared.tolist() == [0, 1, 2, 8, 189]  # a fifth of 1,000; of the first four a fifth of each, rounded up
    assert (kept + spared).tolist() == counts.tolist()
    # Balanced as long as no class runs out, though they were cut differently
    assert torch.bincount(labels[splits.rest[:5]], minlength=5).tolist() == [1, 1, 1, 1, 1]
    assert torch.bincount(labels[splits.rest[:14]], minlength=5).tolist() == [1, 1, 4, 4, 4]
    for draw in (0, 1):
        fit, choose = split(images, 500, 0, draw).budget(100)
        assert torch.bincount(labels[fit], minlength=5).tolist() == [1, 1, 4, 32, 42]
        assert torch.bincount(labels[choose], minlength=5).tolist()[:3] == [0, 1, 2]
        assert len(choose) == 20


def test_too_few_images_of_too_many_classes_are_told_of(tmp_path):
    labels = np.repeat(np.arange(10), [2] * 9 + [30])
    data = {f"{part}_images": np.zeros((len(labels), 28, 28), np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "rare.npz", **data, train_labels=labels, test_labels=labels)
    with pytest.raises(
        UserError, match=r"rare has 48 training images of 10 classes, too few .* five of each are enough"
    ):
        resolve(Settings(dataset=str(tmp_path / "rare.npz"), batch_size=8))


def test_a_sample_of_test_images_has_all_classes_though_they_lie_by_class():
    labels = torch.arange(5).repeat_interleave(1000)
    sample = images_of(labels, labels).test_sample(500)
    assert torch.equal(sample, sample.unique())
    assert torch.bincount(labels[sample], minlength=5).min() > 70
    assert torch.equal(images_of(labels, labels[:8]).test_sample(500), torch.arange(8))


def test_test_images_that_are_training_images_are_counted():
    images = load_images("digits")
    assert images.leaked() == 0
    test = torch.cat([images.test[:5], images.train[[3, 700]], images.test[5:]])
    assert dataclasses.replace(images, test=test).leaked() == 2


@pytest.mark.parametrize(("classes", "n"), [(26, 100), (26, 300), (100, 100), (100, 600), (2, 10), (2, 101)])
def test_every_class_has_its_share_of_a_budget(classes, n):
    labels = torch.arange(classes).repeat(60)
    fit, choose = split(images_of(labels, labels[:8]), 10, 0).budget(n)
    counts = torch.bincount(labels[torch.cat([fit, choose])], minlength=classes)
    assert counts.max() - counts.min() <= (n % classes > 0)
    assert len(choose) % classes == 0


def test_resolve_says_what_auto_means():
    settings = resolve(Settings(dataset="digits"))
    assert settings.n_images == 1157
    assert settings.budgets == (100, 600, 1437)
    assert settings.device != "auto"
    assert settings.precision in ("float32", "bfloat16")
    assert resolve(settings) == settings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n_images": 1158}, "n_images=1158"),
        ({"n_images": 100, "batch_size": 101}, "batch_size=101"),
        ({"budgets": (2000,)}, "budgets=2000"),
        ({"dataset": "digit"}, "Did you mean 'digits'?"),
        ({"device": "cuda:99"}, "no such device"),
    ],
)
def test_what_the_data_cannot_serve(given, said):
    with pytest.raises(UserError) as caught:
        resolve(Settings(**{"dataset": "digits", **given}))
    assert said in str(caught.value)
