"""Pictures as files, and how often each was decoded: what tests of the packed cache share."""

import hashlib
import multiprocessing
import os
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageOps

from contrastive.data import packed, pictures
from contrastive.data.pictures import FilePictures, Reading
from contrastive.data.trees import open_tree

N = 20
fork = multiprocessing.get_context("fork" if os.name == "posix" else None)
needs_fork = pytest.mark.skipif(os.name != "posix", reason="a process has to begin with what a test has changed")


def scene(i, height=24, width=24, channels=3):
    """A picture unlike any other, and unsymmetrical."""
    y, x = np.mgrid[:height, :width]
    layers = [(x * 3 + i * 7) % 256, (y * 5 + i) % 256, (x + 2 * y + i * 3) % 256][:channels]
    return np.stack(layers, -1).astype(np.uint8).squeeze()


def scenes(n=N, **kind):
    return [scene(i, **kind) for i in range(n)]


def save(folder, arrays, kind="png"):
    """Write arrays as files that are named in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{i:03}.{kind}")
    return folder


def found_in(folder, **reading):
    tree = open_tree(folder)
    return FilePictures(tree, tree.names, Reading(**reading))


def pack(folder, **reading):
    return packed.pack(found_in(folder, **reading), Reading(**reading))


def as_pillow_has_it(array, side, channels):
    """An 8-bit picture, cut about its centre to a square, as N x H x W."""
    image = Image.fromarray(array).convert("RGB" if channels == 3 else "L")
    fitted = image if image.size == (side, side) else ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(fitted).reshape(side, side, channels).transpose(2, 0, 1)


@pytest.fixture(name="decoded")
def fixture_decoded(tmp_path, monkeypatch):
    """A function that gives how often each picture was decoded so far, by whatever process; each takes a while where
    `decoded.seconds` says so, and `decoded.before` is called first."""
    log, original = tmp_path / "decoded.log", pictures.decode

    def decode(content, *args):
        with log.open("a") as file:
            file.write(f"{os.getpid()} {hashlib.sha256(content).hexdigest()}\n")
        counts.before()
        time.sleep(counts.seconds)
        return original(content, *args)

    def counts():
        return Counter(line.split()[1] for line in log.read_text().splitlines()) if log.exists() else Counter()

    counts.log, counts.seconds, counts.before = log, 0, lambda: None
    monkeypatch.setattr(pictures, "decode", decode)
    return counts


@pytest.fixture(name="few_at_a_time")
def fixture_few_at_a_time(monkeypatch):
    """Chunks of three pictures, kept as soon as they are there, by one process."""
    monkeypatch.setattr(pictures, "CHUNK", 3)
    monkeypatch.setattr(packed, "FLUSH_SECONDS", 0)


def caches(runs):
    return sorted(runs.glob("cache/images-*"))


def kept_pixels(cache):
    """The one file of pixels in the folder of a cache."""
    (path,) = cache.glob("pixels-*")
    return path


@pytest.fixture(name="two_processes")
def fixture_two_processes(monkeypatch):
    """Pictures are decoded by two other processes, three at a time."""
    if len(getattr(os, "sched_getaffinity", lambda _: "0")(0)) < 2:
        pytest.skip("needs two cores")
    monkeypatch.setattr(pictures, "CHUNK", 3)
    monkeypatch.setattr(pictures, "PARALLEL_FROM", 1)
