"""Exact and near copies among images: found where they were made, and nowhere else."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contrastive.data.copies import Copy, find_copies, groups_of_copies
from contrastive.settings import data_root

from .conftest import HAVE_MNIST

CIFAR, XRAYS = data_root() / "cifar10-jpg" / "train", data_root() / "pneumoniamnist.npz"
MAXIMUM_GROWTH = 200  # MiB; the similarities of all pairs alone would be 380
MEMORY = """
import resource, torch
from contrastive.data.copies import find_copies
torch.set_num_threads(1)
images = torch.randint(256, (10_000, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
find_copies(images[:50])  # loads what torch loads late
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert find_copies(images) == []
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def textured(n, size=32, channels=3, seed=0):
    """Smooth fields with texture of several scales, each enlarged from noise."""
    rng = np.random.default_rng(seed)
    fields = []
    for _ in range(n):
        field = np.zeros((size, size, channels))
        for cells, weight in ((3, 50), (8, 25), (size // 2, 12), (size, 6)):
            for c in range(channels):
                noise = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
                field[..., c] += weight * np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC))
        fields.append(np.clip(128 + field, 0, 255).astype(np.uint8).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(fields))


def each(images, alter):
    """Images, altered as pictures one by one."""
    made = []
    for image in images:
        picture = alter(Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy()))
        made.append(np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(made))


def jpeg(picture, quality=60):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


def resized(picture, factor):
    return picture.resize([round(side * factor) for side in picture.size]).resize(picture.size)


def cropped(picture, share=0.08, left=0.7, top=0.2):
    width, height = picture.size
    x, y, rest = width * share * left, height * share * top, 1 - share
    box = (x, y, x + width * rest, y + height * rest)
    return picture.resize(picture.size, Image.Resampling.BICUBIC, box=box)


def mirrored(picture):
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


ALTERATIONS = {
    "jpeg": jpeg,
    "half": lambda picture: resized(picture, 0.5),
    "twice": lambda picture: resized(picture, 2),
    "cropped": cropped,
    "mirrored": mirrored,
    "brighter": lambda picture: picture.point(lambda v: min(255, int(v * 1.1 + 6))),
    "darker": lambda picture: picture.point(lambda v: int(v * 0.85)),
    "mirrored and jpeg": lambda picture: jpeg(mirrored(picture)),
    "mirrored, cropped and jpeg": lambda picture: jpeg(cropped(mirrored(picture)), 75),
}


def pairs(copies):
    return {(copy.a, copy.b) for copy in copies}


@pytest.fixture(scope="module")
def photographs():
    return textured(600)


@pytest.mark.parametrize("kind", ALTERATIONS)
def test_altered_copies_are_found_and_nothing_else(photographs, kind):
    n = len(photographs)
    copies = find_copies(torch.cat([photographs, each(photographs[:40], ALTERATIONS[kind])]))
    assert pairs(copies) == {(i, n + i) for i in range(40)}
    assert not any(copy.exact for copy in copies)
    assert {copy.mirrored for copy in copies} == {"mirrored" in kind}
    assert all(0.9 < copy.likeness <= 1 for copy in copies)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 1), (100, 3)])
def test_images_of_other_sizes_and_of_one_channel(size, channels):
    images = textured(200, size, channels)
    made = each(images[:10], lambda picture: jpeg(picture, 90)), each(images[10:20], mirrored)
    copies = find_copies(torch.cat([images, *made]))
    assert pairs(copies) == {(i, 200 + i) for i in range(20)}


def test_images_need_not_be_square():
    images = textured(200, 48)[:, :, 6:42]
    copies = find_copies(torch.cat([images, each(images[:20], cropped)]))
    assert pairs(copies) == {(i, 200 + i) for i in range(20)}


def test_other_images_are_not_reported(photographs):
    assert find_copies(photographs) == []
    assert find_copies(textured(60, seed=5)) == []
    # The same background with something else on it: alike as a whole, and of one kind
    shared, own = photographs[:1].int(), textured(300, seed=3).int()
    assert find_copies((0.7 * shared + 0.3 * own).to(torch.uint8)) == []


def test_exact_copies_are_all_linked_to_the_first(photographs):
    images = photographs[[0, 1, 0, 2, 0, 2, 3]]
    copies = find_copies(images)
    assert copies == [Copy(a, b, True, 1.0, False) for a, b in ((0, 2), (0, 4), (3, 5))]
    assert groups_of_copies(copies, 7).tolist() == [0, 1, 0, 2, 0, 2, 3]


