"""A table of labels beside the images: labels.csv, .tsv or .parquet, with a row an image."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from ..settings import UserError
from .images import inert
from .layout import SPLITS, UNLABELLED
from .manifest import TRAIN, Manifest, counted, plain, value
from .several_labels import BETWEEN, asked_column, choose_label
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
    "split": ("split", "subset", "partition", "set", "phase", "usage", "fold", "dataset"),
}  # fmt: skip
SURELY_SPLIT = ("split", "subset", "partition")  # the other headers may mean something else
# In which people keep labels, and which are not read
UNREAD = (".xlsx", ".xls", ".ods", ".txt", ".json")

UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # first bytes of a text that is

Rows = list[dict[str, str]]


def find_table(tree: Tree, tables: Sequence[str], label: str | None = None) -> str | None:
    """The table that belongs to the images: one that has the label that is asked about as a column, else one named
    labels, else the only one whose header has a column of images and one of labels. Raises: UserError when there are
    several."""
    asked = [t for t in tables if label and asked_column(_header(tree, t), label, t)]
    named = [t for t in tables if PurePosixPath(t).stem.casefold() == "labels"]
    fitting = asked or named or [t for t in tables if {"image", "label"} <= _columns(_header(tree, t)).keys()]
    if len(fitting) > 1:
        raise UserError(
            f"{tree.where} has several tables of labels, {fitting[0]} and {fitting[1]}. Keep one, named labels.csv."
        )
    return fitting[0] if fitting else None


def apply_table(tree: Tree, table: str, m: Manifest, label: str | None = None) -> Manifest:
    """The manifest with the labels, groups and splits of a table; they replace what folders say.

    Args:
        tree, table: where the table lies.
        m: of the images.
        label: which label is asked about, of several that images have: a column, or one of those that cells list.

    Raises:
        UserError: when the table cannot be read, or does not fit the images; when there is no such label.
    """
    where = f"{tree.where / table}"
    header, rows = _read(tree, table)
    columns = _columns(header)
    chosen, remarks = ([], []) if label is None else choose_label(columns, header, rows, label, where)
    for row, text in zip(rows, chosen, strict=False):
        row[columns["label"]] = text
    if "image" not in columns or len(columns) == 1:
        raise UserError(
            f"{where} has the columns {', '.join(header)[:200]}: one named image, with file names, and one named label "
            "are needed (group and split may be there, too). A label of another name is chosen by the parameter label, "
            f"as in -p label={next((name for name in header if name != columns.get('image')), 'NAME')[:40]}."
        )
    if twice := [name for name in columns.values() if header.count(name) > 1]:
        raise UserError(f"{where} has two columns named {twice[0]!r}. Keep one.")
    remarks += _drop_other_split(columns, rows)
    cells = [row[columns["label"]] for row in rows] if "label" in columns else []
    if several := [cell for cell in cells if any(sign in cell for sign in BETWEEN[:2])]:  # a comma may be of a name
        remarks.append(
            f"Some cells list several labels, such as {inert(several[0])[:60]!r}, and each such list is a class of its "
            "own. The parameter label asks about one of them."
        )
    of_image = _rows_of_images(rows, columns, m, where)
    if missing := len(rows) - sum(n for _, n in of_image.values()):
        remarks.append(f"{counted(missing, 'row names', 'rows name')} an image that is not there ({inert(table)}).")
    folders = {label for label in m.labels if label is not None}
    for i, (said, _) in of_image.items():
        if "label" in said:
            m.labels[i] = said["label"] or None
        if said.get("group"):
            m.groups[i] = said["group"]
        if said.get("split"):
            m.splits[i] = _split(said["split"], where)
    if "label" in columns:
        named = {said["label"] for said, _ in of_image.values() if said["label"]}
        if label is not None or not named <= folders:  # what a folder is called is no label then
            for i in set(range(len(m.names))) - of_image.keys():
                m.labels[i] = None
        m.remarks = [remark for remark in m.remarks if "sub-folders" not in remark and "no label" not in remark]
    if "group" in columns and (n := sum(group is None for group in m.groups)):
        remarks.append(
            f"{counted(n, 'image is', 'images are')} in no group by that table, so each counts as one of its own. If "
            "that is wrong, fill in the column; if names of files tell the group, the parameter group reads it for all."
        )
    labelled = sum(label is not None for label in m.labels)
    used = ", ".join(f"{kind} from {inert(name)!r}" for kind, name in columns.items())
    said_of = f" gives {labelled:,} of {counted(len(m.names), 'image')} a label" if "label" in columns else " is used"
    m.remarks += [f"{inert(table)}{said_of} ({used}).", *remarks]
    return m


def unread_table(tree: Tree, tables: Sequence[str]) -> str:
    """A remark on a file that seems to hold labels and is not read; empty if there is none."""
    for table in tables:
        header = _header(tree, table)
        if "image" in _columns(header):
            return (
                f"{inert(table)} is not used: none of its columns is known to hold labels. The parameter label chooses "
                f"one of them: {inert(', '.join(header))[:200]}."
            )
    for name in tree.names:
        own = name.rpartition("/")[2].casefold()
        if own.startswith("labels.") and own.removeprefix("labels") in UNREAD:
            return f"{inert(name)} is not read: save it as labels.csv."
    return ""


def _drop_other_split(columns: dict[str, str], rows: Rows) -> list[str]:
    """Leave a column that may tell splits, by its name, and does not, by its values. Returns remarks."""
    name = columns.get("split")
    if name is None or plain(name) in SURELY_SPLIT:
        return []
    if all(row[name].strip().casefold() in ("", *SPLITS, *UNLABELLED) for row in rows):
        return []
    del columns["split"]
    return [f"Its column {inert(name)!r} is not used: it holds other words than train, val and test."]


def _rows_of_images(
    rows: Rows, columns: dict[str, str], m: Manifest, where: str
) -> dict[int, tuple[dict[str, str], int]]:
    """Image -> what the table says of it, and in how many rows. Raises: UserError when these differ, or no row names an
    image."""
    find, found = _Finder(m.names), dict[int, tuple[dict[str, str], int]]()
    for row in rows:
        name = row[columns["image"]].strip()
        i = find(name, where)
        if i is None:
            continue
        said = {kind: value(row[column], kind) for kind, column in columns.items() if kind != "image"}
        before, n = found.get(i, (said, 0))
        if before != said:
            raise UserError(f"{where} has two rows for {name!r} that differ. Keep one.")
        found[i] = said, n + 1
    if not found:
        example = rows[0][columns["image"]] if rows else "nothing"
        raise UserError(f"{where} names no image that is there: it has {example!r}, and there is {m.names[0]!r}.")
    return found


def _split(text: str, where: str) -> str:
    word = text.casefold()
    if word in UNLABELLED:
        return TRAIN
    if word not in SPLITS:
        raise UserError(f"{where}: {text!r} is no split. Write train, val or test.")
    return SPLITS[word]


class _Finder:
    """Names of images as tables have them: with or without outer folders, with or without the ending; if nothing fits
    exactly, in other capitals."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.exact: dict[str, list[int]] = defaultdict(list)
        self.alike: dict[str, list[int]] = defaultdict(list)
        self.inner: dict[str, list[int]] = defaultdict(list)
        for i, name in enumerate(names):
            for form in {name, str(PurePosixPath(name).with_suffix(""))}:
                parts = form.split("/")
                self.exact[form].append(i)
                self.alike[_folded(form)].append(i)
                for k in range(1, len(parts)):
                    self.inner["/".join(parts[k:])].append(i)
                    self.alike[_folded("/".join(parts[k:]))].append(i)

    def __call__(self, name: str, where: str) -> int | None:
        """The row of an image, or None. Raises: UserError when the name may be that of several."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        whole = "/".join(parts)
        # As it is; without folders that are further out than the images; without folders that the table leaves out
        for table, forms in ((self.exact, range(len(parts))), (self.inner, [0]), (self.alike, [0])):
            for k in forms:
                form = "/".join(parts[k:])
                rows = table.get(_folded(form) if table is self.alike else form, [])
                if len(rows) == 1:
                    return rows[0]
                if len(rows) > 1:
                    a, b = (self.names[i] for i in rows[:2])
                    raise UserError(f"{where}: {whole!r} may be {a!r} or {b!r}. Write the folders, and the ending.")
        return None


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _columns(header: Sequence[str]) -> dict[str, str]:
    """Kind of column -> its name in the header: of several that fit, the most usual."""
    named = {plain(name): name for name in reversed(header)}
    found = {}
    for kind, usual in COLUMNS.items():
        fitting = [named[word] for word in usual if word in named]
        if fitting:
            found[kind] = fitting[0]
    return found


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
        text = content.decode("utf-16" if content[:2] in UTF_16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{where} is not in UTF-8. Save it as CSV in UTF-8.") from None
    except ImportError:
        raise UserError(f"{where} needs pyarrow: pip install 'contrastive[parquet]'; or save it as CSV.") from None
    except Exception as error:  # of a broken archive, or whatever pyarrow has
        raise UserError(f"{where} cannot be read ({type(error).__name__}). Save it again, as CSV in UTF-8.") from None
    first, delimiter = next(iter(text.splitlines()), ""), ""
    if told := re.fullmatch(r'"?sep=(.)"?', first.strip(), re.IGNORECASE):  # Excel's first line
        delimiter, text = told.group(1), text[len(first) :].lstrip("\r\n")
    elif not table.lower().endswith(".tsv"):
        delimiter = max(",;\t", key=first.count)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter or "\t", strict=True)
        header = [(name or "").strip() for name in reader.fieldnames or []]
        reader.fieldnames = header
        rows = []
        for row in reader:
            if any(row.pop(None, ())):  # beyond the header; spreadsheets leave empty ones there
                raise csv.Error(f"line {reader.line_num} has more cells than the header")
            rows.append({name: row.get(name) or "" for name in header})
    except csv.Error as error:
        raise UserError(f"{where} cannot be read as a table: {error}. Save it again, as CSV in UTF-8.") from None
    return header, rows


def _parquet(content: bytes) -> tuple[list[str], Rows]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(content))
    header = [str(name) for name in table.column_names]
    rows = [{str(name): _cell(value) for name, value in row.items()} for row in table.to_pylist()]
    return header, rows


def _cell(value: object) -> str:
    """A value as the cell of a table; a list as its labels."""
    if isinstance(value, list):
        return BETWEEN[0].join(map(_cell, value))
    return "" if value is None else str(value)
