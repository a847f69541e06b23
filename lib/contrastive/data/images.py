"""Images in memory, and what is said of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..settings import UserError

MAX_CLASSES = 1000
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
class Images:
    """A labelled data set in memory.

    train, test: uint8 N x C x H x W. train_labels, test_labels: int64 N. classes: their names.
    mean, std: per channel, of images in [0, 1]. sha256: of the four tensors. note: what a reader must know
    about where the data came from; empty when they are what was asked for. handwriting: whether they are digits, bright
    on dark.
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

    @property
    def format(self) -> ImageFormat:
        """What a network has to know of them."""
        return ImageFormat(tuple(self.train.shape[1:]), self.mean, self.std, len(self.classes))

    def test_sample(self, n: int) -> Tensor:
        """Rising int64 indices of n test images, or of all, the same every time. In files they may lie by class."""
        order = np.random.default_rng(0x7E57).permutation(len(self.test))
        return torch.from_numpy(np.sort(order[:n]))

    def leaked(self) -> int:
        """How many test images are among the training images, pixel by pixel."""
        train, test = (
            [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.numpy()]
            for images in (self.train, self.test)
        )
        known = set(train)
        return sum(image in known for image in test)


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
    """A data set from its four arrays: images uint8 N x H x W or N x C x H x W and labels, to train on and to test on.

    Raises: UserError when a label is no number that a class may have.
    """
    train, train_labels, test, test_labels = (torch.from_numpy(np.require(a, requirements=["C", "W"])) for a in arrays)
    train, test = (x.unsqueeze(1) if x.ndim == 3 else x for x in (train, test))
    train_labels, test_labels = train_labels.long(), test_labels.long()
    digest = hashlib.sha256()
    for part in (train, train_labels, test, test_labels):
        digest.update(f"{part.dtype} {tuple(part.shape)}\n".encode())
        digest.update(part.numpy().data)
    # By what they are, not by where they came from: a run is named by the checksum, which has to decide these, too.
    original = digest.hexdigest() == MNIST_SHA256
    mean, std = MNIST_STATISTICS if original else _statistics(train)
    n_classes = int(max(train_labels.max(), test_labels.max())) + 1
    if min(train_labels.min(), test_labels.min()) < 0 or n_classes > MAX_CLASSES:
        raise UserError(f"the labels of {name} have to be numbers from 0 to {MAX_CLASSES - 1}.")
    if len(classes) > n_classes:  # without an image, yet a network has an output for it
        digest.update(f"{len(classes)} classes\n".encode())
    shown = [inert(c)[:40] for c in classes or map(str, range(n_classes))]
    shown = [c if shown.count(c) == 1 else f"{c} ({i})" for i, c in enumerate(shown)]
    return Images(
        name, train, train_labels, test, test_labels, tuple(shown), mean, std, digest.hexdigest(), note,
        handwriting or original,
    )  # fmt: skip


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images as if in [0, 1], by counting grey levels."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for c in range(images.shape[1]):
        counts = sum(torch.bincount(part[:, c].flatten(), minlength=256) for part in images.split(1000))
        share = torch.as_tensor(counts).double() / (len(images) * images[0, 0].numel())
        means.append((share * levels).sum().item())
        stds.append(max((share * (levels - means[-1]) ** 2).sum().item() ** 0.5, 1e-3))
    return tuple(means), tuple(stds)