def test_blank_images_have_exact_copies_only(photographs):
    grey = torch.full((4, 3, 32, 32), 7, dtype=torch.uint8)
    grey[1, 0, 0, 0] = 8  # one level of one pixel
    grey[2] = 9
    copies = find_copies(torch.cat([photographs[:100], grey]))
    assert copies == [Copy(100, 103, True, 1.0, False)]
    assert find_copies(grey) == [Copy(0, 3, True, 1.0, False)]


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_images_for_a_copy(photographs, n):
    assert find_copies(photographs[:n]) == []
    assert groups_of_copies([], n).tolist() == list(range(n))


def test_two_images_are_enough_for_one(photographs):
    image = photographs[:1]
    (copy,) = find_copies(torch.cat([image, each(image, mirrored)]))
    assert (copy.a, copy.b, copy.exact, copy.mirrored) == (0, 1, False, True)
    assert find_copies(photographs[:2]) == []


def test_the_order_of_the_images_is_of_no_account(photographs):
    made = each(photographs[:20], jpeg), each(photographs[:20], cropped)
    images = torch.cat([photographs[:300], photographs[:5], *made])
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    copies, permuted = find_copies(images), find_copies(images[order])
    assert copies == find_copies(images)
    groups, others = groups_of_copies(copies, len(images)), groups_of_copies(permuted, len(images))
    assert np.array_equal(groups[order][:, None] == groups[order], others[:, None] == others)
    assert sorted(c.likeness for c in copies) == sorted(c.likeness for c in permuted)
    assert len(set(groups)) == 300


def test_groups_of_many_copies_hold_together(photographs):
    kinds = [lambda p, q=q: jpeg(p, q) for q in range(50, 95, 5)] + list(ALTERATIONS.values())
    copies = torch.cat([each(photographs[:3], kind) for kind in kinds])
    groups = groups_of_copies(find_copies(torch.cat([photographs, copies])), 600 + len(copies))
    assert groups[600:].tolist() == groups[:3].tolist() * len(kinds)
    assert len(set(groups)) == 600


def test_a_data_set_of_which_half_are_copies(photographs):
    copies = find_copies(torch.cat([photographs, each(photographs, jpeg)]))
    assert pairs(copies) == {(i, 600 + i) for i in range(600)}


def test_memory_mapped_images(photographs, tmp_path):
    np.save(tmp_path / "images.npy", torch.cat([photographs[:200], each(photographs[:9], jpeg)]).numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="r+"))
    assert pairs(find_copies(mapped)) == {(i, 200 + i) for i in range(9)}


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_is_bounded():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < MAXIMUM_GROWTH


@pytest.mark.skipif(not CIFAR.is_dir(), reason="needs JPEGs of CIFAR-10")
def test_copies_of_photographs():
    files = sorted(Path(CIFAR).glob("*/*.jpg"))[::5]
    images = torch.from_numpy(np.stack([np.asarray(Image.open(file)).transpose(2, 0, 1) for file in files]))
    n = len(images)
    for kind, alter in ALTERATIONS.items():
        found = pairs(find_copies(torch.cat([images, each(images[:50], alter)])))
        assert len(found & {(i, n + i) for i in range(50)}) >= 49, kind
        assert sum(b < n for _, b in found) <= 2, kind  # CIFAR-10 itself holds some
        assert all(a == b - n for a, b in found if b >= n), kind


@pytest.mark.skipif(not XRAYS.is_file(), reason="needs PneumoniaMNIST")
def test_copies_of_x_rays():
    images = torch.from_numpy(np.load(XRAYS)["test_images"])[:, None]
    assert all(copy.exact for copy in find_copies(images))  # of many alike
    for kind, alter in ALTERATIONS.items():
        n = len(images)
        group = groups_of_copies(find_copies(torch.cat([images, each(images[:40], alter)])), n + 40)
        assert np.mean(group[:40] == group[n:]) >= 0.9, kind


@pytest.mark.skipif(not HAVE_MNIST, reason="needs MNIST")
def test_digits_are_not_copies_of_each_other():
    file = data_root() / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    digits = torch.from_numpy(np.fromfile(file, np.uint8, offset=16).reshape(-1, 1, 28, 28)[:4000])
    assert find_copies(digits) == []
    copies = find_copies(torch.cat([digits, each(digits[:40], mirrored), each(digits[40:80], lambda p: jpeg(p, 90))]))
    assert pairs(copies) == {(i, 4000 + i) for i in range(80)}
