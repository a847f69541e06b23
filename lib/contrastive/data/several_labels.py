"""Images with several labels each, such as findings on an X-ray: one of them is asked about, as yes or no."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..settings import UserError, did_you_mean
from .images import inert

YES, NO = ("1", "true", "yes"), ("0", "false", "no")  # in cells of a column, in lower case
BETWEEN = "|"  # labels that stand in one cell, as in ChestX-ray14


def yes_or_no(yes: Sequence[bool | None], label: str) -> list[str | None]:
    """Names of two classes, with the label and without; None where it is not known."""
    name = inert(label)
    return [None if own is None else name if own else f"no {name}" for own in yes]


def column_of(rows: np.ndarray, label: str, names: Sequence[str], where: object) -> np.ndarray:
    """One column of labels that are 0 or 1, as text.

    Args:
        rows: N x K, of numbers.
        label: which: a name, or a number from 0.
        names: of the columns, if they are known.
        where: for messages.

    Raises:
        UserError: when there is no such label.
    """
    n = rows.shape[1]
    folded = [name.casefold() for name in names]
    if label.casefold() in folded:
        column = folded.index(label.casefold())
    elif label.isdecimal() and int(label) < n:
        column = int(label)
    elif names:
        raise UserError(f"parameter label: {did_you_mean(label, names, 'label')}")
    else:
        raise UserError(f"parameter label={label!r}: {where} has the labels 0 to {n - 1} an image. Give one of these.")
    name = names[column] if names else f"label {column}"
    return np.array(yes_or_no((rows[:, column] == 1).tolist(), name))


def cells_as_yes_or_no(cells: Sequence[str], label: str) -> list[str]:
    """Cells of a column of its own as names of two classes, if they say yes and no; else as they are."""
    plain = [cell.casefold() for cell in cells]
    if not set(plain) <= {"", *YES, *NO}:
        return list(cells)
    return [own or "" for own in yes_or_no([cell in YES if cell else None for cell in plain], label)]


def listed(cells: Sequence[str], label: str) -> list[str] | None:
    """Cells that list labels as names of two classes: whether each lists this one. None where no cell does."""
    parts = [[part.strip().casefold() for part in cell.split(BETWEEN)] for cell in cells]
    if not any(len(own) > 1 for own in parts) or not any(label.casefold() in own for own in parts):
        return None
    found = yes_or_no([label.casefold() in own if own != [""] else None for own in parts], label)
    return [own or "" for own in found]


def one_label_each(label: str | None, where: object) -> UserError:
    """The error for a label that is chosen where there is nothing to choose from."""
    return UserError(
        f"parameter label={label!r} chooses one of several labels, and images of {where} have one each. Leave it out."
    )
