"""Files of arrays: those that claim too much, IDX files in every packing, and an .npz in a folder or an archive."""

import gzip
import io
import os
import struct
import zipfile

import numpy as np
import pytest
import torch

from contrastive import load_images
from contrastive.data.idx import IDX_FILES

from .mnist_files import small_set
from .source_cases import little_memory, refused, rows_of

READ = {"train": {"0": 20, "1": 20}, "test": {"0": 4, "1": 4}}


def parts(**changes):
    """Arrays as MedMNIST has them, of 40 and 8 images, with some replaced, or left out if they are None."""
    rng = np.random.default_rng(0)
    found = {}
    for part, n in (("train", 40), ("test", 8)):
        found[f"{part}_images"] = rng.integers(0, 256, (n, 12, 10), dtype=np.uint8)
        found[f"{part}_labels"] = np.arange(n) % 2
    return {name: array for name, array in (found | changes).items() if array is not None}


def claim(shape, size):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(size)


@pytest.mark.parametrize("shape", [(10**12, 28, 28), (10**12,), (2**63, 2**63), (-1, 28, 28)])
def test_headers_that_claim_too_much(tmp_path, shape):
    np.savez(tmp_path / "x.npz", **parts(train_images=None))
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("train_images.npy", claim(shape, 1000))
    (tmp_path / "x.npy").write_bytes(claim(shape, 1000))
    with little_memory():
        refused(tmp_path / "x.npz", "cannot be read")
        refused(tmp_path / "x.npy", "cannot be read")


def test_an_npz_bomb_is_not_unpacked(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", **parts(train_images=None))
    with zipfile.ZipFile(tmp_path / "x.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_images.npy", claim((64, 1024, 1024), 2**26))
    assert (tmp_path / "x.npz").stat().st_size < 2**19
    monkeypatch.setattr(os, "sysconf", lambda name: 2**13)  # 64 MB of memory
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    refused(tmp_path / "x.npz", "0.1 GB.*GB of memory")


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_bomb_that_understates_its_size(tmp_path, kind, peak):
    header, lie = claim((40, 18, 17), 0), 40 * 18 * 17
    with zipfile.ZipFile(tmp_path / "bomb", "w", kind) as archive:
        archive.writestr("train_images.npy", header + bytes(2**26))
    content = (tmp_path / "bomb").read_bytes()
    true, told = (struct.pack("<I", len(header) + n) for n in (2**26, lie))
    assert content.count(true) == 2
    np.savez(tmp_path / "rest.npz", **parts(train_images=None))
    (tmp_path / "x.npz").write_bytes(content.replace(true, told))
    with zipfile.ZipFile(tmp_path / "rest.npz") as rest, zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        for name in rest.namelist():
            archive.writestr(name, rest.read(name))
    peak()
    refused(tmp_path / "x.npz", "cannot be read")
    assert peak() < 2**23


# --- IDX ------------------------------------------------------------------------------------------------------------


def as_idx(root, change=lambda name, content: (name, content)):
    root.mkdir(parents=True, exist_ok=True)
    for name, content in small_set().items():
        new, changed = change(name, content)
        (root / new).write_bytes(changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda name, content: (name, content),
        lambda name, content: (f"{name}.gz", gzip.compress(content)),
        lambda name, content: (name.replace("-idx", ".idx"), content),
        lambda name, content: (name, content) if "train" in name else (f"{name}.gz", gzip.compress(content)),
    ],
)
@pytest.mark.parametrize("folder", ["", "MNIST/raw"])
def test_idx_files(tmp_path, fresh_runs, change, folder):
    as_idx(tmp_path / "plain")
    expected = load_images(tmp_path / "plain")
    as_idx(tmp_path / "x" / folder, change)
    (tmp_path / "x" / "preview.png").write_bytes(b"x")
    images = load_images(tmp_path / "x")
    assert images.sha256 == expected.sha256
    assert images.account.left_out == (("", "beside the arrays", 1),)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in sorted((tmp_path / "x").rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    assert load_images(tmp_path / "x.zip").sha256 == expected.sha256


def test_idx_files_that_lack_or_lead_out(tmp_path):
    as_idx(tmp_path / "data")
    (tmp_path / "data" / IDX_FILES[1]).rename(tmp_path / "labels")
    refused(tmp_path / "data", f"{IDX_FILES[1]} is missing")
    (tmp_path / "data" / IDX_FILES[1]).symlink_to(tmp_path / "labels")
    refused(tmp_path / "data", f"{IDX_FILES[1]} is a link that leads out")


def test_an_idx_file_that_claims_10_to_the_12_images(tmp_path):
    as_idx(tmp_path)
    (tmp_path / IDX_FILES[0]).write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">III", 4_000_000_000, 28, 28) + bytes(100))
    with little_memory():
        refused(tmp_path, f"{IDX_FILES[0]} is truncated")
        with (tmp_path / IDX_FILES[0]).open("r+b") as file:
            file.truncate(16 + 4_000_000_000 * 784)  # sparse: it really has that size, on a few blocks of disk
        refused(tmp_path, f"{IDX_FILES[0]}.*GB of memory")


def test_an_npz_in_a_folder_or_an_archive(tmp_path, fresh_runs):
    made = io.BytesIO()
    np.savez(made, **parts())
    (tmp_path / "x" / "inner").mkdir(parents=True)
    (tmp_path / "x" / "inner" / "pets.npz").write_bytes(made.getvalue())
    (tmp_path / "x" / "README").write_text("x")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/pets.npz", made.getvalue())
    a, b = load_images(tmp_path / "x"), load_images(tmp_path / "x.zip")
    assert rows_of(a) == rows_of(b) == READ
    assert a.sha256 == b.sha256
    assert a.account.left_out == (("", "beside the arrays", 1),)
    (tmp_path / "x" / "other.npz").write_bytes(made.getvalue())
    refused(tmp_path / "x", "several arrays, 'inner/pets.npz' and 'other.npz'. Give the path of one")


def test_old_caches_of_torchvision_are_not_read(no_data):
    as_idx(no_data / "MNIST" / "raw")
    (no_data / "MNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1)), no_data / "MNIST" / "processed" / name)
    assert load_images("mnist").train.shape == (60, 1, 28, 28)
