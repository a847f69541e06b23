"""Data from anywhere: read as others read it, or refused in one line, before anything is executed or allocated."""

import io
import os
import pickle
import resource
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive import UserError, load_images
from contrastive.data import inert
from contrastive.data.idx import IDX_FILES

from .mnist_files import small_set


class Attack:
    """Pickled, it is a command."""

    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of images, three classes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part, n in (("train", 20), ("test", 4)):
        for name in ("cat", "dog", "emu"):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (16, 20), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pets" / part / name / f"{i:02}.png")
    yield tmp_path / "pets"
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def limited():
    """Fewer than 4 GB more than now: a larger allocation would fail, with something else than one line."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def refused(path, *words):
    with pytest.raises(UserError) as caught:
        load_images(str(path))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_folder_of_images(folder):
    images = load_images(str(folder))
    assert images.classes == ("cat", "dog", "emu")
    assert (images.name, images.note) == ("pets", "")
    assert images.train.shape == (60, 1, 16, 20)
    assert images.test_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for index, path in ((0, "cat/00.png"), (27, "dog/07.png")):
        assert torch.equal(images.train[index, 0], torch.from_numpy(np.array(Image.open(folder / "train" / path))))
    assert images.mean[0] == pytest.approx(images.train.float().mean().item() / 255, abs=1e-4)


def test_one_colour_image_makes_all_have_three_channels(folder):
    pixels = np.random.default_rng(1).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "train" / "cat" / "99.bmp")
    (folder / "train" / "cat" / "notes.txt").write_text("not an image")
    (folder / "train" / ".hidden").mkdir()
    images = load_images(str(folder))
    assert images.train.shape == (61, 3, 16, 20)
    assert torch.equal(images.train[20], torch.from_numpy(pixels).permute(2, 0, 1))
    assert torch.equal(images.train[0, 0], images.train[0, 2])
    assert images.note.startswith("1 files that are no images")


def test_what_a_folder_of_images_lacks_is_said(folder):
    (folder / "test" / "gnu").mkdir()
    (folder / "test" / "gnu" / "x.png").write_bytes((folder / "train" / "cat" / "00.png").read_bytes())
    refused(folder, str(folder / "test" / "gnu"), "without training images")
    (folder / "test" / "gnu" / "x.png").unlink()
    refused(folder, "gnu")
    (folder / "test").rename(folder / "tests")
    refused(folder, str(folder / "test"), "train/ and test/")
    (folder / "test").mkdir()
    refused(folder, "no images in the folders of", str(folder / "test"))


def png_of(width, height):
    """A PNG whose header claims a size that its data do not bear out."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


def buffer(image, kind):
    made = io.BytesIO()
    image.save(made, kind)
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.png", b"", "is no image"),
        ("x.png", buffer(Image.new("L", (20, 16)), "JPEG"), "is no image of its kind"),
        ("x.jpg", buffer(Image.effect_noise((20, 16), 90), "JPEG")[:-100], "is damaged"),
        ("x.png", buffer(Image.new("L", (20, 17)), "PNG"), "20x17 pixels"),
        ("x.png", buffer(Image.new("I;16", (20, 16)), "PNG"), "mode I;16"),
        ("x.png", png_of(100_000, 100_000), "million pixels"),
        ("x.png", png_of(2**31 - 1, 2**31 - 1), "x.png"),
        ("x.png", png_of(6000, 6000), "million pixels"),
        ("x.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 16\n(touch executed) run\n", "is no image"),
        ("x.png", pickle.dumps(Attack()), "is no image"),
    ],
)
@pytest.mark.usefixtures("limited")
def test_hostile_images_are_named(folder, name, content, said):
    (folder / "train" / "dog" / name).write_bytes(content)
    refused(folder, str(folder / "train" / "dog" / name), said)


def test_many_large_images_are_refused_before_they_are_decoded(folder, monkeypatch):
    from contrastive.data import readers

    monkeypatch.setattr(readers, "_pixels", None)
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    refused(folder, "GB; this machine", "GB of memory")


@pytest.mark.parametrize("where", ["a file", "a class", "a part"])
def test_links_that_lead_out_are_refused(folder, tmp_path, where):
    outside = tmp_path / "outside"
    (folder / "train" / "cat").rename(outside)
    if where == "a file":
        (folder / "train" / "cat").mkdir()
        (folder / "train" / "cat" / "x.png").symlink_to(outside / "00.png")
    elif where == "a class":
        (folder / "train" / "cat").symlink_to(outside)
    else:
        outside.rename(folder / "train" / "cat")
        (folder / "train").rename(tmp_path / "train")
        (folder / "train").symlink_to(tmp_path / "train")
    refused(folder, "is a link that leads out of", str(folder / "train"))


def test_links_inside_and_the_folder_itself_may_be_links(folder, tmp_path):
    (folder / "train" / "dog" / "link.png").symlink_to("00.png")
    (tmp_path / "elsewhere").symlink_to(folder)
    assert load_images(str(tmp_path / "elsewhere")).train.shape[0] == 61


def test_pipes_and_loops_are_refused(folder):
    os.mkfifo(folder / "train" / "dog" / "x.png")
    refused(folder, "x.png is no regular file")
    (folder / "train" / "dog" / "x.png").unlink()
    (folder / "train" / "dog" / "x.png").symlink_to("x.png")
    refused(folder, "x.png")


def test_idx_links_that_lead_out_are_refused(tmp_path):
    (tmp_path / "data").mkdir()
    for name, content in small_set().items():
        (tmp_path / "data" / name).write_bytes(content)
    (tmp_path / "data" / IDX_FILES[1]).rename(tmp_path / "labels")
    (tmp_path / "data" / IDX_FILES[1]).symlink_to(tmp_path / "labels")
    refused(tmp_path / "data", IDX_FILES[1], "leads out")


