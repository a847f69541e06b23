"""CIFAR-10's binary version: read from its archive or from its folder. The usual one is pickles, which are not read."""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..settings import RunError, UserError
from .download import answering, check_md5, fetch, md5_of, sole_writer, unwritable
from .guards import Parts, data_file, fit_memory

MIRRORS = ["https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"]
ARCHIVE, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
PICKLES = ("cifar-10-batches-py", "cifar-10-python.tar.gz")  # what torchvision downloads
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
LARGEST = 400_000_000  # bytes: more than twice the archive, packed or unpacked
# MD5 of the files in it: to train on, and the last one to test on.
FILE_MD5 = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
IMAGES_PER_FILE = 10_000
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32  # bytes: the label; all of red, all of green, all of blue
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ABOUT = (
    "CIFAR-10: small photographs of ten kinds of things; no licence is told. A. Krizhevsky: Learning Multiple Layers "
    "of Features from Tiny Images, 2009"
)
BROKEN = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error)


def ensure_cifar10(root: Path) -> Path:
    """The folder or the archive under `root`, which is downloaded if neither is there. Raises: NoNetworkError;
    UserError."""
    folder, archive = root / FOLDER, root / ARCHIVE
    if folder.is_dir() and (not archive.exists() or all((folder / name).exists() for name in FILE_MD5)):
        for name in FILE_MD5:
            _data_file(folder, name, root)
        return folder
    if not archive.exists():
        mirrors = answering(MIRRORS, ARCHIVE)
        with sole_writer(archive, "fetching CIFAR-10"):
            if not archive.exists():  # which another process may have changed
                try:
                    fetch(mirrors, ARCHIVE, archive, check_md5(ARCHIVE_MD5), LARGEST, "CIFAR-10")
                except RunError as problem:
                    raise unwritable(problem) from None
    return data_file(archive, root)


def read_cifar10(path: Path) -> Parts:
    """The four parts of CIFAR-10; the names of its classes are CLASSES.

    path: of cifar-10-binary.tar.gz, which is not unpacked; or of the folder that is in it.
    Raises: UserError when a file is missing, of another size, or has labels that are none.
    """
    fit_memory(len(FILE_MD5) * IMAGES_PER_FILE * RECORD, path)
    images = np.empty((len(FILE_MD5), IMAGES_PER_FILE, *SHAPE), np.uint8)
    labels = np.empty((len(FILE_MD5), IMAGES_PER_FILE), np.int64)
    for name, content in _contents(path):
        place, i = f"{path}: {name}", list(FILE_MD5).index(name)
        records = np.frombuffer(content, np.uint8).reshape(IMAGES_PER_FILE, RECORD)
        if records[:, 0].max() >= len(CLASSES):
            raise UserError(f"{place} has the label {records[:, 0].max()}, of 0 to 9. Replace it with the original.")
        images[i] = records[:, 1:].reshape(-1, *SHAPE)
        labels[i] = records[:, 0]
    train, test = slice(0, -1), slice(-1, None)
    parts = [part for where in (train, test) for part in (images[where].reshape(-1, *SHAPE), labels[where].reshape(-1))]
    return tuple(parts)  # type: ignore[return-value]


def cifar10_note(path: Path) -> str:
    """What a reader must know of a folder or archive that bears its name: nothing, if it is the original."""
    if path.is_file() and md5_of(path) == ARCHIVE_MD5:
        return ""
    if all(
        hashlib.md5(content, usedforsecurity=False).hexdigest() == FILE_MD5[name] for name, content in _contents(path)
    ):
        return ""  # packed by somebody else
    return f"The files in {path} are not those of the original CIFAR-10."


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of all six files, in any order. Raises: UserError."""
    if path.is_dir():
        for name in FILE_MD5:
            file = _data_file(path, name, path)
            try:
                content = file.read_bytes() if file.stat().st_size == IMAGES_PER_FILE * RECORD else None
            except OSError as error:
                raise UserError(f"{file} cannot be read: {error.strerror}.") from None
            if content is None or len(content) != IMAGES_PER_FILE * RECORD:
                raise _other_size(file)
            yield name, content
        return
    missing = set(FILE_MD5)
    data_file(path, path.parent)
    try:
        with path.open("rb") as packed, gzip.open(packed) as plain:
            bounded = io.BufferedReader(_Bounded(plain), 2**20)
            with tarfile.open(fileobj=bounded, mode="r|", bufsize=2**20) as archive:
                for member in archive:
                    name = Path(member.name).name
                    if name not in missing or not member.isfile():
                        continue
                    if member.size != IMAGES_PER_FILE * RECORD:
                        raise _other_size(f"{name} in {path}")
                    missing.discard(name)
                    yield name, archive.extractfile(member).read()  # type: ignore[union-attr]  # it is a file
    except UserError:
        raise
    except BROKEN as error:
        raise UserError(
            f"{path} cannot be read as an archive ({_first_line(error)}). Replace it with the original {ARCHIVE}."
        ) from None
    if missing:
        raise UserError(f"{path} lacks {min(missing)}. Replace it with the original {ARCHIVE}.")


def _data_file(folder: Path, name: str, root: Path) -> Path:
    """One of the six files in a folder. Raises: UserError."""
    if not (folder / name).exists():
        raise UserError(f"{folder / name} is missing. Put all six files of CIFAR-10's binary version there.")
    return data_file(folder / name, root)


class _Bounded(io.RawIOBase):
    """A stream that ends with an error where a bomb would go on unpacking."""

    def __init__(self, stream: gzip.GzipFile):
        self._stream, self._left = stream, LARGEST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("it unpacks to far more than the original")
        buffer[: len(data)] = data
        return len(data)


def _other_size(what: object) -> UserError:
    return UserError(
        f"{what} has another size than {IMAGES_PER_FILE * RECORD:,} bytes. Replace it with CIFAR-10's binary version."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
