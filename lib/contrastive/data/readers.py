"""Image files and .npz archives from anywhere, read without trusting a thing in them.

Whatever a file claims is checked before memory is asked for; no pickle is loaded; links that lead out of a data folder,
and what is not a regular file, are refused.
"""

import os
import stat
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from ..settings import UserError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP", ".pgm": "PPM", ".ppm": "PPM"}
CHANNELS = {"1": 1, "L": 1, "LA": 1, "P": 3, "RGB": 3, "RGBA": 3}  # of Pillow's modes; 16-bit ones would be clipped
MAX_PIXELS = 2**24  # of one image
SHARE = 0.15  # of the memory, for data
PARTS = ("train_images", "train_labels", "test_images", "test_labels")

Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # images uint8 N x C x H x W, labels int64 N; twice


def data_file(path: Path, root: Path) -> Path:
    """The path, if it is a regular file that really lies below `root`. Raises: UserError."""
    _inside(path, root)
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path} is no regular file.")
    return path


def _inside(path: Path, root: Path) -> None:
    """Raises: UserError when a path does not exist, or is a link that leads out of `root`."""
    try:
        path.stat()
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # missing, a loop of links, a name that cannot be
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not inside:
        raise UserError(f"{path} is a link that leads out of {root}. Put what it leads to there.")


def fit_memory(n_bytes: int, what: object) -> None:
    """Raises: UserError when data of that size are more than SHARE of this machine's memory: features and views of them
    take several times as much."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not told by this system
        memory = 2**36
    if n_bytes > SHARE * memory:
        raise UserError(
            f"{what} holds {n_bytes / 1e9:,.1f} GB; this machine has {memory / 1e9:,.1f} GB of memory, of which data "
            f"may fill {100 * SHARE:.0f} %. Use fewer or smaller images."
        )


def read_npz(path: Path) -> Parts:
    """The four parts of an archive as MedMNIST writes them: {train,test}_{images,labels}. Raises: UserError."""
    try:
        with zipfile.ZipFile(path) as archive:
            lacking = sorted({f"{name}.npy" for name in PARTS} - set(archive.namelist()))
            if lacking:
                raise UserError(f"{path} lacks {lacking[0]}; an archive holds {', '.join(PARTS)}.")
            entries = [archive.getinfo(f"{name}.npy") for name in PARTS]
            fit_memory(sum(entry.file_size for entry in entries), path)
            arrays = [_npy(archive, entry) for entry in entries]
    except UserError:
        raise
    except Exception as error:  # zip files can be broken in many ways
        raise UserError(f"{path} cannot be read as an .npz archive ({type(error).__name__}).") from None
    parts: list[Any] = []
    for (images, labels), part in zip((arrays[:2], arrays[2:]), ("train", "test"), strict=True):
        if (
            images.dtype != np.uint8
            or images.ndim not in (3, 4)
            or (images.ndim == 4 and images.shape[3] not in (1, 3))
        ):
            raise UserError(f"{path}: {part}_images has to be uint8, N x H x W or N x H x W x 1 or 3.")
        if labels.dtype.kind not in "iu" or labels.size != len(images) or not len(images):
            raise UserError(f"{path}: {part}_labels has to be one whole number for each of {part}_images.")
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        parts += [np.ascontiguousarray(images), labels.reshape(-1).astype(np.int64)]
    if parts[0].shape[1:] != parts[2].shape[1:]:
        raise UserError(f"{path}: train_images and test_images have other sizes.")
    return tuple(parts)  # type: ignore[return-value]


def _npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """One array of an archive, if its content is what its header claims. Raises: ValueError and others."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without bounds
        raise ValueError("an unusual compression")
    with archive.open(entry) as file:
        version = npy.read_magic(file)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read_header(file)
        n_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if dtype.hasobject or n_bytes < 0:
            raise ValueError("objects, or less than nothing")
        content = file.read(n_bytes + 1)  # the end compares the archive's checksum; never all that a bomb unpacks to
    if len(content) != n_bytes:
        raise ValueError("the content does not agree with the header")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def read_image_folder(folder: Path) -> tuple[Parts, list[str], int]:
    """Images of a folder laid out as {train,test}/<class>/<image>, all of one size.

    Returns the four parts, the names of the classes, and how many files were left out since their names are not those
    of images. With any colour image among them, all have three channels. Raises: UserError, naming the file.
    """
    left_out = 0
    found: dict[str, dict[str, list[Path]]] = {}
    for part in ("train", "test"):
        found[part] = files = {}
        for class_folder in _entries(folder / part, folder):
            if class_folder.is_dir():
                entries = _entries(class_folder, folder)
                files[class_folder.name] = [path for path in entries if path.suffix.lower() in FORMATS]
                left_out += len(entries) - len(files[class_folder.name])
    classes = sorted(found["train"])
    unknown = sorted(set(found["test"]) - set(classes))
    if unknown or not classes:
        lacking = f"{folder / 'test' / unknown[0]} is a class without" if unknown else f"{folder / 'train'} has no"
        raise UserError(f"{lacking} training images. Images lie in train/<class>/ and test/<class>/.")
    paths = {part: [(p, c) for c, name in enumerate(classes) for p in found[part].get(name, [])] for part in found}
    for part, listed in paths.items():
        if not listed:
            raise UserError(f"there are no images in the folders of {folder / part}.")
    heads = {path: _head(path, folder) for listed in paths.values() for path, _ in listed}
    first, (size, _) = next(iter(heads.items()))
    for path, (other, _) in heads.items():
        if other != size:
            raise UserError(f"{path} has {other[0]}x{other[1]} pixels, {first} {size[0]}x{size[1]}. Make all one size.")
    channels = max(CHANNELS[mode] for _, mode in heads.values())
    fit_memory(len(heads) * channels * size[0] * size[1], folder)
    parts: list[np.ndarray] = []
    for listed in paths.values():
        images = np.empty((len(listed), channels, size[1], size[0]), np.uint8)
        for i, (path, _) in enumerate(listed):
            images[i] = _pixels(path, channels)
        parts += [images, np.array([c for _, c in listed], np.int64)]
    return tuple(parts), classes, left_out  # type: ignore[return-value]


