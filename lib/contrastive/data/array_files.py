"""Files that hold arrays, in a folder or an archive: IDX files as MNIST has them, or one .npz or .npy."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath

import numpy as np

from ..settings import UserError, runs_root
from ..storage.files import atomic_write
from . import arrays, layout
from .arrays import ArrayPictures
from .idx import IDX_FILES, check_idx, read_idx, unpack
from .manifest import Manifest
from .trees import Folder, Tree

ARRAY_ENDINGS = (".npz", ".npy")
ARRAY_NAMES = ("train_images", "train_labels", "test_images", "test_labels")  # of the IDX files


def idx_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of the four IDX files in a folder. Raises: UserError."""
    return {name: read_idx(folder / file) for name, file in zip(ARRAY_NAMES, IDX_FILES, strict=True)}


def idx_names(tree: Tree) -> dict[str, str]:
    """IDX file -> its name in the tree, as it is or compressed, and also if a dot is where MNIST has a hyphen."""
    found: dict[str, str] = {}
    for name in tree.names:
        plain = name.rpartition("/")[2].removesuffix(".gz").replace(".idx", "-idx")
        if plain in IDX_FILES and not layout.junk(name) and (plain not in found or found[plain].endswith(".gz")):
            found[plain] = name
    return found


def array_names(tree: Tree) -> list[str]:
    """The files of a tree that hold its arrays."""
    packed = [name for name in tree.names if name.lower().endswith(ARRAY_ENDINGS) and not layout.junk(name)]
    return list(idx_names(tree).values()) or packed


def arrays_in(tree: Tree, label: str | None = None) -> tuple[ArrayPictures, Manifest]:
    """The arrays in a tree without image files: IDX files, or one .npz or .npy. label: as `read_labels` takes it.
    Raises: UserError."""
    idx, names = idx_names(tree), array_names(tree)
    if idx:
        folder, as_they_are = tree.where, isinstance(tree, Folder) and all(new == name for new, name in idx.items())
        if not as_they_are and len(idx) == len(IDX_FILES):
            folder = _unpacked(tree, idx)
        check_idx(folder, folder)
        return arrays.read_arrays(idx_arrays(folder), tree.where, tree.stamp(names), label)
    if not names:
        raise layout.nothing_found(tree)
    if len(names) > 1:
        raise UserError(f"{tree.where} holds several arrays, {names[0]!r} and {names[1]!r}. Give the path of one.")
    name = PurePosixPath(names[0]).name
    file = tree.where / names[0] if isinstance(tree, Folder) else _unpacked(tree, {name: names[0]}) / name
    return arrays.read_arrays(arrays.read_npz(file), tree.where / names[0], tree.stamp(names), label)


def _unpacked(tree: Tree, names: dict[str, str]) -> Path:
    """A folder among the caches that holds some files of a tree, without their own compression: new name -> name there.

    Raises: UserError.
    """
    folder = runs_root() / "cache" / f"unpacked-{tree.stamp(list(names.values()))[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for new, name in names.items():
            if (folder / new).exists():
                continue
            content = tree.read(name)
            if name.endswith(".gz"):
                content = unpack(io.BytesIO(content), None)
            atomic_write(folder / new, content)
    except UserError:
        raise
    except Exception as error:  # archives can be broken in many ways
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"{tree.where} cannot be unpacked into {folder} ({reason}). Unpack it by hand.") from None
    return folder
