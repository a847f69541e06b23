"""Data sets by name, by path or as arrays -> `Images`. What was understood of them is in `Images.account`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..settings import DataSettings, Settings, UserError, data_root, did_you_mean
from . import arrays, layout
from .array_files import ARRAY_ENDINGS, ARRAY_NAMES, array_names, arrays_in, idx_arrays, idx_names
from .assemble import Source, asked_reading, assemble
from .cifar import read_cifar10
from .download import NoNetworkError
from .images import Images, inert
from .labels_file import apply_table, find_table, unread_table
from .named import NAMED, SHORT_NAMES, ensure_named, named_note
from .pictures import FilePictures, Pictures, Reading
from .trees import Folder, Tree, file_stamp, is_archive, open_tree

NAMES = ("auto", "sklearn_digits", *NAMED)
USUAL_NAMES = ("auto", "sklearn_digits", *SHORT_NAMES)  # that messages list


def load_images(dataset: Any = "auto", labels: Any = None, groups: Any = None, **options: Any) -> Images:
    """Load a data set by name or by path; or take arrays.

    A path is that of a folder or a .zip or .tar of images, with or without classes, splits and a labels.csv; of an .npz
    or .npy file; or of a folder with the four IDX files of MNIST or their like. `auto` is MNIST if it is on disk or can
    be downloaded, else scikit-learn's digits, and then `note` says why.

    Args:
        dataset: name, path, or images as an array: N x H x W, N x H x W x C or N x C x H x W, of any kind of number.
        labels: of an array: one an image, numbers or text; -1 or "" for none; or N x K of 0 and 1, of which the option
            label chooses a column.
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
        return read_images(_data_settings(options, dataset=os.fspath(dataset)))
    data = _data_settings(options)
    _check_group(data, "the array")
    given = {"images": dataset, "labels": labels, "groups": groups}
    try:
        named = {name: np.asarray(value) for name, value in given.items() if value is not None}
    except (ValueError, TypeError, RuntimeError) as error:  # of different shapes, or tensors on another device
        raise UserError(f"the images are no array: {str(error).splitlines()[0]} Give one array.") from None
    pictures, manifest = arrays.read_arrays(named, "the array", label=data.label)
    return assemble(Source("array", pictures, manifest), data)


def _data_settings(options: dict[str, Any], **own: str) -> DataSettings:
    """Raises: UserError when an option is no parameter of data, or has no sensible value."""
    for name in options:
        if name not in DataSettings.model_fields:
            raise UserError(did_you_mean(name, DataSettings.model_fields, "parameter of data"))
    return Settings(**own, **options).data


def read_images(data: DataSettings) -> Images:
    """The data set that settings name. Raises: UserError."""
    where, data = data.dataset, data.model_copy(update={"n_images": None})  # which takes no other images
    if where in NAMES:
        return _named(data, str(data_root()))
    path = Path(os.path.abspath(os.path.expanduser(where)))
    data = data.model_copy(update={"dataset": str(path)})
    if not where or not os.path.exists(path):
        if os.sep in where or os.path.islink(path):
            raise UserError(f"there is no {path}. Give a folder of images, an archive of them, or an .npz file.")
        raise UserError(
            f"{did_you_mean(where, USUAL_NAMES, 'data set')} A folder of images, or an .npz file, does as well."
        )
    try:
        return _at_path(data, path, _state(data, path))
    except UserError as error:  # names of files may hold anything, and a message is one line
        raise type(error)("".join(c if c.isprintable() else "?" for c in str(error))) from None


@dataclass(frozen=True)
class _State:
    """What changes when anything does that lies somewhere; and the folder that was listed to know it, to be taken out
    and read, rather than listed twice."""

    stamp: str
    trees: list[Tree] = field(default_factory=list, compare=False)


def _state(data: DataSettings, path: Path) -> _State:
    if path.is_dir():
        tree = Folder(path, data.follow_links)
        return _State(tree.stamp(tree.names), [tree])
    return _State(file_stamp(path))


@lru_cache(maxsize=2)
def _named(data: DataSettings, root: str) -> Images:
    return assemble(_named_source(data.dataset, Path(root), data.label), data)


