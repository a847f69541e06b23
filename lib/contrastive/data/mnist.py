"""MNIST and what has its form, each as four IDX files: found, unpacked or downloaded."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..settings import RunError, UserError
from ..storage.files import atomic_write, say
from .download import NoNetworkError, answering, fetch, md5_of, sole_writer, unwritable
from .idx import (
    BROKEN_ARCHIVE,
    FASHION_MD5,
    IDX_FILES,
    LARGEST,
    ORIGINAL_MD5,
    is_original,
    only_packed,
    unpack,
    unpack_originals,
)

# Where the archives are, first choice first.
MIRRORS = {
    "mnist": [
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ],
    "fashion_mnist": [
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ],
    "kmnist": ["https://codh.rois.ac.jp/kmnist/dataset/kmnist/"],
}


@dataclass(frozen=True)
class IdxSet:
    """A data set of four IDX files.

    Args:
        name: for the command line.
        title: for people.
        folder: below the root, as torchvision calls it.
        md5: of the plain files; empty where nobody tells them.
        packed_md5: of the archives, where those of the plain files are not known.
    """

    name: str
    title: str
    folder: str
    md5: Mapping[str, str] = field(default_factory=dict, repr=False)
    packed_md5: Mapping[str, str] = field(default_factory=dict, repr=False)

    def raw(self, root: Path) -> Path:
        """The folder of the files."""
        return root / self.folder / "raw"


KMNIST_PACKED_MD5 = {
    "train-images-idx3-ubyte": "bdb82020997e1d708af4cf47b453dcf7",
    "train-labels-idx1-ubyte": "e144d726b3acfaa3e44228e80efcd344",
    "t10k-images-idx3-ubyte": "5c965bf0a639b31b8f53240b1b52f4d7",
    "t10k-labels-idx1-ubyte": "7320c461ea6c1c855c0b718fb2a4b134",
}
IDX_SETS = {
    data.name: data
    for data in (
        IdxSet("mnist", "MNIST", "MNIST", ORIGINAL_MD5),
        IdxSet("fashion_mnist", "Fashion-MNIST", "FashionMNIST", FASHION_MD5),
        IdxSet("kmnist", "KMNIST", "KMNIST", packed_md5=KMNIST_PACKED_MD5),
    )
}


def ensure_idx(name: str, root: Path) -> Path:
    """Have the four files of a data set under `root`, from its mirrors if need be; their folder.

    Raises: NoNetworkError; UserError when what lies there is something else, or cannot be written.
    """
    data = IDX_SETS[name]
    raw = data.raw(root)
    if only_packed(raw):
        with sole_writer(raw, f"unpacking {data.title}"):
            unpack_originals(raw, data.title, data.md5)
    if _there(raw):
        return raw  # never download over what somebody put there: check_idx names what is missing or damaged
    mirrors = answering(MIRRORS[name], f"{IDX_FILES[0]}.gz")
    with sole_writer(raw, f"fetching {data.title}"):
        if not _there(raw):  # which another process may have changed
            _download(data, mirrors, raw)
    return raw


def idx_note(name: str, raw: Path) -> str:
    """What a reader must know of the four files in `raw` that bear the name of a data set: nothing, if they are its
    own."""
    data = IDX_SETS[name]
    if is_original(raw, data.md5) or _as_packed(data, raw):
        return ""
    if not data.md5 and not any((raw / f"{file}.gz").is_file() for file in IDX_FILES):
        return (
            f"Whether the files in {raw} are those of the original {data.title} cannot be told: checksums are "
            "published of its .gz files only, which are not there."
        )
    others = [other.title for other in IDX_SETS.values() if other is not data and is_original(raw, other.md5)]
    whose = f": they are those of {others[0]}" if others else ""
    return f"The files in {raw} are not those of the original {data.title}{whose}."


def _there(raw: Path) -> bool:
    return any((raw / name).exists() for name in IDX_FILES)


def _as_packed(data: IdxSet, raw: Path) -> bool:
    """Whether the original archives lie beside the plain files, and hold what these do."""
    for name, md5 in data.packed_md5.items():
        packed = raw / f"{name}.gz"
        try:
            if not packed.is_file() or md5_of(packed) != md5:
                return False
            with packed.open("rb") as file:
                if unpack(file, None) != (raw / name).read_bytes():
                    return False
        except BROKEN_ARCHIVE:
            return False
    return bool(data.packed_md5)


def _download(data: IdxSet, mirrors: list[str], raw: Path) -> None:
    """All four files, or none. Raises: NoNetworkError; UserError when they cannot be written."""
    staged = raw.with_name(".raw.new")
    say(f"fetching {data.title} into {raw}")
    try:
        _remove(staged)
        staged.mkdir()
        for name in IDX_FILES:
            packed = staged / f"{name}.gz"
            content = fetch(mirrors, packed.name, packed, partial(_content, data, name), LARGEST)
            atomic_write(staged / name, content)
            if data.md5:
                packed.unlink()  # else it is kept, since it alone can show that the plain file is the original
        _install(staged, raw)
    except NoNetworkError:
        raise
    except RunError as problem:
        raise unwritable(problem) from None
    except OSError as error:
        raise UserError(
            f"cannot write to {raw}: {error.strerror}. Set CONTRASTIVE_DATA to a folder that can be written."
        ) from None
    finally:
        with suppress(OSError):
            _remove(staged)


def _content(data: IdxSet, name: str, packed: Path) -> bytes:
    """What is in an archive that was downloaded. Raises: BROKEN_ARCHIVE when it is not the right one."""
    if not data.md5 and md5_of(packed) != data.packed_md5[name]:
        raise ValueError("its checksum is another")
    with packed.open("rb") as file:
        return unpack(file, data.md5.get(name))


def _install(staged: Path, raw: Path) -> None:
    """Give the files their place: in one step, unless there is a folder with something else in it."""
    with suppress(OSError):
        raw.rmdir()  # an empty one
    if not raw.exists():
        staged.rename(raw)
        return
    moved: list[Path] = []
    try:
        for file in sorted(staged.iterdir()):
            moved.append(raw / file.name)
            file.replace(moved[-1])
    except BaseException:
        for path in moved:  # some of them alone would pass for what somebody put there
            with suppress(OSError):
                path.unlink()
        raise


def _remove(folder: Path) -> None:
    """Remove what an earlier process left behind."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
