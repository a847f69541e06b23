"""What the names of files tell: which are images, of which class, and of which split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from ..settings import UserError
from .decode import IMAGE_ENDINGS, is_image
from .manifest import TEST, TRAIN, VAL, Manifest, counted
from .trees import Tree

SPLITS = {
    "train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST, "testing": TEST,
}  # fmt: skip
UNLABELLED = ("unlabeled", "unlabelled")
# What operating systems and tools leave behind; as are all names that begin with a dot
JUNK = {"__macosx", "@eadir", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found"}
TABLES = (".csv", ".tsv", ".parquet")
# By their names no images, so that nobody has to look into them
OTHER = {
    ".txt", ".md", ".json", ".xml", ".html", ".htm", ".pdf", ".yaml", ".yml", ".py", ".log", ".zip", ".db", ".doc",
    ".docx", ".xls", ".xlsx", ".ini", ".mat", ".pkl", ".h5", ".npy", ".npz", *TABLES,
}  # fmt: skip
EXAMPLE_FOLDERS = 5  # that a message names


def junk(name: str) -> bool:
    """Whether a file, or a folder that it lies in, was left behind by an operating system or a tool."""
    return any(part.startswith(".") or part.lower() in JUNK for part in name.split("/"))


def sorted_out(tree: Tree) -> tuple[list[str], list[str], Counter[tuple[str, str]]]:
    """The names of a tree's images, and of its tables; and where how many files were left out, and why.

    By their ends, and where these tell nothing, by their first bytes.
    """
    images, tables, left_out = [], [], Counter[tuple[str, str]]()
    for name in tree.names:
        ending = PurePosixPath(name).suffix.lower()
        if junk(name):
            left_out["", "left behind by an operating system or a tool"] += 1
        elif ending in IMAGE_ENDINGS:
            images.append(name)
        elif ending in TABLES:
            tables.append(name)
        elif ending in OTHER or not _looks_like_an_image(tree, name):
            left_out["", "no images"] += 1
        else:
            images.append(name)
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
    parts = [name.split("/")[:-1] for name in names]
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1 or level[0].casefold() in SPLITS or level[0].casefold() in UNLABELLED:
            break
        outer += level[0] + "/"
    return outer


def read_layout(images: Sequence[str], where: object) -> Manifest:
    """Labels and splits from folders: `<split>/<class>/<image>`, `<class>/<image>`, `<class>/<split>/<image>`, or all
    images in one folder, without a label.

    Args:
        images: names of files below a root.
        where: the root, for messages.

    Returns:
        A row for each image that has a place in that layout, in order.

    Raises:
        UserError: when there are none.
    """
    outer = common_folder(images)
    parts = [name.removeprefix(outer).split("/") for name in images]
    top = {p[0].casefold() for p in parts if len(p) > 1}
    split_first = any(word in SPLITS for word in top)
    if not split_first and all(len(p) > 2 and p[1].casefold() in SPLITS for p in parts):
        parts, split_first = [[p[1], p[0], *p[2:]] for p in parts], True
    m = Manifest([], [], [], [])
    deeper = 0
    for name, p in zip(images, parts, strict=True):
        word = p[0].casefold()
        if len(p) > 1 and word in UNLABELLED:
            split, label = TRAIN, None
        elif split_first:
            if len(p) == 1 or word not in SPLITS:
                m.left_out[p[0] if len(p) > 1 else "", "beside the folders of the splits"] += 1
                continue
            split, p = SPLITS[word], p[1:]
            label = p[0] if len(p) > 1 else None
        else:
            split, label = None, p[0] if len(p) > 1 else None
        if label is not None and label.casefold() in UNLABELLED:
            label = None
        deeper += label is not None and len(p) > 2
        m.names.append(name)
        m.labels.append(label)
        m.splits.append(split)
        m.groups.append(None)
    if not m.names:
        raise UserError(f"{where} has images, but none in the folders of the splits, such as train/<class>/.")
    if deeper:
        m.remarks.append(
            f"{counted(deeper, 'image')} in sub-folders of a class: taken for images of that class. If a sub-folder is "
            "a patient or the like, name it by the parameter group."
        )
    loose = Counter(s or TRAIN for s, label in zip(m.splits, m.labels, strict=True) if label is None)
    if any(m.labels) and loose[TRAIN]:
        m.remarks.append(f"{counted(loose[TRAIN], 'training image has', 'training images have')} no label.")
    return m


def apply_groups(m: Manifest, pattern: str, where: object) -> None:
    """Give each row the group that a regular expression finds in its name: the first bracket, or all that it matches.

    Raises: UserError when no name matches.
    """
    expression = re.compile(pattern)
    found = [expression.search(name) for name in m.names]
    if not any(found):
        raise UserError(
            f"parameter group={pattern!r} matches no file name of {where}, such as {m.names[0]!r}. Mend it."
        )
    m.groups = [match and (match.group(1) if expression.groups else match.group(0)) for match in found]
    lacking = sum(group is None for group in m.groups)
    if lacking:
        said = counted(lacking, "file name does", "file names do")
        m.remarks.append(f"{said} not match the parameter group: each is a group of its own.")


def nothing_found(tree: Tree, left_out: Counter[tuple[str, str]]) -> UserError:
    """What to say of a source without any image: what is there instead."""
    kinds = Counter(PurePosixPath(name).suffix.lower() or "no ending" for name in tree.names if not junk(name))
    seen = ", ".join(f"{n:,} with {kind}" for kind, n in kinds.most_common(EXAMPLE_FOLDERS)) or "no files"
    return UserError(
        f"there are no images in {tree.where}: it holds {seen}. Images are PNG, JPEG, TIFF, DICOM, BMP, GIF, WebP, PGM "
        "or PPM; in folders by class, or all in one folder with a labels.csv, or without labels."
    )