@lru_cache(maxsize=2)
def _at_path(data: DataSettings, path: Path, state: _State) -> Images:
    return assemble(_path_source(data, path, tree=state.trees.pop() if state.trees else None), data)


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
    if not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is no regular file. Give a file or a folder.")
    if path.is_file() and path.suffix.lower() in ARRAY_ENDINGS:
        parts, _ = arrays.by_part(arrays.read_npz(path), path)
        return arrays.read_arrays({f"{part}_images": kinds["image"] for part, kinds in parts.items()}, path)[0]
    if path.is_file() and not is_archive(path):
        one = OneFile(path)
        return FilePictures(one, one.names, reading)
    tree = open_tree(path, data.follow_links)
    images, *_ = layout.sorted_out(tree)
    return FilePictures(tree, images, reading) if images else arrays_in(tree)[0]


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


def _named_source(name: str, root: Path, label: str | None = None) -> Source:
    if name == "sklearn_digits":
        return _digits(label=label)
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
            "8x8 digits, enlarged to 28x28.",
            label,
        )
    known = NAMED["mnist" if name == "auto" else name]
    if known.kind == "cifar10":
        named = dict(zip(ARRAY_NAMES, read_cifar10(path), strict=True))
        stamp = ""
    elif known.kind == "idx":
        named, stamp = idx_arrays(path), ""
    else:
        named, stamp = arrays.read_npz(path), file_stamp(path)
    found, manifest = arrays.read_arrays(named, known.title, stamp, label, known.classes if known.multi_label else ())
    return Source(known.name, found, manifest, named_note(known.name, path), known.classes, known.name == "mnist")


def _digits(note: str = "", label: str | None = None) -> Source:
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
    found, manifest = arrays.read_arrays(named, "sklearn_digits", label=label)
    return Source("sklearn_digits", found, manifest, note, tuple("0123456789"), handwriting=True)


# --- By path ------------------------------------------------------------------------------------------------------


def _path_source(data: DataSettings, path: Path, tree: Tree | None = None) -> Source:
    name = _path_name(path)
    if path.is_file() and path.suffix.lower() in ARRAY_ENDINGS:
        _check_group(data, path)
        found, manifest = arrays.read_arrays(arrays.read_npz(path), path, file_stamp(path), data.label)
        return Source(name, found, manifest)
    if not (path.is_dir() or (path.is_file() and is_archive(path))):
        raise UserError(f"{path} is no data set: give a folder, a .zip or .tar, or an .npz or .npy file.")
    tree = tree or open_tree(path, data.follow_links)
    images, tables, left_out = layout.sorted_out(tree)
    if not images or idx_names(tree):
        _check_group(data, path)
        found, manifest = arrays_in(tree, data.label)
        if others := len(tree.names) - len(array_names(tree)):
            manifest.left_out["", "beside the arrays"] = others
        return Source(name, found, manifest)
    table = find_table(tree, tables, data.label)
    if table is None and data.label is not None:
        why = unread_table(tree, tables) or "It has no table of labels: add labels.csv, with a column of that name."
        raise UserError(f"parameter label={data.label!r}: there is no such label in {path}. {why}")
    manifest = layout.read_layout(images, path, table is not None)
    manifest.left_out.update(left_out)
    if table is not None:
        manifest = apply_table(tree, table, manifest, data.label)
    elif said := unread_table(tree, tables):
        manifest.remarks.append(said)
    if others := len(tables) - (table is not None):
        manifest.left_out["", "tables that are not used"] += others
    if data.group:
        layout.apply_groups(manifest, data.group, path)
    return Source(name, FilePictures(tree, manifest.names, asked_reading(data)), manifest)


def _check_group(data: DataSettings, where: object) -> None:
    """Raises: UserError when groups are to be found in names of files, and there are none."""
    if data.group:
        raise UserError(
            f"parameter group={data.group!r} is looked for in names of files, and {where} holds arrays. Give an array "
            "named groups (for splits train_groups, val_groups)."
        )


def _path_name(path: Path) -> str:
    """The own name of a folder or file, without taking that of a named data set or torchvision's `raw`."""
    path = path.resolve()
    name = inert(path.parent.name if path.name == "raw" else path.stem)[:60] or "data"
    return f"{name} (folder)" if name.lower() in (*NAMES, "digits") else name
