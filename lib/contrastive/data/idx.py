"""IDX files, as MNIST and its like have them: read and checked, plain or compressed."""

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from ..settings import RunError, UserError
from ..storage.files import atomic_write
from .download import md5_of, unwritable
from .guards import data_file, fit_memory

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
# MD5 of the uncompressed files of the original MNIST, to notice when something else bears its names.
ORIGINAL_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
FASHION_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
BROKEN_ARCHIVE = (OSError, EOFError, ValueError, zlib.error)
LARGEST = 64_000_000  # bytes: more than any of the original files


def _idx_shape(path: Path) -> tuple[int, ...]:
    """Sizes that the header of an IDX file of bytes tells. Raises: UserError when file and header disagree."""
    n_sizes = 3 if "idx3" in path.name else 1
    fit_memory(path.stat().st_size, path)
    with path.open("rb") as file:
        header = file.read(4 + 4 * n_sizes)
    if len(header) < 4 or header[:3] != b"\0\0\x08" or header[3] not in (1, 3):
        raise UserError(f"{path} is not an IDX file of bytes. Replace it with the original file.")
    if header[3] != n_sizes:
        kinds = {1: "labels", 3: "images"}
        raise UserError(
            f"{path} holds {kinds[header[3]]}, not {kinds[n_sizes]}: files were swapped. Put each under its own name."
        )
    sizes = tuple(int.from_bytes(header[4 * i : 4 * i + 4], "big") for i in range(1, n_sizes + 1))
    told, found = 4 + 4 * n_sizes + int(np.prod(sizes, dtype=object)), path.stat().st_size
    if len(header) < 4 + 4 * n_sizes or told != found:
        state = "truncated" if found < told else "too long"
        raise UserError(
            f"{path} is {state}: its header tells {told:,} bytes, it has {found:,}. Replace it with the original file."
        )
    if 0 in sizes:
        raise UserError(f"{path} holds no data. Replace it with the original file.")
    return sizes


def check_idx(folder: Path, root: Path) -> None:
    """Check the four IDX files of a folder, by name, size and content, and that none leads out of `root` as a link.

    Raises: UserError naming the file.
    """
    shapes = {}
    for name in IDX_FILES:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name} is missing. A data folder holds {', '.join(IDX_FILES)}; or images in train/<class>/ "
                "and test/<class>/."
            )
        try:
            shapes[name] = _idx_shape(data_file(folder / name, root))
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read: {error.strerror}.") from None
    for images, labels in (IDX_FILES[:2], IDX_FILES[2:]):
        if shapes[images][0] != shapes[labels][0]:
            raise UserError(
                f"{folder / labels} has {shapes[labels][0]:,} labels for the {shapes[images][0]:,} images of {images}: "
                "files were swapped or are of different data sets. Put each under its own name."
            )
    if shapes[IDX_FILES[0]][1:] != shapes[IDX_FILES[2]][1:]:
        raise UserError(f"{folder / IDX_FILES[2]} has images of another size than {IDX_FILES[0]}.")
    originals = {md5: name for known in (ORIGINAL_MD5, FASHION_MD5) for name, md5 in known.items()}
    for name in IDX_FILES:
        true_name = originals.get(md5_of(folder / name), name)
        if true_name != name:
            raise UserError(f"{folder / name} holds what belongs in {true_name}. Put each file under its own name.")


def is_original(raw: Path, md5: Mapping[str, str] = ORIGINAL_MD5) -> bool:
    """Whether the four files are those with these checksums: of the original MNIST, unless others are given."""
    return set(md5) == set(IDX_FILES) and all(md5_of(raw / name) == md5[name] for name in IDX_FILES)


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an IDX file. Raises: UserError."""
    shape = _idx_shape(path)
    return np.fromfile(path, dtype=np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def only_packed(raw: Path) -> list[str]:
    """Those of the four files that are only there as `.gz`."""
    return [name for name in IDX_FILES if not (raw / name).exists() and (raw / f"{name}.gz").is_file()]


def unpack_originals(raw: Path, title: str = "MNIST", md5: Mapping[str, str] = ORIGINAL_MD5) -> None:
    """Unpack those of a data set's files that are only there as `.gz`, whoever compressed them, if the original is
    inside. For one process at a time.

    Args:
        raw: the folder.
        title: name of the data set, for people.
        md5: of the plain files; empty where nobody tells them, and then whatever is inside is taken.

    Raises: UserError when something else is inside, or it cannot be written.
    """
    for name in only_packed(raw):
        packed = raw / f"{name}.gz"
        try:
            with data_file(packed, raw).open("rb") as file:
                content = unpack(file, md5.get(name))
        except BROKEN_ARCHIVE as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{packed} does not hold {title}'s {name} ({error}). Replace it, or unpack it.") from None
        try:
            atomic_write(raw / name, content)
        except RunError as problem:
            raise unwritable(problem) from None


def unpack(archive: IO[bytes], md5: str | None) -> bytes:
    """What a gzip archive holds. Raises: BROKEN_ARCHIVE when it cannot be read, or the content has another MD5."""
    with gzip.open(archive) as file:
        content = file.read(LARGEST)  # never all that a bomb unpacks to
    if md5 is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError("its checksum is another")
    return content
