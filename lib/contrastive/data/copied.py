"""Copies among the images of a data set, searched for once; and which training images are copies of test images."""

import torch

from ..storage.cache import memo_record
from .copies import Copy, find_copies
from .images import Images

VERSION = 1  # of what `find_copies` finds


def copies_of(images: Images) -> list[Copy]:
    """All copies, exact and near. Their numbers count training images first, then test images."""

    def compute() -> dict[str, torch.Tensor]:
        found = find_copies(torch.cat([images.train, images.test]))
        rows = [(c.a, c.b, c.exact, c.mirrored, c.likeness) for c in found]
        return {"copies": torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)}

    decisive = {"version": VERSION, "images": images.sha256}
    rows = memo_record("copies", decisive, compute, "looking for copies")["copies"].tolist()
    return [Copy(int(a), int(b), bool(exact), likeness, bool(mirrored)) for a, b, exact, mirrored, likeness in rows]


def copied_to_test(images: Images) -> list[int]:
    """The training images of which there is a copy among the test images, in order."""
    n_train = len(images.train)
    return sorted({copy.a for copy in copies_of(images) if copy.a < n_train <= copy.b})