def _entries(folder: Path, root: Path) -> list[Path]:
    """What lies in a folder, in order, without hidden files. Raises: UserError for links that lead out of `root`."""
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read: {error.strerror}. A folder of images has train/ and test/."
        ) from None
    for path in (folder, *paths):
        if path.is_symlink():
            _inside(path, root)
    return paths


def _open(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=[FORMATS[path.suffix.lower()]])


def _head(path: Path, root: Path) -> tuple[tuple[int, int], str]:
    """Size, width first, and mode of an image, from its first bytes. Raises: UserError."""
    try:
        with _open(data_file(path, root)) as image:
            size, mode = image.size, image.mode
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        size, mode = (MAX_PIXELS, MAX_PIXELS), "L"
    except Exception as error:  # decoders raise many things
        raise UserError(f"{path} is no image of its kind ({type(error).__name__}). Remove it.") from None
    if size[0] * size[1] > MAX_PIXELS:
        raise UserError(f"{path} has more than {MAX_PIXELS / 1e6:.0f} million pixels. Make it smaller, or remove it.")
    if mode not in CHANNELS:
        raise UserError(f"{path} is of mode {mode}: 8-bit grey or colour is needed. Convert it.")
    return size, mode


def _pixels(path: Path, channels: int) -> np.ndarray:
    try:
        with _open(path) as image:
            return np.atleast_3d(np.asarray(image.convert("L" if channels == 1 else "RGB"))).transpose(2, 0, 1)
    except Exception as error:  # decoders raise many things
        raise UserError(f"{path} is damaged ({type(error).__name__}). Remove or replace it.") from None
