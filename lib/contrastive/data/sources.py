"""Data sets by name, by path or as arrays -> `Images`. What was understood of them is in `Images.account`."""

import io
import os
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..settings import DataSettings, Settings, UserError, data_root, did_you_mean, runs_root
from ..storage.files import atomic_write
from . import arrays, layout
from .arrays import ArrayPictures
from .assemble import Source, assemble
from .cifar import read_cifar10
from .download import NoNetworkError
from .idx import IDX_FILES, check_idx, read_idx, unpack
from .images import Images, inert
from .labels_file import apply_table, find_table
from .manifest import Manifest
from .named import NAMED, SHORT_NAMES, ensure_named, named_note
from .pictures import FilePictures, Pictures, Reading
from .trees import Folder, Tree, file_stamp, is_archive, open_tree

NAMES = ("auto", "sklearn_digits", *NAMED)
USUAL_NAMES = ("auto", "sklearn_digits", *SHORT_NAMES)  # that messages list
ARRAY_ENDINGS = (".npz", ".npy")
ARRAY_NAMES = ("train_images", "train_labels", "test_images", "test_labels")


def load_images(dataset: Any = "auto", labels: Any = None, groups: Any = None, **options: Any) -> Images:
    """Load a data set by name or by path; or take arrays.

    A path is that of a folder or a .zip or .tar of images, with or without classes, splits and a labels.csv; of an .npz
    or .npy file; or of a folder with the four IDX files of MNIST or their like. `auto` is MNIST if it is on disk or can
    be downloaded, else scikit-learn's digits, and then `note` says why.

    Args:
        dataset: name, path, or images as an array: N x H x W, N x H x W x C or N x C x H x W, of any kind of number.
        labels: of an array: one an image, numbers or text; -1 or "" for none.
        groups: of an array: what must not be on both sides of a split, such as each image's patient.
        options: parameters of the component data, such as image_size.

    Returns:
        The images, checked, as uint8.

    Raises:
        UserError: when the data cannot be had, are damaged, or may mean several things.
    """
    if isinstance(dataset, (str, os.PathLike)):
        if labels is not None or groups is not None:
            raise UserError("labels and groups belong to arrays; of files, a labels.csv says them.")
        return read_images(Settings(dataset=os.fspath(dataset), **options).data)
    given = {"images": dataset, "labels": labels, "groups": groups}
    named = {name: np.asarray(value) for name, value in given.items() if value is not None}
    pictures, manifest = arrays.read_arrays(named, "the array")
    return assemble(Source("array", pictures, manifest), Settings(**options).data)


def read_images(data: DataSettings) -> Images:
    """The data set that settings name. Raises: UserError."""
    where = data.dataset
    if where in NAMES:
        return _named(data, str(data_root()))
    path = Path(os.path.expanduser(where))
    if not os.path.exists(path):
        if os.sep in where or path.is_symlink():
            raise UserError(f"there is no {path}. Give a folder of images, an archive of them, or an .npz file.")
        raise UserError(
            f"{did_you_mean(where, USUAL_NAMES, 'data set')} A folder of images, or an .npz file, does as well."
        )
    return _at_path(data, path, _state(data, path))


def _state(data: DataSettings, path: Path) -> str:
    """What changes when anything does that lies there."""
    if path.is_dir():
        tree = Folder(path, data.follow_links)
        return tree.stamp(tree.names)
    return file_stamp(path)


@lru_cache(maxsize=2)
def _named(data: DataSettings, root: str) -> Images:
    return assemble(_named_source(data.dataset, Path(root)), data)


@lru_cache(maxsize=2)
def _at_path(data: DataSettings, path: Path, state: str) -> Images:
    return assemble(_path_source(data, path), data)


def forget_images() -> None:
    """Give back the memory of the data sets that were loaded."""
    _named.cache_clear()
    _at_path.cache_clear()


def find_pictures(where: str, reading: Reading, data: DataSettings) -> Pictures:
    """All pictures at a path or of a name, whatever their labels. Raises: UserError."""
    path = Path(os.path.expanduser(where))
    if where in NAMES:
        return _named_source(where, data_root()).pictures
    if not path.exists():
        raise UserError(f"there is no {path}. Give an image, a folder of images, an archive of them, or an .npz file.")
    if path.is_file() and not is_archive(path) and path.suffix.lower() not in ARRAY_ENDINGS:
        tree: Tree = OneFile(path)
        return FilePictures(tree, tree.names, reading)
    return _path_source(data, path, reading).pictures


class OneFile:
    """A tree of a single file."""

    irregular = 0

    def __init__(self, path: Path) -> None:
        self.path, self.where, self.names = path, path.parent, [path.name]

    def stamp(self, names: Sequence[str]) -> str:
        """What changes when the file does."""
        return file_stamp(self.path)

    def read(self, name: str, most: int = -1) -> bytes:
        """Its content. Raises: OSError."""
        with self.path.open("rb") as file:
            return file.read(most)

    def size(self, name: str) -> int:
        """Its size in bytes."""
        return self.path.stat().st_size


# --- By name ------------------------------------------------------------------------------------------------------


