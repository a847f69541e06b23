"""Data sets that are had by name: what is known of each, and how its files come to lie under the root.

Nothing is looked for, and nothing downloaded, before `ensure_named` is called.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..settings import UserError, did_you_mean
from . import cifar
from .cifar import cifar10_note, ensure_cifar10
from .cifar import read_cifar10 as read_cifar10  # belongs to what is given here
from .download import NoNetworkError
from .idx import IDX_FILES, check_idx
from .images import inert
from .medmnist import MEDMNIST, MULTI_LABEL, SIDES, MedFile
from .mnist import IDX_SETS, ensure_idx, idx_note

FASHION_CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
KMNIST_CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


class Source(Protocol):
    """How a data set's files are had."""

    def ensure(self, root: Path) -> Path:
        """The file or folder below `root`, downloaded if need be. Raises: NoNetworkError; UserError."""

    def note(self, path: Path) -> str:
        """What a reader must know of what lies there; nothing, if it is the original."""


@dataclass(frozen=True)
class NamedData:
    """A data set that is had by its name.

    Args:
        name: for the command line.
        title: for people.
        kind: how its files are read: `idx` (a folder of four), `npz` or `cifar10`.
        place: where they lie below the root.
        files: what to put there by hand.
        classes: their names, in the order of the labels.
        about: what it shows, licence and citation, in one line.
        shape: channels, height and width of its images.
        n_images: to train and to test.
        source: how its files are had.
        multi_label: whether an image has any number of labels.
    """

    name: str
    title: str
    kind: str
    place: str
    files: str
    classes: tuple[str, ...]
    about: str
    shape: tuple[int, int, int]
    n_images: tuple[int, int]
    source: Source
    multi_label: bool = False


@dataclass(frozen=True)
class IdxSource:
    """Four IDX files in a folder of their own."""

    name: str

    def ensure(self, root: Path) -> Path:
        """See `Source`."""
        raw = ensure_idx(self.name, root)
        check_idx(raw, root)
        return raw

    def note(self, path: Path) -> str:
        """See `Source`."""
        return idx_note(self.name, path)


class CifarSource:
    """CIFAR-10's binary version."""

    def ensure(self, root: Path) -> Path:
        """See `Source`."""
        return ensure_cifar10(root)

    def note(self, path: Path) -> str:
        """See `Source`."""
        return cifar10_note(path)


def _idx(name: str, classes: tuple[str, ...], about: str) -> NamedData:
    data = IDX_SETS[name]
    files = f"its four files ({', '.join(IDX_FILES)}; plain or .gz)"
    return NamedData(
        name, data.title, "idx", f"{data.folder}/raw", files, classes, about, (1, 28, 28), (60_000, 10_000),
        IdxSource(name),
    )  # fmt: skip


def _medmnist(file: MedFile) -> NamedData:
    data = file.data
    return NamedData(
        file.name, data.title, "npz", f"{file.name}.npz", f"{file.name}.npz", data.classes, data.about,
        (data.channels, file.side, file.side), (data.n_images[0], data.n_images[2]), file, data.name in MULTI_LABEL,
    )  # fmt: skip


def _all() -> tuple[NamedData, ...]:
    return (
        _idx(
            "mnist",
            tuple("0123456789"),
            "MNIST: handwritten digits; CC BY-SA 3.0. Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database, 1998",
        ),
        _idx(
            "fashion_mnist",
            FASHION_CLASSES,
            "Fashion-MNIST: clothes; MIT licence. H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, arXiv:1708.07747, "
            "2017",
        ),
        _idx(
            "kmnist",
            KMNIST_CLASSES,
            "KMNIST: cursive Japanese characters; CC BY-SA 4.0. T. Clanuwat et al.: Deep Learning for Classical "
            "Japanese Literature, arXiv:1812.01718, 2018; adapted from the Kuzushiji Dataset, doi:10.20676/00000341",
        ),
        NamedData(
            "cifar10", "CIFAR-10", "cifar10", cifar.ARCHIVE, f"{cifar.ARCHIVE} or {cifar.FOLDER}/", cifar.CLASSES,
            cifar.ABOUT, cifar.SHAPE, (50_000, 10_000), CifarSource(),
        ),
        *(_medmnist(file) for data in MEDMNIST for file in data.files()),
    )  # fmt: skip


NAMED: dict[str, NamedData] = {data.name: data for data in _all()}
# Without the larger sizes of MedMNIST, for lists that people read.
SHORT_NAMES = tuple(name for name in NAMED if name.rpartition("_")[2] not in map(str, SIDES))


def ensure_named(name: str, root: Path) -> Path:
    """The file or folder under `root` that holds a data set, downloaded and checked if it is not there.

    It is an .npz file for MedMNIST; a folder of four IDX files for MNIST and its like, which have been checked; for
    CIFAR-10 what `read_cifar10` takes. What lies there already is used, also when it is not the original: see
    `named_note`.

    Raises: NoNetworkError, with `reason`, when it is not there and cannot be downloaded; UserError when there is no
        such name, when what is there is damaged, or when nothing can be written there.
    """
    if name not in NAMED:
        raise UserError(did_you_mean(name, SHORT_NAMES, "data set"))
    data = NAMED[name]
    try:
        return data.source.ensure(root)
    except NoNetworkError as problem:
        where = root / data.place if data.kind == "idx" else root
        pickles = [other for other in cifar.PICKLES if data.kind == "cifar10" and (root / other).exists()]
        aside = f" ({pickles[0]}, which is there, is made of pickles: they are never loaded)" if pickles else ""
        raise NoNetworkError(
            f"{data.title} is not in {where} and {problem.reason}. Put {data.files} there{aside}, or set "
            f"CONTRASTIVE_DATA to the folder that holds {data.place}.",
            problem.reason,
        ) from None


def named_note(name: str, path: Path) -> str:
    """What a reader must know of what `ensure_named` gave: nothing, if it is what its publishers gave out.

    Reads all of it once, for its checksum.
    """
    return inert(NAMED[name].source.note(path))
