"""Features that were computed before, by image: files that are only ever added to, each checked when it is read."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..settings import UserError, runs_root
from ..storage.files import DamagedError, say
from ..storage.tensors import read_tensors, write_tensors

KEY_BYTES = 16  # of each image's SHA-256: two images of any number that fits a disk do not share them by chance


def image_keys(images: Tensor) -> list[bytes]:
    """What tells images, uint8 N x C x H x W, apart: a digest of each one's pixels and shape."""
    shape = f"{tuple(images.shape[1:])}\n".encode()
    pixels = images.cpu().contiguous().flatten(1).numpy()
    return [hashlib.sha256(shape + row.tobytes()).digest()[:KEY_BYTES] for row in pixels]


class FeatureStore:
    """The features of one network, by image, in a folder of its own below `$CONTRASTIVE_RUNS/cache`.

    Each file, `part-*.safetensors`, has `keys`, uint8 N x 16, and `features`, float32 N x D. None is ever changed. One
    process at a time adds to it: see `locked`; reading needs no lock.

    Args:
        identity: all that decides the features of an image.
        width: D, their number.

    Raises:
        UserError: when the folder cannot be made.
    """

    def __init__(self, identity: dict[str, Any], width: int) -> None:
        self.identity, self.width = json.dumps(identity, sort_keys=True), width
        self.folder = runs_root() / "cache" / f"general-{hashlib.sha256(self.identity.encode()).hexdigest()[:16]}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}. Set CONTRASTIVE_RUNS.") from None

    def read(self, keys: Sequence[bytes], repair: bool = False) -> dict[bytes, Tensor]:
        """The features of those of these images that are there, float32 D each.

        repair: whether damaged files are deleted, which is said; otherwise they are only left out.
        """
        wanted, found = set(keys), dict[bytes, Tensor]()
        for path in sorted(self.folder.glob("part-*.safetensors")):
            try:
                if wanted.isdisjoint(_as_bytes(self._keys(path))):  # before all of it is read and checked
                    continue
                metadata, tensors = read_tensors(path)
                here, features = _as_bytes(tensors["keys"]), tensors["features"]
                if metadata["identity"] != self.identity or features.shape != (len(here), self.width):
                    raise DamagedError(f"{path} is of another network.")
                found |= {key: row for key, row in zip(here, features, strict=True) if key in wanted}
            except FileNotFoundError:  # deleted by hand just now
                continue
            except (DamagedError, LookupError, TypeError, ValueError, AttributeError, SafetensorError, OSError):
                if repair:
                    say(f"{path} is damaged. Its features are computed again.")
                    with contextlib.suppress(OSError):
                        path.unlink()
        return found

    def add(self, keys: Sequence[bytes], features: Tensor) -> None:
        """Keep features, float32 N x D. For the one writer. Raises: RunError when they cannot be written."""
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:16]
        rows = torch.from_numpy(np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES).copy())
        path = self.folder / f"part-{name}.safetensors"
        write_tensors(path, {"identity": self.identity}, {"keys": rows, "features": features})

    @staticmethod
    def _keys(path: Path) -> Tensor:
        if not path.is_file():  # what is none, such as a pipe, might never end
            raise ValueError("no regular file")
        with safe_open(path, "pt") as file:
            return file.get_tensor("keys")


def _as_bytes(keys: Tensor) -> list[bytes]:
    if keys.dtype != torch.uint8 or keys.ndim != 2:
        raise ValueError("no keys")
    return [row.tobytes() for row in keys.numpy()]
