"""Copies among the images of a data set, searched for once; and which training images are copies of test images."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..storage.cache import memo_record
from .copies import Copy, find_copies, groups_of_copies
from .images import Images, digest_of

VERSION = 1  # of what `find_copies` finds


def copies_of(images: Images) -> list[Copy]:
    """All copies, exact and near. Their numbers count training images first, then test images."""
    return _searched(images.sha256, lambda: torch.cat([images.train, images.test]))


def copies_among(pixels: Tensor, digest: str = "") -> np.ndarray:
    """int64 N: a number for each image, equal for images that are copies of each other. digest: of the pixels, where it
    is known."""
    digest = digest or digest_of([pixels]).hexdigest()
    return groups_of_copies(_searched(digest, lambda: pixels), len(pixels))


def _searched(digest: str, pixels: Callable[[], Tensor]) -> list[Copy]:
    def compute() -> dict[str, Tensor]:
        rows = [(c.a, c.b, c.exact, c.mirrored, c.likeness) for c in find_copies(pixels())]
        return {"copies": torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)}

    rows = memo_record("copies", {"version": VERSION, "images": digest}, compute, "looking for copies")[
        "copies"
    ].tolist()
    return [Copy(int(a), int(b), bool(exact), likeness, bool(mirrored)) for a, b, exact, mirrored, likeness in rows]


def copied_to_test(images: Images) -> list[int]:
    """The training images of which there is a copy among the test images, in order."""
    n_train = len(images.train)
    return sorted({copy.a for copy in copies_of(images) if copy.a < n_train <= copy.b})
