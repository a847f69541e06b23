"""Images that are made up, where only time counts: as quick to read and to train on as any others of their size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

CLASSES = 10


def made_up(n: int, side: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Smooth noise, half of it the same for all images of a class, so that there is something to learn.

    Returns: uint8 n x channels x side x side, the same every time; and labels, int64 n.
    """
    draws, labels = Generator().manual_seed(side), torch.arange(n) % CLASSES
    coarse = max(side // 4, 2)
    of_class = torch.rand(CLASSES, channels, coarse, coarse, generator=draws)
    noise = torch.rand(n, channels, coarse, coarse, generator=draws)
    images = torch.empty(n, channels, side, side, dtype=torch.uint8)
    for into, own, label in zip(images.split(256), noise.split(256), labels.split(256), strict=True):
        into.copy_(F.interpolate((own + of_class[label]) / 2, size=(side, side), mode="bilinear").mul(255).round())
    return images, labels


def write_made_up(folder: Path, n_train: int, n_test: int, side: int, channels: int = 3) -> Path:
    """The same as a data set in a file, for `load_images`. Returns its path."""
    images, labels = (part.numpy() for part in made_up(n_train + n_test, side, channels))
    path = folder / f"made-up-{side}.npz"
    np.savez(
        path, train_images=images[:n_train], train_labels=labels[:n_train],
        test_images=images[n_train:], test_labels=labels[n_train:],
    )  # fmt: skip
    return path
