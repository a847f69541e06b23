"""A table of labels beside the images: labels.csv, .tsv or .parquet, with a row an image."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from ..settings import UserError
from .images import inert
from .layout import SPLITS, UNLABELLED
from .manifest import TRAIN, Manifest, counted
from .trees import Tree

# Usual headers, compared without case, blanks, hyphens and underscores
COLUMNS = {
    "image": (
        "image", "file", "filename", "path", "filepath", "imagepath", "img", "imagefile", "imagename", "imageid",
        "imageindex", "name", "id", "dicomid", "sopinstanceuid", "scan",
    ),
    "label": (
        "label", "labels", "class", "classname", "target", "diagnosis", "category", "finding", "findings",
        "findinglabels", "y", "dx", "species", "grade",
    ),
    "group": (
        "group", "groupid", "patient", "patientid", "subject", "subjectid", "case", "caseid", "lesionid", "study",
        "studyid", "person", "participant", "animal", "slide", "slideid",
    ),
    "split": ("split", "set", "subset", "partition", "fold", "dataset", "phase", "usage"),
}  # fmt: skip
EMPTY = ("", "nan", "-1")  # a label that is none

Rows = list[dict[str, str]]


def find_table(tree: Tree, tables: Sequence[str]) -> str | None:
    """The table that belongs to the images: one named labels, else the only one whose header has a column of images
    and one that says something of them. Raises: UserError when there are several."""
    named = [t for t in tables if PurePosixPath(t).stem.casefold() == "labels"]
    fitting = named or [t for t in tables if _fits(_header(tree, t))]
    if len(fitting) > 1:
        raise UserError(
            f"{tree.where} has several tables of labels, {fitting[0]} and {fitting[1]}. Keep one, named labels.csv."
        )
    return fitting[0] if fitting else None


def apply_table(tree: Tree, table: str, m: Manifest) -> Manifest:
    """The manifest with the labels, groups and splits of a table; they replace what folders say.

    Raises:
        UserError: when the table cannot be read, or does not fit the images.
    """
    where = f"{tree.where / table}"
    header, rows = _read(tree, table)
    columns = _columns(header)
    if "image" not in columns or len(columns) == 1:
        raise UserError(
            f"{where} has the columns {', '.join(header)[:200]}: one named image, with file names, and one named label "
            "are needed (group and split may be there, too)."
        )
    find = _Finder(m.names)
    of_image: dict[int, dict[str, str]] = {}
    missing = 0
    for row in rows:
        name = row[columns["image"]].strip()
        i = find(name, where)
        if i is None:
            missing += 1
            continue
        said = {kind: row[column].strip() for kind, column in columns.items() if kind != "image"}
        if of_image.setdefault(i, said) != said:
            raise UserError(f"{where} has two rows for {name!r} that differ. Keep one.")
    if not of_image:
        example = rows[0][columns["image"]] if rows else "nothing"
        raise UserError(f"{where} names no image that is there: it has {example!r}, and there is {m.names[0]!r}.")
    if missing:
        m.remarks.append(f"{counted(missing, 'row names', 'rows name')} an image that is not there ({inert(table)}).")
    for i, said in of_image.items():
        if "label" in said:
            m.labels[i] = None if said["label"].lower() in EMPTY else _tidy(said["label"])
        if said.get("group"):
            m.groups[i] = said["group"]
        if said.get("split"):
            m.splits[i] = _split(said["split"], where)
    if "label" in columns:  # what a folder is called is no label then
        for i in set(range(len(m.names))) - of_image.keys():
            m.labels[i] = None
        labelled = sum(label is not None for label in m.labels)
        m.remarks = [remark for remark in m.remarks if "sub-folders" not in remark and "no label" not in remark]
        m.remarks.append(f"{inert(table)} gives {labelled:,} of {counted(len(m.names), 'image')} a label.")
    return m


def _split(text: str, where: str) -> str:
    word = text.casefold()
    if word in UNLABELLED:
        return TRAIN
    if word not in SPLITS:
        raise UserError(f"{where}: {text!r} is no split. Write train, val or test.")
    return SPLITS[word]


def _tidy(label: str) -> str:
    """A label as a name: whole numbers without `.0`, which spreadsheets add."""
    try:
        number = float(label)
    except ValueError:
        return label
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else label


class _Finder:
    """Names of images as tables have them: with or without folders, with or without the ending."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.whole = {name: i for i, name in enumerate(names)}
        self.known: dict[str, list[int]] = defaultdict(list)
        for i, name in enumerate(names):
            path = PurePosixPath(name)
            for form in {path.name, path.stem, str(path.with_suffix(""))} - {name}:
                self.known[form].append(i)

    def __call__(self, name: str, where: str) -> int | None:
        """The row of an image, or None. Raises: UserError when the name is that of several."""
        name = name.replace("\\", "/").removeprefix("./")
        for form in (name, PurePosixPath(name).name):
            if form in self.whole:
                return self.whole[form]
            rows = self.known.get(form, [])
            if len(rows) > 1 and form == name:
                a, b = (self.names[i] for i in rows[:2])
                raise UserError(f"{where}: {name!r} may be {a} or {b}. Write the folders, too.")
            if len(rows) == 1:
                return rows[0]
        return None


def _columns(header: Sequence[str]) -> dict[str, str]:
    """Kind of column -> its name in the header: of several that fit, the most usual."""
    plain = {"".join(c for c in name.casefold() if c.isalnum()): name for name in reversed(header)}
    found = {}
    for kind, usual in COLUMNS.items():
        fitting = [plain[word] for word in usual if word in plain]
        if fitting:
            found[kind] = fitting[0]
    return found


def _fits(header: Sequence[str]) -> bool:
    return {"image", "label"} <= _columns(header).keys()


def _header(tree: Tree, table: str) -> Sequence[str]:
    try:
        return _read(tree, table)[0]
    except UserError:
        return ()


def _read(tree: Tree, table: str) -> tuple[list[str], Rows]:
    """A table's header and rows, all as text. Raises: UserError."""
    where = tree.where / table
    try:
        content = tree.read(table)
        if table.lower().endswith(".parquet"):
            return _parquet(content)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{where} is not in UTF-8. Save it as CSV in UTF-8.") from None
    except ImportError:
        raise UserError(f"{where} needs pyarrow: pip install 'contrastive[parquet]'; or save it as CSV.") from None
    except Exception as error:  # of a broken archive, or whatever pyarrow has
        raise UserError(f"{where} cannot be read ({type(error).__name__}). Save it again, as CSV in UTF-8.") from None
    first = text.split("\n", 1)[0]
    delimiter = max("\t,;", key=first.count) if not table.lower().endswith(".tsv") else "\t"
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = [name or "" for name in reader.fieldnames or []]
        rows = [{name: row.get(name) or "" for name in header} for row in reader]
    except csv.Error as error:
        raise UserError(f"{where} cannot be read as a table: {error}. Save it again, as CSV in UTF-8.") from None
    return header, rows


def _parquet(content: bytes) -> tuple[list[str], Rows]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(content))
    header = [str(name) for name in table.column_names]
    rows = [
        {str(name): "" if value is None else str(value) for name, value in row.items()} for row in table.to_pylist()
    ]
    return header, rows
