"""IDX files, as MNIST and its like have them: read and checked, plain or compressed."""

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from ..settings import RunError, UserError
from ..storage.files import atomic_write
from .readers import data_file, fit_memory

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
# MD5 of the uncompressed files of the original MNIST, to notice when something else bears its names.
ORIGINAL_MD5 = dict(
    zip(
        IDX_FILES,
        (
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
        strict=True,
    )
)
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
    originals = {md5: name for name, md5 in ORIGINAL_MD5.items()}
    for name in IDX_FILES:
        true_name = originals.get(_md5(folder / name), name)
        if true_name != name:
            raise UserError(f"{folder / name} holds what belongs in {true_name}. Put each file under its own name.")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def is_original(raw: Path) -> bool:
    """Whether the four files are those of the original MNIST."""
    return all(_md5(raw / name) == md5 for name, md5 in ORIGINAL_MD5.items())


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an IDX file. Raises: UserError."""
    shape = _idx_shape(path)
    return np.fromfile(path, dtype=np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def unpack_originals(raw: Path) -> None:
    """Unpack those of MNIST's files that are only there as `.gz`, whoever compressed them, if the original is inside.

    Raises: UserError when something else is inside, or it cannot be written.
    """
    for name in IDX_FILES:
        packed = raw / f"{name}.gz"
        if (raw / name).exists() or not packed.is_file():
            continue
        try:
            with data_file(packed, raw).open("rb") as file:
                content = unpack(file, name)
        except BROKEN_ARCHIVE as error:
            raise UserError(f"{packed} does not hold MNIST's {name} ({error}). Replace it, or unpack it.") from None
        try:
            atomic_write(raw / name, content)
        except RunError as problem:
            raise UserError(f"{problem} Set CONTRASTIVE_DATA to a folder that can be written.") from None


def unpack(archive: IO[bytes], name: str) -> bytes:
    """The original file of that name in a gzip archive. Raises: BROKEN_ARCHIVE when it is not in it."""
    with gzip.open(archive) as file:
        content = file.read(LARGEST)  # never all that a bomb unpacks to
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != ORIGINAL_MD5[name]:
        raise ValueError("its checksum is another")
    return content
