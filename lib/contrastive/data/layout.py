"""What the names of files tell: which are images, of which class, and of which split."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePosixPath

from ..settings import UserError
from .decode import IMAGE_ENDINGS, is_image
from .images import inert
from .manifest import TEST, TRAIN, VAL, Manifest, counted
from .trees import Tree, is_archive

SPLITS = {
    "train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST, "testing": TEST,
}  # fmt: skip
UNLABELLED = ("unlabeled", "unlabelled")
# What operating systems and tools leave behind; as are all names that begin with a dot
JUNK = {
    "__macosx", "@eadir", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found",
    "dicomdir",
}  # fmt: skip
TABLES = (".csv", ".tsv", ".parquet")
# By their names no images, so that nobody has to look into them
OTHER = {
    ".txt", ".md", ".json", ".xml", ".html", ".htm", ".pdf", ".yaml", ".yml", ".py", ".log", ".zip", ".db", ".doc",
    ".docx", ".xls", ".xlsx", ".ini", ".mat", ".pkl", ".h5", ".npy", ".npz", *TABLES,
}  # fmt: skip
# Images, but of kinds that `decode` does not read
UNREAD = {".heic", ".heif", ".avif", ".jp2", ".j2k", ".psd", ".svg", ".nii", ".nrrd", ".mha", ".svs", ".raw", ".exr"}
EXAMPLE_FOLDERS = 5  # that a message names
NAMED_FOLDERS = 20  # without an image, that the account names
FEW = 0.1  # of the images, that may lie beside the data set


def folder_of(name: str) -> str:
    """The folder that a file lies in; empty if it lies in none."""
    return name.rpartition("/")[0]


def junk(name: str) -> bool:
    """Whether a file, or a folder that it lies in, was left behind by an operating system or a tool."""
    folder, _, own = name.rpartition("/")
    return own.startswith(".") or own.lower() in JUNK or _junk_folder(folder)


@lru_cache
def _junk_folder(folder: str) -> bool:
    return any(part.startswith(".") or part.lower() in JUNK for part in folder.split("/"))


def sorted_out(tree: Tree) -> tuple[list[str], list[str], Counter[tuple[str, str]]]:
    """The names of a tree's images, and of its tables; and where how many files were left out, and why.

    By their ends, and where these tell nothing, by their first bytes.
    """
    images, tables, others, left_out = [], [], [], Counter[tuple[str, str]]()
    for name in tree.names:
        ending = os.path.splitext(name)[1].lower()
        if junk(name):
            left_out["", "left behind by an operating system or a tool"] += 1
        elif ending in IMAGE_ENDINGS:
            images.append(name)
        elif ending in TABLES:
            tables.append(name)
        elif ending in UNREAD:
            others.append((name, f"images of a kind that is not read, {ending}"))
        elif ending in OTHER or not _looks_like_an_image(tree, name):
            others.append((name, "no images"))
        else:
            images.append(name)
    # A folder in which no image is left might have been a class
    own = {str(PurePosixPath(folder)) for folder in {folder_of(name) for name in images}}
    with_images = own | {str(folder) for path in own for folder in PurePosixPath(path).parents}
    without = {folder for name, _ in others if (folder := str(PurePosixPath(name).parent)) not in with_images}
    for name, why in others:
        folder = str(PurePosixPath(name).parent)
        left_out[folder if folder in without and folder != "." and len(without) <= NAMED_FOLDERS else "", why] += 1
    if tree.irregular:
        left_out["", "no regular files"] += tree.irregular
    return images, tables, left_out


def _looks_like_an_image(tree: Tree, name: str) -> bool:
    try:
        return is_image(tree.read(name, 132))
    except Exception:  # of an archive that is broken there; decoding it would tell, if it were an image by its name
        return False


def common_folder(names: Sequence[str]) -> str:
    """The folders that all files lie in, ending in `/`; empty if there are none. Folders that are named as a split is
    stay."""
    outer = ""
    parts = [folder.split("/") if folder else [] for folder in {folder_of(name) for name in names}]
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1 or level[0].casefold() in SPLITS or level[0].casefold() in UNLABELLED:
            break
        outer += level[0] + "/"
    return outer


def root_of(names: Sequence[str]) -> str:
    """The folder that the data set is in, ending in `/`, or empty: the one that all files lie in; or nearly all, if it
    is the only one that has folders named as splits are."""
    outer = common_folder(names)
    found = Counter[str]()
    for inner, n in Counter(map(folder_of, names)).items():
        folders = f"{inner}/".removeprefix(outer).split("/")[:-1]
        at = next((i for i, folder in enumerate(folders) if folder.casefold() in SPLITS), None)
        if at is not None:
            found["".join(folder + "/" for folder in folders[:at])] += n
    nearly_all = len(found) == 1 and found.total() >= (1 - FEW) * len(names)
    return outer + found.popitem()[0] if nearly_all else outer


def read_layout(images: Sequence[str], where: object, labelled: bool = False) -> Manifest:
    """Labels and splits from folders: `<split>/<class>/<image>`, `<class>/<image>`, `<class>/<split>/<image>`, or all
    images in one folder, without a label. What lies in a folder `unlabeled` has none anyway.

    Args:
        images: names of files below a root.
        where: the root, for messages.
        labelled: whether a table tells the labels, so that folders need not.

    Returns:
        A row for each image that has a place in that layout, in order.

    Raises:
        UserError: when there are none, or folders may mean several things.
    """
    outer, m, folders = root_of(images), Manifest([], [], [], []), [folder_of(name) for name in images]
    n_images = Counter(folders)
    placed = []
    for folder in n_images:
        path = f"{folder}/" if folder else ""
        if path.startswith(outer):
            placed.append((folder, path.removeprefix(outer).split("/")))
        else:
            m.left_out[_top(path.split("/")), "beside the folders of the splits"] += n_images[folder]
    placed, split_first = _split_first(placed, n_images, where)
    if split_first and not labelled:
        _check_words([p for _, p in placed], where)
    deeper, told = Counter[str](), dict[str, tuple[str | None, str | None]]()  # folder -> split and label
    for folder, p in placed:
        word = p[0].casefold() if len(p) > 1 else ""
        split: str | None = TRAIN if word in UNLABELLED else None
        if split_first and split is None:
            if word not in SPLITS:
                m.left_out[_top(p), "beside the folders of the splits"] += n_images[folder]
                continue
            split, p = SPLITS[word], p[1:]
        unlabelled = any(part.casefold() in UNLABELLED for part in p[:-1])
        label = p[0] if len(p) > 1 and not unlabelled else None
        if label is not None and len(p) > 2:
            deeper["/".join(p[:2])] += n_images[folder]
        told[folder] = split, label
    m.names = [name for name, folder in zip(images, folders, strict=True) if folder in told]
    m.splits, m.labels = ([told[folder][i] for folder in folders if folder in told] for i in range(2))
    m.groups = [None] * len(m.names)
    if not m.names:
        raise UserError(f"{where} has images, but none in the folders of the splits, such as train/<class>/.")
    if deeper:
        m.remarks.append(
            f"{counted(deeper.total(), 'image')} in sub-folders of a class, such as {inert(next(iter(deeper)))}: taken "
            "for images of that class. If a sub-folder is a patient or the like, name it by the parameter group."
        )
    loose = Counter(s or TRAIN for s, label in zip(m.splits, m.labels, strict=True) if label is None)
    if any(m.labels) and loose[TRAIN]:
        m.remarks.append(f"{counted(loose[TRAIN], 'training image has', 'training images have')} no label.")
    return m


def _top(parts: Sequence[str]) -> str:
    """The outermost folder of a file; empty if it lies in none."""
    return parts[0] if len(parts) > 1 else ""


# Folders, and the parts of the path of a file in them, below the data set's folder and without the file's own name
Placed = list[tuple[str, list[str]]]


def _split_first(placed: Placed, n_images: Counter[str], where: object) -> tuple[Placed, bool]:
    """The same with `<class>/<split>/` turned into `<split>/<class>/`, and whether splits are what comes first.

    Raises: UserError when there are several data sets.
    """
    if any(_top(p).casefold() in SPLITS for _, p in placed):
        return placed, True
    classes = [(folder, p) for folder, p in placed if len(p) > 1 and p[0].casefold() not in UNLABELLED]
    inner = [(folder, p) for folder, p in classes if len(p) > 2 and p[1].casefold() in SPLITS]
    n_inner, n_classes = (sum(n_images[folder] for folder, _ in some) for some in (inner, classes))
    if 2 * n_inner <= n_classes:
        return placed, False
    of_folder: dict[str, str] = {}
    for _, p in inner:
        if len(p) > 3 and of_folder.setdefault(p[2], p[0]) != p[0]:
            raise UserError(
                f"{where} holds several data sets, {of_folder[p[2]]!r} and {p[0]!r}, each with folders for splits and "
                f"{p[2]!r} in them. Give one of them."
            )
    turned = [(n, [p[1], p[0], *p[2:]] if len(p) > 2 and p[1].casefold() in SPLITS else p) for n, p in placed]
    return turned, True


def _check_words(parts: Sequence[list[str]], where: object) -> None:
    """Raises: UserError when the only folder named as a split is may be a class, too: it has no classes, and others are
    beside it."""
    tops = {p[0].casefold(): p[0] for p in parts if len(p) > 1}
    beside = sorted(set(tops) - SPLITS.keys() - set(UNLABELLED))
    words = sorted(tops.keys() & SPLITS.keys())
    if len(words) == 1 and beside and not any(len(p) > 2 and p[0].casefold() == words[0] for p in parts):
        raise UserError(
            f"{where}: {tops[words[0]]!r} may be a split or, like {tops[beside[0]]!r}, a class. Put classes into "
            "train/<class>/, or rename it."
        )


def apply_groups(m: Manifest, pattern: str, where: object) -> None:
    """Give each row the group that a regular expression finds in its name: the first bracket, or all that it matches.

    Raises: UserError when no name matches.
    """
    expression = re.compile(pattern)
    found = [expression.search(name) for name in m.names]
    m.groups = [match and (match.group(1 if expression.groups else 0) or None) for match in found]
    if not any(m.groups):
        raise UserError(
            f"parameter group={pattern!r} matches no file name of {where}, such as {m.names[0]!r}. Mend it."
        )
    lacking = sum(group is None for group in m.groups)
    if lacking:
        said = counted(lacking, "file name does", "file names do")
        m.remarks.append(f"{said} not match the parameter group: each is a group of its own.")


def nothing_found(tree: Tree) -> UserError:
    """What to say of a source without any image: what is there instead."""
    names = [PurePosixPath(name) for name in tree.names if not junk(name)]
    kinds = Counter(name.suffix.lower() or "no ending" for name in names)
    seen = ", ".join(f"{n:,} with {kind}" for kind, n in kinds.most_common(EXAMPLE_FOLDERS)) or "no files"
    inside = [str(name) for name in names if is_archive(name)]
    advice = f" To read {inside[0]!r}, give its path, or unpack it." if inside else ""
    return UserError(
        f"there are no images in {tree.where}: it holds {seen}.{advice} Images are PNG, JPEG, TIFF, DICOM, BMP, GIF, "
        "WebP, PGM or PPM; in folders by class, or all in one folder with a labels.csv, or without labels."
    )
