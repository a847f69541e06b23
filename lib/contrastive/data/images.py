"""Images in memory, and what is said of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .preparation import Preparation

# The original MNIST, and the recipe's constants for it
MNIST_SHA256 = "731c02e50f07a2fc93cc2c9b0df709507fc27cba0aff0ee3592e75b0849b602e"
MNIST_STATISTICS = ((0.1307,), (0.3081,))


@dataclass(frozen=True)
class ImageFormat:
    """What a network has to know of images. shape: channels, height, width. mean, std: of each channel, of images in
    [0, 1]."""

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    n_classes: int = 0


@dataclass(frozen=True)
class Account:
    """What was read of a source, and what was not.

    rows: (split, class, images), in order; class "" is without a label. left_out: (where, why, how many). remarks: what
    a reader has to know, in sentences. done: what was done to how many pictures. prepared: how all were brought to one
    shape. damaged: (file, what is wrong with it) of those that were left out.
    """

    rows: tuple[tuple[str, str, int], ...] = ()
    left_out: tuple[tuple[str, str, int], ...] = ()
    remarks: tuple[str, ...] = ()
    done: tuple[tuple[str, int], ...] = ()
    prepared: str = ""
    damaged: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Images:
    """A data set.

    train, test: uint8 N x C x H x W, in memory or mapped from a file. train_labels, test_labels: int64 N, -1 for none.
    Either all test images have one, or none has: these are to look at, and there may be none. classes: their names.
    mean, std: per channel, of images in [0, 1]. sha256: of all that decides a run. note: what a reader must know about
    where the data came from; empty when they are what was asked for. handwriting: whether they are digits, bright on
    dark. validation: int64, which training images the source sets aside for validation; empty if it leaves that to us.
    groups, test_groups: int64, of each image; empty if there are none. group_names: by number, "" for images without a
    group, which are of their own. straddling: how many groups are in both training and test images. train_names,
    test_names: of their files. preparation: what was done to each picture. account: what was read.
    """

    name: str
    train: Tensor = field(repr=False)
    train_labels: Tensor = field(repr=False)
    test: Tensor = field(repr=False)
    test_labels: Tensor = field(repr=False)
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    note: str = ""
    handwriting: bool = False
    validation: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64), repr=False)
    groups: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64), repr=False)
    test_groups: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64), repr=False)
    group_names: tuple[str, ...] = field(default=(), repr=False)
    straddling: int = 0
    train_names: tuple[str, ...] = field(default=(), repr=False)
    test_names: tuple[str, ...] = field(default=(), repr=False)
    preparation: Preparation = field(default_factory=lambda: Preparation(0, 0, 0))
    account: Account = field(default_factory=Account, repr=False)

    @property
    def format(self) -> ImageFormat:
        """What a network has to know of them."""
        return ImageFormat(tuple(self.train.shape[1:]), self.mean, self.std, len(self.classes))

    @property
    def kind(self) -> str:
        """What they are, as far as it decides what suits them: digits, photos (of colours) or grey."""
        return "digits" if self.handwriting else "grey" if self.train.shape[1] == 1 else "photos"

    @cached_property
    def n_labels(self) -> int:
        """How many training images have a label."""
        return int((self.train_labels >= 0).sum())

    @property
    def labelled(self) -> Tensor:
        """int64: which training images have a label."""
        return (self.train_labels >= 0).nonzero().flatten()

    @property
    def cross_validated(self) -> bool:
        """Whether there are labels, and no test image has one."""
        return self.n_labels > 0 and not bool((self.test_labels >= 0).any())

    def to_look_at(self, n: int) -> tuple[Tensor, Tensor]:
        """At most n images to show, uint8, and their labels: test images, or where there are none, training images."""
        if len(self.test):
            sample = self.test_sample(n)
            return self.test[sample], self.test_labels[sample]
        sample = torch.from_numpy(np.sort(np.random.default_rng(0x7E57).permutation(len(self.train))[:n]))
        return self.train[sample], self.train_labels[sample]

    def test_sample(self, n: int) -> Tensor:
        """Rising int64 indices of n test images, or of all, the same every time. In files they may lie by class."""
        order = np.random.default_rng(0x7E57).permutation(len(self.test))
        return torch.from_numpy(np.sort(order[:n]))


def inert(text: str) -> str:
    """A name from outside with everything replaced that HTML, Markdown, TeX or a terminal might take for a command."""
    return "".join(c if c.isalnum() or c in " -.,()+/:" else "_" for c in text)


def make_images(
    name: str,
    arrays: Sequence[np.ndarray],
    note: str = "",
    classes: Sequence[str] = (),
    handwriting: bool = False,
) -> Images:
    """A data set from its four arrays: images uint8 N x H x W or N x C x H x W and labels from 0, all in memory, to
    train on and to test on."""
    train, train_labels, test, test_labels = (torch.from_numpy(np.require(a, requirements=["C", "W"])) for a in arrays)
    train, test = (x.unsqueeze(1) if x.ndim == 3 else x for x in (train, test))
    train_labels, test_labels = train_labels.long(), test_labels.long()
    n_classes = int(max(train_labels.max(), test_labels.max())) + 1
    shown = names_of_classes(classes or [str(i) for i in range(n_classes)])
    digest = digest_of((train, train_labels, test, test_labels))
    if len(classes) > n_classes:  # without an image, yet a network has an output for it
        digest.update(f"{len(classes)} classes\n".encode())
    mean, std = statistics(train)
    rows = tuple(
        (split, c, int((labels == i).sum()))
        for split, labels in (("train", train_labels), ("test", test_labels))
        for i, c in enumerate(shown)
    )
    images = Images(
        name, train, train_labels, test, test_labels, shown, mean, std, digest.hexdigest(), note, handwriting,
        preparation=Preparation(train.shape[2], train.shape[3], train.shape[1]), account=Account(rows),
    )  # fmt: skip
    return as_original(images)


def as_original(images: Images) -> Images:
    """The original MNIST with the recipe's constants for it; any others as they are.

    By what they are, not by where they came from: a run is named by the checksum, which has to decide these, too.
    """
    if images.sha256 != MNIST_SHA256:
        return images
    mean, std = MNIST_STATISTICS
    return replace(images, mean=mean, std=std, handwriting=True)


def names_of_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes as they are shown: harmless, short, and no two alike."""
    shown = [inert(name)[:40] for name in names]
    return tuple(name if shown.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(shown))


def digest_of(parts: Iterable[Tensor]) -> hashlib._Hash:
    """SHA-256 of tensors, their types and shapes, to be gone on with."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.dtype} {tuple(part.shape)}\n".encode())
        digest.update(part.contiguous().numpy().data if part.numel() else b"")
    return digest


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images as if in [0, 1], by counting grey levels."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for c in range(images.shape[1]):
        counts = sum(torch.bincount(part[:, c].flatten(), minlength=256) for part in images.split(1000))
        share = torch.as_tensor(counts).double() / (len(images) * images[0, 0].numel())
        means.append((share * levels).sum().item())
        stds.append(max((share * (levels - means[-1]) ** 2).sum().item() ** 0.5, 1e-3))
    return tuple(means), tuple(stds)
