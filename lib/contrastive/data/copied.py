"""Copies among the images of a data set, searched for once; and which training images are copies of test images."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..storage.cache import memo_record
from .copies import Copy, find_copies, groups_of_copies
from .images import Images

VERSION = 1  # of what `find_copies` finds


def copies_of(images: Images) -> list[Copy]:
    """All copies, exact and near. Their numbers count training images first, then test images."""
    return _searched(images.sha256, lambda: torch.cat([images.train, images.test]))


def equal_images(pixels: np.ndarray, places: Sequence[int]) -> np.ndarray:
    """int64 N: a number for each of the N images at these places, equal for those with the same pixels, whatever
    computes it. One image at a time, since all may be more than memory holds."""
    known: dict[bytes, int] = {}
    digests = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in map(pixels.__getitem__, places))
    return np.array([known.setdefault(digest, len(known)) for digest in digests], dtype=np.int64)


def _searched(digest: str, pixels: Callable[[], Tensor]) -> list[Copy]:
    def compute() -> dict[str, Tensor]:
        rows = [(c.a, c.b, c.exact, c.mirrored, c.likeness) for c in find_copies(pixels())]
        return {"copies": torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)}

    rows = memo_record("copies", {"version": VERSION, "images": digest}, compute, "looking for copies")[
        "copies"
    ].tolist()
    return [Copy(int(a), int(b), bool(exact), likeness, bool(mirrored)) for a, b, exact, mirrored, likeness in rows]


def across_splits(images: Images, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Training images of which there is a copy among the test images, and those test images; copies of copies count.

    Args:
        images: of a data set.
        exact: whether near copies do not count.

    Returns:
        int64 places among the training images, and among the test images.
    """
    n_train = len(images.train)
    found = [copy for copy in copies_of(images) if copy.exact or not exact]
    kind = groups_of_copies(found, n_train + len(images.test))
    train, test = kind[:n_train], kind[n_train:]
    return np.flatnonzero(np.isin(train, test)), np.flatnonzero(np.isin(test, train))