def _named_source(name: str, root: Path) -> Source:
    if name == "sklearn_digits":
        return _digits()
    try:
        path = ensure_named("mnist" if name == "auto" else name, root)
    except NoNetworkError as problem:
        if name not in ("auto", "mnist"):
            raise
        if name == "mnist":
            raise UserError(
                f"{problem} Meanwhile use the data set 'digits' (sklearn_digits), which is bundled."
            ) from None
        os.environ.setdefault("CONTRASTIVE_OFFLINE", problem.reason)  # one look is enough, also for notebooks
        return _digits(
            f"MNIST is not in {inert(str(root / 'MNIST' / 'raw'))} and {problem.reason}, so these are scikit-learn's "
            "8x8 digits, enlarged to 28x28."
        )
    known = NAMED["mnist" if name == "auto" else name]
    if known.kind == "cifar10":
        named = dict(
            zip(("train_images", "train_labels", "test_images", "test_labels"), read_cifar10(path), strict=True)
        )
        stamp = ""
    elif known.kind == "idx":
        named, stamp = _idx_arrays(path), ""
    else:
        named, stamp = arrays.read_npz(path), file_stamp(path)
    found, manifest = arrays.read_arrays(named, known.title, stamp)
    return Source(known.name, found, manifest, named_note(known.name, path), known.classes, known.name == "mnist")


def _idx_arrays(folder: Path) -> dict[str, np.ndarray]:
    return {name: read_idx(folder / file) for name, file in zip(ARRAY_NAMES, IDX_FILES, strict=True)}


def _digits(note: str = "") -> Source:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float().mul(255 / 16).unsqueeze(1)  # 8x8, grey levels 0 to 16
    images = F.interpolate(small, size=(28, 28), mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
    # The set has no split of its own; this one is the same for every seed.
    train, test = train_test_split(np.arange(len(images)), test_size=360, stratify=bunch.target, random_state=0)
    named = {
        f"{part}_{what}": all_of[index]
        for part, index in (("train", train), ("test", test))
        for what, all_of in (("images", images.numpy()), ("labels", bunch.target))
    }
    found, manifest = arrays.read_arrays(named, "sklearn_digits")
    return Source("sklearn_digits", found, manifest, note, tuple("0123456789"), handwriting=True)


# --- By path ------------------------------------------------------------------------------------------------------


def _path_source(data: DataSettings, path: Path, reading: Reading | None = None) -> Source:
    name = _path_name(path)
    if path.is_file() and path.suffix.lower() in ARRAY_ENDINGS:
        found, manifest = arrays.read_arrays(arrays.read_npz(path), path, file_stamp(path))
        return Source(name, found, manifest)
    if path.is_file() and not is_archive(path):
        raise UserError(f"{path} is no data set: give a folder, a .zip or .tar, or an .npz or .npy file.")
    tree = open_tree(path, data.follow_links)
    images, tables, left_out = layout.sorted_out(tree)
    if not images:
        found, manifest = _arrays_in(tree, left_out)
        return Source(name, found, manifest)
    table = find_table(tree, tables)
    manifest = layout.read_layout(images, path)
    manifest.left_out.update(left_out)
    if table is not None:
        manifest = apply_table(tree, table, manifest)
    if others := len(tables) - (table is not None):
        manifest.left_out["", "tables that were not asked for"] += others
    if data.group:
        layout.apply_groups(manifest, data.group, path)
    return Source(name, FilePictures(tree, manifest.names, reading or asked_reading(data)), manifest)


def asked_reading(data: DataSettings) -> Reading:
    """How pictures are to be prepared, as settings have it."""
    return Reading(data.image_size, data.fit, data.background, data.window)


def _arrays_in(tree: Tree, left_out: Counter[tuple[str, str]]) -> tuple[ArrayPictures, Manifest]:
    """The arrays in a tree without image files: IDX files, or one .npz or .npy. Raises: UserError."""
    plain = {PurePosixPath(name).name: name for name in tree.names if not layout.junk(name)}
    some_idx = [name for name in IDX_FILES if name in plain or f"{name}.gz" in plain]
    if some_idx:
        folder = tree.where
        if not (isinstance(tree, Folder) and all((folder / name).is_file() for name in some_idx)):
            folder = _unpacked(tree, {n: plain.get(n, plain.get(f"{n}.gz", "")) for n in some_idx})
        check_idx(folder, folder)
        stamp = tree.stamp([plain.get(name) or plain[f"{name}.gz"] for name in some_idx])
        return arrays.read_arrays(_idx_arrays(folder), tree.where, stamp)
    packed = [name for name in plain.values() if name.lower().endswith(ARRAY_ENDINGS)]
    if len(packed) != 1:
        raise layout.nothing_found(tree, left_out)
    folder = tree.where if isinstance(tree, Folder) else _unpacked(tree, {PurePosixPath(packed[0]).name: packed[0]})
    file = folder / (packed[0] if isinstance(tree, Folder) else PurePosixPath(packed[0]).name)
    return arrays.read_arrays(arrays.read_npz(file), tree.where / packed[0], tree.stamp(packed))


def _unpacked(tree: Tree, names: dict[str, str]) -> Path:
    """A folder among the caches that holds some files of a tree, without their own compression: new name -> name there.

    Raises: UserError.
    """
    folder = runs_root() / "cache" / f"unpacked-{tree.stamp([name for name in names.values() if name])[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for new, name in names.items():
            if not name or (folder / new).exists():
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


def _path_name(path: Path) -> str:
    """The own name of a folder or file, without taking that of a named data set or torchvision's `raw`."""
    path = path.resolve()
    name = inert(path.parent.name if path.name == "raw" else path.stem)[:60] or "data"
    return f"{name} (folder)" if name.lower() in (*NAMES, "digits") else name
