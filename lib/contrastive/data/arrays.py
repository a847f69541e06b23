"""Arrays of images, from .npz and .npy files or from Python: what their numbers mean, or why that is unclear."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from ..settings import UserError
from .guards import fit_memory
from .images import inert
from .layout import SPLITS
from .manifest import TEST, TRAIN, VAL, Manifest, counted, value
from .picture import Picture
from .several_labels import one_of_several

PARTS = (TRAIN, VAL, TEST)
IMAGE_WORDS = ("images", "image", "imgs", "img", "x", "data", "pixels")
LABEL_WORDS = ("labels", "label", "y", "targets", "target", "classes")
GROUP_WORDS = ("groups", "group", "patients", "patient")
WHITE = 10  # floats from 0 to 1 and such that reach this are not of one scale


class ArrayPictures:
    """Images that are arrays already.

    names: for people. parts: uint8 or float32 arrays, N x C x H x W each. stamp: changes with the file; empty if there
    is none.
    """

    def __init__(self, where: object, parts: Sequence[np.ndarray], names: Sequence[str], stamp: str = "") -> None:
        self.where, self.parts, self.names, self.stamp = where, parts, list(names), stamp
        self._ends = np.cumsum([len(part) for part in parts])

    def picture(self, i: int) -> Picture:
        """Image i."""
        part = int(np.searchsorted(self._ends, i, side="right"))
        return Picture(self.parts[part][i - (self._ends[part] - len(self.parts[part]))].transpose(1, 2, 0))

    def shape(self, i: int) -> tuple[int, int]:
        """Its height and width."""
        return self.picture(i).pixels.shape[:2]

    def ready(self, largest: int) -> bool:
        """Whether they are of one shape and 8 bits, and the shorter side is no longer than that."""
        shapes = {part.shape[2:] for part in self.parts}
        return len(shapes) == 1 and min(*shapes.pop()) <= largest and all(p.dtype == np.uint8 for p in self.parts)

    @property
    def n_bytes(self) -> int:
        """How much there is to prepare."""
        return sum(part.nbytes for part in self.parts)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays in an .npz file, or the one in an .npy file. Raises: UserError."""
    ending = path.suffix.lower()
    try:
        if ending == ".npy":
            fit_memory(path.stat().st_size, path)
            with path.open("rb") as file:
                return {"images": _npy(file, "it")}
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            fit_memory(sum(entry.file_size for entry in entries), path)
            return {entry.filename.removesuffix(".npy"): _entry(archive, entry) for entry in entries}
    except UserError:
        raise
    except Exception as error:  # zip files can be broken in many ways
        why = str(error) if isinstance(error, ValueError) else type(error).__name__
        how = "numpy.save" if ending == ".npy" else "numpy.savez"
        raise UserError(f"{path} cannot be read as {ending} ({why[:100]}). Write it anew by {how}.") from None


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """One array of an archive. Raises: ValueError and others."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without bounds
        raise ValueError("an unusual compression")
    with archive.open(entry) as file:
        return _npy(file, entry.filename.removesuffix(".npy"))


def _npy(file: IO[bytes], name: str) -> np.ndarray:
    """An array, if the content is what its header claims. Raises: ValueError and others."""
    version = npy.read_magic(file)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are not read")
    n_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if n_bytes < 0:
        raise ValueError("less than nothing")
    content = file.read(n_bytes + 1)  # the end compares the archive's checksum; never all that a bomb unpacks to
    if len(content) != n_bytes:
        raise ValueError("the content does not agree with the header")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def by_part(arrays: Mapping[str, np.ndarray], where: object) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """Arrays by what their names say: `train_images`, `x_train`, `images` ... -> split -> image, label or group; and
    the names that say nothing. An array that is the only one holds images.

    Raises: UserError when there are no training images, or two arrays for one thing.
    """
    if len(arrays) == 1:
        arrays = {"images": next(iter(arrays.values()))}
    kinds = {"image": IMAGE_WORDS, "label": LABEL_WORDS, "group": GROUP_WORDS}
    found: dict[str, dict[str, np.ndarray]] = {}
    used: dict[tuple[str, str], str] = {}
    for name, array in arrays.items():
        words = name.lower().replace("-", "_").split("_")
        part = next((SPLITS[word] for word in words if word in SPLITS), TRAIN)
        rest = [word for word in words if word not in SPLITS]
        kind = next((kind for kind, usual in kinds.items() if len(rest) == 1 and rest[0] in usual), None)
        if kind is None:
            continue
        if (part, kind) in used:
            raise UserError(
                f"{where} has several arrays of {part} {kind}s, {used[part, kind]} and {name}. Keep one of them."
            )
        used[part, kind] = name
        found.setdefault(part, {})[kind] = array
    if "image" not in found.get(TRAIN, {}):
        raise UserError(
            f"{where} lacks train_images: it holds {', '.join(arrays)[:200] or 'nothing'}. An archive holds "
            "train_images and, where they are known, train_labels, val_images, val_labels, test_images, test_labels."
        )
    full = {part: k for part, k in found.items() if "image" in k and (part == TRAIN or len(k["image"]))}
    of_use = {name for (part, _), name in used.items() if part in full}
    return full, [name for name in arrays if name not in of_use]


def read_arrays(
    arrays: Mapping[str, np.ndarray],
    where: object,
    stamp: str = "",
    label: str | None = None,
    names: Sequence[str] = (),
) -> tuple[ArrayPictures, Manifest]:
    """Arrays as images, and a row for each.

    Args:
        arrays: by their names; see `by_part`.
        where: for messages.
        stamp: changes with the file.
        label, names: as `read_labels` takes them.

    Raises:
        UserError: when shapes, types or labels may mean several things.
    """
    found, unused = by_part(arrays, where)
    parts = {part: found[part] for part in PARTS if part in found}
    images = {part: channels_first(kinds["image"], f"{where}: {part} images") for part, kinds in parts.items()}
    shapes = {array.shape[1:] for array in images.values()}
    if len({shape[0] for shape in shapes}) > 1:
        raise UserError(f"{where}: the images of some splits have one channel, of others three. Make them alike.")
    pixels, remark = as_pixels(list(images.values()), where)
    m = Manifest([], [], [], [])
    if unused:
        m.remarks.append(f"Arrays that are not used: {inert(', '.join(unused))[:200]}.")
    for (part, kinds), array in zip(parts.items(), pixels, strict=True):
        n = len(array)
        m.names += [f"{part} {i}" for i in range(n)]
        m.splits += [part] * n if set(parts) & {VAL, TEST} else [None] * n
        groups = kinds.get("group")
        if groups is not None and groups.size != n:
            raise UserError(f"{where}: {groups.size:,} groups for {n:,} {part} images. Give one for each.")
        m.groups += [None] * n if groups is None else _texts(groups.reshape(-1))
    labels = {part: kinds.get("label") for part, kinds in parts.items()}
    m.labels, remarks = read_labels(labels, [len(part) for part in pixels], where, label, names)
    m.remarks += ([remark] if remark else []) + remarks
    return ArrayPictures(where, pixels, m.names, stamp), m


def channels_first(array: np.ndarray, what: str) -> np.ndarray:
    """Images N x H x W, N x H x W x C or N x C x H x W as the last, with C 1 or 3. Raises: UserError when they may be
    something else."""
    seen = f"{what} are {array.dtype} of the shape {' x '.join(map(str, array.shape)) or '0-D'}"
    if array.ndim == 3 and array.size and array.shape[2] not in (1, 3):  # a single image in colour has three, too
        return array[:, None]
    first, last = (array.shape[1] in (1, 3), array.shape[3] in (1, 3)) if array.ndim == 4 else (False, False)
    if not array.size or first == last:
        raise UserError(f"{seen}: N x H x W, N x H x W x C or N x C x H x W is needed, with C 1 or 3.")
    return array if first else array.transpose(0, 3, 1, 2)


def as_pixels(parts: Sequence[np.ndarray], where: object) -> tuple[list[np.ndarray], str]:
    """Arrays of any numbers as uint8 or, where a window has to scale them, float32; and what they were taken for.

    Raises: UserError for numbers that cannot be pixels.
    """
    kind = {part.dtype.kind for part in parts}
    most = [part.max() for part in parts] if kind <= set("iuf") else []
    if kind <= set("iu") and max(most) == 1 and min(part.min() for part in parts) == 0:
        return [part.astype(np.uint8) * 255 for part in parts], "Pixels are 0 and 1: taken for black and white."
    if all(part.dtype == np.uint8 for part in parts):
        return list(parts), ""
    if kind == {"b"}:
        return [part.astype(np.uint8) * 255 for part in parts], "Pixels are true or false: taken for white and black."
    if not kind <= set("iuf"):
        raise UserError(f"{where}: pixels are {parts[0].dtype}. Numbers are needed, best uint8 from 0 to 255.")
    if "f" in kind and len(kind) > 1:
        types = " and ".join(sorted({str(part.dtype) for part in parts}))
        raise UserError(f"{where}: pixels are {types}, in different splits. Give all in one type and scale.")
    if not all((np.abs(part.astype(np.float64)) < np.finfo(np.float32).max).all() for part in parts):
        raise UserError(f"{where}: some pixels are not finite numbers, or too large for 32 bits. Replace them.")
    low, high = min(part.min() for part in parts), max(part.max() for part in parts)
    if kind == {"f"} and low >= 0 and min(most) <= 1 and high >= WHITE:
        raise UserError(
            f"{where}: pixels of one split reach {min(most):g}, of another {high:g}. Give all in one scale."
        )
    if kind == {"f"} and low >= 0 and high <= 1:
        rounded = [np.rint(part.astype(np.float32) * 255).astype(np.uint8) for part in parts]
        return rounded, f"Pixels are {parts[0].dtype} from {low:g} to {high:g}: 1 is taken for white."
    if low >= 0 and high <= 255 and all((part == np.rint(part)).all() for part in parts):
        return [part.astype(np.uint8) for part in parts], f"Pixels are {parts[0].dtype} in the range of 8 bits."
    said = f"Pixels are {parts[0].dtype} from {low:g} to {high:g}, and are scaled to 8 bits by a window."
    return [part.astype(np.float32) for part in parts], said


def read_labels(
    labels: Mapping[str, Any], counts: Sequence[int], where: object, label: str | None = None, names: Sequence[str] = ()
) -> tuple[list[str | None], list[str]]:
    """Labels of any kind as names of classes, one for each image, None where there is none; and remarks.

    Whole numbers (-1: none), text (empty: none), bool, one-hot rows. Of several labels an image
    one can be chosen, as yes or no; else none is used, and a remark says so.

    Args:
        labels: split -> its labels, or None.
        counts: images of each split.
        where: for messages.
        label: which of several labels an image is used, by its name or its number from 0.
        names: of these labels, if they are known.

    Raises:
        UserError: when it is unclear what they mean, or there is no such label.
    """
    given = {}
    for (part, array), n in zip(labels.items(), counts, strict=True):
        if array is not None:
            shape = array.shape
            if shape == (1, n):
                array = array[0]
            elif array.ndim > 1 and shape[0] == n:
                array = array.reshape(n, -1)
            if array.ndim not in (1, 2) or len(array) != n:
                seen = " x ".join(map(str, shape)) or "no"
                raise UserError(
                    f"{where}: {part} labels have the shape {seen} for {counted(n, 'image')}. Give one label for each."
                )
            given[part] = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if label is not None and not any(array.ndim == 2 for array in given.values()):
        has = "has one label an image" if given else "has no labels"
        raise UserError(f"parameter label={label!r} asks about one of several labels, and {where} {has}. Leave it out.")
    if not given:
        return [None] * sum(counts), []
    if len({array.ndim for array in given.values()}) > 1:
        raise UserError(f"{where}: some splits have one label an image, some several. Make them alike.")
    remarks: list[str] = []
    if next(iter(given.values())).ndim == 2:
        given, remarks = one_of_several(given, label, names, where)
        if not given:
            return [None] * sum(counts), remarks
    classes = _class_names(np.concatenate(list(given.values())), where)
    found: list[str | None] = []
    for part, n in zip(labels, counts, strict=True):
        of_part, classes = (classes[:n], classes[n:]) if part in given else ([None] * n, classes)
        found += of_part
    return found, remarks


def _class_names(values: np.ndarray, where: object) -> list[str | None]:
    """Labels as names. Raises: UserError when it is unclear what they mean."""
    if values.dtype.kind in "USO":
        return _texts(values)
    if values.dtype.kind == "b":
        return [str(bool(v)) for v in values]
    if values.dtype.kind not in "iuf":
        raise UserError(f"{where}: labels are {values.dtype}. Whole numbers or text are needed.")
    known = [v for v in values.tolist() if v == v]
    if broken := [v for v in known if v in (math.inf, -math.inf) or v != int(v)]:
        raise UserError(f"{where}: labels such as {broken[0]:g} are no classes. Whole numbers are.")
    distinct = sorted({int(v) for v in known})
    if distinct == [-1, 1] or min(distinct, default=0) < -1:
        raise UserError(
            f"{where}: labels are {', '.join(map(str, distinct[:5]))}: here -1 means that there is no label. "
            "Write classes as numbers from 0."
        )
    return [None if v != v or v == -1 else str(int(v)) for v in values.tolist()]


def _texts(values: np.ndarray) -> list[str | None]:
    """Values as text as tables have it, None for those that stand for nothing."""
    texts = ["" if v is None else v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values.tolist()]
    return [value(str(text)) or None for text in texts]
