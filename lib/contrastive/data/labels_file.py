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
from .manifest import TRAIN, Manifest, counted
from .several_labels import BETWEEN, cells_as_yes_or_no, listed
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
EMPTY = ("", "nan", "-1", "na", "n/a", "#n/a", "<na>", "null")  # what stands for no label, in lower case
# In which people keep labels, and which are not read
UNREAD = (".xlsx", ".xls", ".ods", ".txt", ".json")

UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # first bytes of a text that is

Rows = list[dict[str, str]]


def find_table(tree: Tree, tables: Sequence[str], label: str | None = None) -> str | None:
    """The table that belongs to the images: one named labels, else the only one whose header has a column of images
    and one of labels, or one that is named like the label that is asked about. Raises: UserError when there are
    several."""
    named = [t for t in tables if PurePosixPath(t).stem.casefold() == "labels"]
    fitting = named or [t for t in tables if _fits(_header(tree, t), label)]
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
    if label is not None:
        _choose_label(columns, header, rows, label, where)
    if "image" not in columns or len(columns) == 1:
        raise UserError(
            f"{where} has the columns {', '.join(header)[:200]}: one named image, with file names, and one named label "
            "are needed (group and split may be there, too)."
        )
    if twice := [name for name in columns.values() if header.count(name) > 1]:
        raise UserError(f"{where} has two columns named {twice[0]!r}. Keep one.")
    remarks = [] if label is None else [f"The label that is asked about is {inert(label)}."]
    remarks += _drop_other_split(columns, rows)
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
        if not named <= folders:  # what a folder is called is no label then
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


def unread_table(tree: Tree) -> str:
    """A remark on a file that seems to hold labels and is not read; empty if there is none."""
    for name in tree.names:
        own = name.rpartition("/")[2].casefold()
        if own.startswith("labels.") and own.removeprefix("labels") in UNREAD:
            return f"{inert(name)} is not read: save it as labels.csv."
    return ""


def _choose_label(columns: dict[str, str], header: Sequence[str], rows: Rows, label: str, where: str) -> None:
    """Make the label that is asked about the only one: in `columns` or, of one that cells list, in the rows. Raises:
    UserError."""
    named = [name for name in header if _plain(name) == _plain(label)]
    if named and named[0] != columns.get("image"):
        chosen = cells_as_yes_or_no([value(row[named[0]]) for row in rows], label)
        columns["label"] = named[0]
    else:
        own = columns.get("label")
        found = listed([value(row[own]) for row in rows], label) if own else None
        if found is None or own is None:
            others = [name for name in header if name not in columns.values()]
            raise UserError(
                f"parameter label={label!r}: {where} has no such column, and no cell lists it between {BETWEEN!r}. Its "
                f"other columns: {inert(', '.join(others))[:200] or 'none'}."
            )
        chosen = found
    for row, text in zip(rows, chosen, strict=True):
        row[columns["label"]] = text


def _drop_other_split(columns: dict[str, str], rows: Rows) -> list[str]:
    """Leave a column that may tell splits, by its name, and does not, by its values. Returns remarks."""
    name = columns.get("split")
    if name is None or _plain(name) in SURELY_SPLIT:
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


def value(text: str, kind: str = "label") -> str:
    """What a cell says; empty for nothing. Numbers without `.0`, which spreadsheets and pandas add."""
    text = text.strip()
    if whole := re.fullmatch(r"([+-]?\d+)\.0*", text):
        text = whole.group(1)
    return "" if kind != "split" and text.lower() in EMPTY else text


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


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _columns(header: Sequence[str]) -> dict[str, str]:
    """Kind of column -> its name in the header: of several that fit, the most usual."""
    plain = {_plain(name): name for name in reversed(header)}
    found = {}
    for kind, usual in COLUMNS.items():
        fitting = [plain[word] for word in usual if word in plain]
        if fitting:
            found[kind] = fitting[0]
    return found


def _fits(header: Sequence[str], label: str | None = None) -> bool:
    found = _columns(header).keys()
    asked = label is not None and _plain(label) in map(_plain, header)
    return "image" in found and ("label" in found or asked)


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
    rows = [
        {str(name): "" if value is None else str(value) for name, value in row.items()} for row in table.to_pylist()
    ]
    return header, rows
