"""Images with several labels each, such as findings on an X-ray: one of them is asked about, as yes or no."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ..settings import UserError, did_you_mean
from .images import inert
from .manifest import NO_LABEL, plain, value

# In cells of a column, in lower case
YES = ("1", "true", "t", "yes", "y", "positive", "pos", "present", "+")
NO = ("0", "false", "f", "no", "n", "negative", "neg", "absent", "-")
MOST_NAMED, LONGEST = 20, 40  # labels that a message names, and their letters
BETWEEN = ("|", ";", ",")  # labels that stand in one cell, as in ChestX-ray14


def yes_or_no(yes: Sequence[bool | None], label: str) -> list[str]:
    """Names of two classes, with the label and without; empty where it is not known."""
    name = inert(label)
    name = f"label {name}" if name.lower() in NO_LABEL or name.isdecimal() else name
    return ["" if own is None else name if own else f"no {name}" for own in yes]


def one_of_several(
    rows: Mapping[str, np.ndarray], label: str | None, names: Sequence[str], where: object
) -> tuple[dict[str, np.ndarray], list[str]]:
    """One label an image from arrays with a column for each: of one-hot rows its number; else the label that is asked
    about, as text; nothing, if none is. Also gives remarks.

    Args:
        rows: split -> N x K.
        label: which: a name, or a number from 0.
        names: of the columns, if they are known.
        where: for messages.

    Raises:
        UserError: when there is no such label, or it is unclear what the numbers mean.
    """
    widths = sorted({array.shape[1] for array in rows.values()})
    if widths == [0]:
        raise UserError(f"{where}: labels have no column. Give one for each image.")
    if len(widths) > 1:
        raise UserError(f"{where}: some splits have {widths[0]} labels an image, some {widths[-1]}. Make them alike.")
    if kinds := {str(array.dtype) for array in rows.values() if array.dtype.kind not in "biuf"}:
        raise UserError(f"{where}: labels are {kinds.pop()} of {widths[0]} columns. One a row is needed, or 0 and 1.")
    if label is not None:
        said = f"Each image has {widths[0]} labels; label {inert(label)} is asked about, as yes or no."
        return {part: column_of(array, label, names, where) for part, array in rows.items()}, [said]
    every = np.concatenate(list(rows.values()))
    if not np.isin(every, (0, 1)).all():
        raise UserError(
            f"{where}: labels are {every.dtype} of {widths[0]} columns. One a row is needed, or 0 and 1; or the "
            "parameter label, which chooses a column."
        )
    if (every.sum(1) == 1).all():
        return {part: array.argmax(1) for part, array in rows.items()}, []
    which = f"{names[0]}, for example" if names else f"0 to {widths[0] - 1}"
    return {}, [
        f"Each image has {widths[0]} labels that are yes or no (multi-label). The evaluation is of one label an image, "
        f"so none is used. Choose one by the parameter label: {which}."
    ]


def column_of(rows: np.ndarray, label: str, names: Sequence[str], where: object) -> np.ndarray:
    """One column of labels that are 0 or 1, as text; -1 and NaN, as in CheXpert, are not known, and empty.

    Args:
        rows: N x K, of numbers.
        label: which: a name, or a number from 0.
        names: of the columns, if they are known.
        where: for messages.

    Raises:
        UserError: when there is no such label, or its column holds other numbers.
    """
    n = rows.shape[1]
    folded = [plain(name) for name in names]
    if plain(label) in folded:
        column = folded.index(plain(label))
    elif re.fullmatch(r"[0-9]{1,6}", label) and int(label) < n:
        column = int(label)
    elif names:
        raise UserError(f"parameter label: {did_you_mean(label, names, 'label')}")
    else:
        raise UserError(f"parameter label={label!r}: {where} has the labels 0 to {n - 1} an image. Give one of these.")
    values = rows[:, column].astype(np.float64)
    unknown = np.isnan(values) | (values == -1)
    if not np.isin(values[~unknown], (0, 1)).all():
        raise UserError(f"parameter label={label!r}: its column in {where} has to hold 0 and 1, and -1 for unknown.")
    known = [None if gone else bool(value) for value, gone in zip(values, unknown, strict=True)]
    return np.array(yes_or_no(known, names[column] if names else str(column)))


def as_yes_or_no(cells: Sequence[str], label: str) -> list[str] | None:
    """Cells of a column of its own as names of two classes; None if they say other words than yes and no."""
    words = [cell.casefold() for cell in cells]
    if not set(words) <= {"", *YES, *NO}:
        return None
    return yes_or_no([word in YES if word else None for word in words], label)


def listed_in(cells: Sequence[str], label: str = "") -> list[set[str]]:
    """The labels that each cell lists: between the first of BETWEEN that occurs in any cell, as in `Edema|Effusion` or
    `['Edema', 'Effusion']`. A cell that is `label` is one label, whatever signs it has."""
    between = next((sign for sign in BETWEEN if any(sign in cell for cell in cells)), BETWEEN[0])
    found = []
    for cell in cells:
        inner = cell[1:-1] if cell[:1] + cell[-1:] in ("[]", "()", "{}") else cell
        whole = bool(label) and cell.casefold() == label.casefold()
        parts = [cell] if whole else [part.strip().strip("'\"").strip() for part in inner.split(between)]
        found.append({part for part in parts if part.lower() not in NO_LABEL})
    return found


def whether_listed(cells: Sequence[str], label: str) -> list[str] | None:
    """Cells that list labels as names of two classes: whether each lists this one, in any case; if none does, one that
    is alike. None where there is no such label, or several are alike."""
    lists = listed_in(cells, label)
    every = {part for own in lists for part in own}
    fitting = {part for part in every if part.casefold() == label.casefold()}
    fitting = fitting or {part for part in every if plain(label) and plain(part) == plain(label)}
    if len({part.casefold() for part in fitting}) != 1:
        return None
    return yes_or_no([bool(own & fitting) if own else None for own in lists], label)


def choose_label(
    columns: dict[str, str], header: Sequence[str], rows: Sequence[Mapping[str, str]], label: str, where: str
) -> tuple[list[str], list[str]]:
    """The label that is asked about, by row, from a column of its own or from one that lists labels; and remarks.

    Args:
        columns: kind of column -> its name. The one that is chosen becomes that of labels, and nothing else.
        header: all names.
        rows: of the table.
        label: its name.
        where: for messages.

    Raises:
        UserError: when there is no such label.
    """
    remarks = [f"The label that is asked about is {inert(label)}."]
    name = asked_column(header, label, where)
    if name == columns.get("image"):
        raise UserError(f"parameter label={label!r}: in {where} that column names the images. Choose another one.")
    if name is None:
        name = columns.get("label")
        cells = [value(row[name]) for row in rows] if name else []
        chosen = whether_listed(cells, label)
        if chosen is None or name is None:
            taken = {columns.get(kind) for kind in ("image", "group", "split")}
            every = sorted(set[str]().union(*listed_in(cells)))
            there = [*(other for other in header if other and other not in taken and other != name), *every]
            there = list(dict.fromkeys(inert(other)[:LONGEST] for other in there))[:MOST_NAMED]
            if not there:
                raise UserError(f"parameter label={label!r}: {where} has no column of labels.")
            raise UserError(f"parameter label: in {where} there is an {did_you_mean(label, there, 'label')}")
    else:
        cells = [value(row[name]) for row in rows]
        chosen = as_yes_or_no(cells, label)
        if chosen is None:
            remarks.append(f"Its column {inert(name)!r} holds other words than yes and no: each is a class.")
            chosen = cells
    if name == columns.get("group"):
        remarks.append(f"So its column {inert(name)!r} tells no groups.")
    for kind in [kind for kind, other in columns.items() if other == name]:
        del columns[kind]
    columns["label"] = name
    return chosen, remarks


def asked_column(header: Sequence[str], label: str, where: object) -> str | None:
    """The column that is called as the label is: just so, or else alike. Raises: UserError when several are alike."""
    if label in header:
        return label
    alike = [name for name in header if plain(label) and plain(name) == plain(label)]
    if len(alike) > 1:
        raise UserError(f"parameter label={label!r}: {where} has the columns {alike[0]!r} and {alike[1]!r}. Write one.")
    return alike[0] if alike else None