@pytest.mark.usefixtures("limited")
def test_an_idx_file_that_claims_10_to_the_12_images(tmp_path):
    for name, content in small_set().items():
        (tmp_path / name).write_bytes(content)
    claim = bytes([0, 0, 8, 3]) + struct.pack(">III", 4_000_000_000, 28, 28)
    (tmp_path / IDX_FILES[0]).write_bytes(claim + bytes(100))
    refused(tmp_path, IDX_FILES[0], "truncated")
    with (tmp_path / IDX_FILES[0]).open("r+b") as file:
        file.truncate(16 + 4_000_000_000 * 784)  # sparse: it really has that size, on a few blocks of disk
    refused(tmp_path, IDX_FILES[0], "GB of memory")


def test_old_caches_of_torchvision_are_not_read(no_data, tmp_path, monkeypatch):
    for name, content in small_set().items():
        (no_data / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
        (no_data / "MNIST" / "raw" / name).write_bytes(content)
    (no_data / "MNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1)), no_data / "MNIST" / "processed" / name)
    assert load_images("mnist").train.shape == (60, 1, 28, 28)


# --- npz --------------------------------------------------------------------------------------------------------


def arrays(**changes):
    rng = np.random.default_rng(0)
    parts = {}
    for part, n in (("train", 40), ("test", 8)):
        parts[f"{part}_images"] = rng.integers(0, 256, (n, 18, 17, 3), dtype=np.uint8)
        parts[f"{part}_labels"] = (np.arange(n) % 2)[:, None].astype(np.uint8)
    return {name: array for name, array in (parts | changes).items() if array is not None}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_archive(tmp_path, save):
    content = arrays()
    save(tmp_path / "x.npz", **content, val_images=np.zeros(3))
    images = load_images(str(tmp_path / "x.npz"))
    assert images.train.shape == (40, 3, 18, 17)
    assert torch.equal(images.test, torch.from_numpy(content["test_images"]).permute(0, 3, 1, 2))
    assert images.train_labels.tolist() == content["train_labels"].ravel().tolist()
    assert images.name == "x"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_labels": None}, "lacks train_labels.npy"),
        ({"train_images": np.zeros((40, 18, 17, 3))}, "uint8"),
        ({"train_images": np.zeros((40, 18), np.uint8)}, "N x H x W"),
        ({"train_images": np.zeros((40, 9, 17, 3), np.uint8)}, "other sizes"),
        ({"train_labels": np.zeros((40, 2), np.uint8)}, "train_labels"),
        ({"test_labels": np.full(8, -1)}, "from 0 to"),
        ({"test_labels": np.full(8, 10**12)}, "from 0 to"),
        ({"test_labels": np.full(8, 0.5)}, "whole number"),
        ({"train_labels": np.array([Attack()] * 40, dtype=object)}, "cannot be read"),
    ],
)
def test_wrong_npz_archives_are_named(tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "x.npz", **arrays(**changes))
    refused(tmp_path / "x.npz", "x.npz" if "from 0" not in said else "x", said)
    assert not (tmp_path / "executed").exists()


def claim(shape, size):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(size)


@pytest.mark.parametrize("shape", [(10**12, 28, 28), (10**12,), (2**63, 2**63), (-1, 28, 28)])
@pytest.mark.usefixtures("limited")
def test_npz_headers_that_claim_too_much(tmp_path, shape):
    np.savez(tmp_path / "x.npz", **arrays(train_images=None))
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("train_images.npy", claim(shape, 1000))
    refused(tmp_path / "x.npz", "cannot be read")


def test_an_npz_bomb_is_not_unpacked(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", **arrays(train_images=None))
    with zipfile.ZipFile(tmp_path / "x.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_images.npy", claim((64, 1024, 1024), 2**26))
    assert (tmp_path / "x.npz").stat().st_size < 2**19
    monkeypatch.setattr(os, "sysconf", lambda name: 2**13)  # 64 MB of memory
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    refused(tmp_path / "x.npz", "0.1 GB", "GB of memory")


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_bomb_that_understates_its_size(tmp_path, kind, peak):
    header, lie = claim((40, 18, 17), 0), 40 * 18 * 17
    with zipfile.ZipFile(tmp_path / "bomb", "w", kind) as archive:
        archive.writestr("train_images.npy", header + bytes(2**26))
    content = (tmp_path / "bomb").read_bytes()
    true, told = (struct.pack("<I", len(header) + n) for n in (2**26, lie))
    assert content.count(true) == 2
    np.savez(tmp_path / "rest.npz", **arrays(train_images=None))
    (tmp_path / "x.npz").write_bytes(content.replace(true, told))
    with zipfile.ZipFile(tmp_path / "rest.npz") as rest, zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        for name in rest.namelist():
            archive.writestr(name, rest.read(name))
    peak()
    refused(tmp_path / "x.npz", "cannot be read")
    assert peak() < 2**23


def test_the_checksum_of_data_tells_shapes_apart(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, 60 * 16 * 18, dtype=np.uint8)
    sums = set()
    for height, width in ((16, 18), (18, 16)):
        images = pixels.reshape(60, height, width)
        labels = np.arange(60) % 2
        np.savez(
            tmp_path / f"{width}.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels
        )
        sums.add(load_images(str(tmp_path / f"{width}.npz")).sha256)
    assert len(sums) == 2


def test_names_from_outside_are_inert():
    assert inert("<b>'\"&`$\\[x](y)\u202e\n\x1b") == "_b________x_(y)___"
    assert inert("Röntgen 3.1 (left), 日本") == "Röntgen 3.1 (left), 日本"
