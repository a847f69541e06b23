"""What pages say of the data: what was read and what was not, copies, and which images to label first."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..data import Copy, Images, copies_of, counted, inert
from ..evaluation.label_first import Choice
from . import plots
from .pictures import Picture

SHOWN_CLASSES = 30  # in a table
SHOWN_COPIES, PER_ROW = 12, 6
SHOWN_TO_LABEL, PER_ROW_TO_LABEL = 24, 8
SPLITS = {"train": "training", "val": "validation", "test": "test"}


def account(images: Images) -> str:
    """What was read of the source, by class and split, what was left out, and what was done to it, in Markdown."""
    a, lines = images.account, []
    classes = list(dict.fromkeys(name for _, name, _ in a.rows))
    splits = [split for split in SPLITS if any(split == s for s, *_ in a.rows)]
    number = {(split, name): n for split, name, n in a.rows}
    lines += [
        "| class | " + " | ".join(f"{SPLITS[split]} images" for split in splits) + " |", "|:--|" + "--:|" * len(splits)
    ]  # fmt: skip
    named = [name for name in classes if name]
    for name in [*named[:SHOWN_CLASSES], *([""] if "" in classes else [])]:
        cells = " | ".join(f"{number.get((split, name), 0):,}" for split in splits)
        lines.append(f"| {name or '*without a label*'} | {cells} |")
    if len(named) > SHOWN_CLASSES:
        lines.append(f"| *{len(named) - SHOWN_CLASSES:,} more classes* |" + " |" * len(splits))
    totals = (sum(n for (s, _), n in number.items() if s == split) for split in splits)
    lines += ["| **all** | " + " | ".join(f"**{n:,}**" for n in totals) + " |", ""]
    if a.prepared:
        lines.append(f"- As the network sees them: {a.prepared}.")
    lines += [f"- {counted(n, 'picture')}: {what}." for what, n in a.done]
    lines += [f"- Left out: {n:,} {_place(where)}{why}." for where, why, n in a.left_out]
    lines += [f"- Damaged, and left out: {name} {why}." for name, why in a.damaged[:10]]
    if len(a.damaged) > 10:
        lines.append(f"- {len(a.damaged) - 10:,} more are damaged.")
    lines += [f"- {remark}" for remark in a.remarks]
    return "\n".join(lines)


def _place(where: str) -> str:
    return f"in {SPLITS.get(where, where)}: " if where else "– "


def copies_sentence(images: Images) -> str:
    """How many copies were found, in words."""
    found, n_train = copies_of(images), len(images.train)
    if not found:
        return "No copies were found, neither exact nor near ones."
    kinds = {
        "within the training images": [c for c in found if c.b < n_train],
        "within the test images": [c for c in found if c.a >= n_train],
        "**of a training image among the test images**": [c for c in found if c.a < n_train <= c.b],
    }
    said = [
        f"{counted(len(own), 'copy', 'copies')} {where} ({sum(c.exact for c in own):,} of them exact)"
        for where, own in kinds.items()
        if own
    ]
    return f"Found: {'; '.join(said)}.{_contradicted(images, found)}"


def _contradicted(images: Images, found: Sequence[Copy]) -> str:
    """How many images have the same pixels as another of another label; empty if none has."""
    labels = torch.cat([images.train_labels, images.test_labels]).tolist()
    alike: dict[int, list[int]] = {}  # the first of identical images -> all of them
    for copy in found:
        if copy.exact:
            alike.setdefault(copy.a, [copy.a]).append(copy.b)
    known = [[i for i in own if labels[i] >= 0] for own in alike.values()]
    torn = [own for own in known if len({labels[i] for i in own}) > 1]
    if not torn:
        return ""
    first = torn[0][0]
    other = next(i for i in torn[0] if labels[i] != labels[first])
    example = " and ".join(f"{inert(file_name(images, i))} ({_label(images, i)})" for i in (first, other))
    return (
        f" **{sum(map(len, torn)):,} identical images have different labels**, such as {example}: a label is wrong, or "
        "what tells them apart is not in the picture."
    )


def show_copies(images: Images) -> Picture | None:
    """Some pairs of copies, those across splits first, one above the other; None if there are none."""
    n_train = len(images.train)
    found = sorted(copies_of(images), key=lambda copy: (not copy.a < n_train <= copy.b, copy.exact, copy.a, copy.b))
    if not found:
        return None
    n = min(len(found), SHOWN_COPIES)
    shown = found[: n // PER_ROW * PER_ROW or n]  # whole rows
    everything = [copy for pair in shown for copy in (pair.a, pair.b)]
    pixels = torch.stack([_image(images, i) for i in everything])
    rows, titles = [], []
    for start in range(0, len(shown), PER_ROW):
        some = range(start, min(start + PER_ROW, len(shown)))
        for side in (0, 1):
            rows.append([2 * i + side for i in some])
            titles.append([_title(images, (shown[i].a, shown[i].b)[side], shown[i], side) for i in some])
    alt = f"{len(shown)} of {len(found)} pairs of copies, one above the other."
    picture = plots.image_rows(pixels, rows, titles, alt, f"{alt} Those across splits come first.", name="copies")
    return picture.with_rows([_pair(images, copy) for copy in found])


def _image(images: Images, i: int) -> Tensor:
    n_train = len(images.train)
    return images.train[i] if i < n_train else images.test[i - n_train]


def _title(images: Images, i: int, copy: Copy, side: int) -> str:
    part = "train" if i < len(images.train) else "test"
    return part if side == 0 else f"{part}, {'exact' if copy.exact else 'mirrored' if copy.mirrored else 'near'}"


def file_name(images: Images, i: int) -> str:
    """The name of an image's file; i counts training images, then test images."""
    names, n_train = (images.train_names, images.test_names), len(images.train)
    own, place = (names[0], i) if i < n_train else (names[1], i - n_train)
    return inert_path(own[place]) if own else str(place)


def inert_path(name: str) -> str:
    """A file's name that spreadsheets do not take for a formula, and that can be written as UTF-8."""
    name = name.encode("utf-8", "replace").decode()
    return f"./{name}" if name.startswith(tuple("=+-@\t\r\n")) else name


def _pair(images: Images, copy: Copy) -> dict[str, Any]:
    return {
        "image": file_name(images, copy.a), "copy": file_name(images, copy.b), "exact": copy.exact,
        "mirrored": copy.mirrored, "likeness": round(copy.likeness, 3),
        "label": _label(images, copy.a), "copy's label": _label(images, copy.b),
    }  # fmt: skip


def _label(images: Images, i: int) -> str:
    n_train = len(images.train)
    label = int(images.train_labels[i] if i < n_train else images.test_labels[i - n_train])
    return images.classes[label] if label >= 0 else ""


def show_label_first(images: Images, unlabelled: Tensor, chosen: Sequence[Choice]) -> Picture:
    """The images to label first, in order, with a table of their file names.

    Where nothing has a label, with as many held-out images, drawn at random, to test on: typical images would make a
    test easier than the images are.

    Args:
        images: of the data set.
        unlabelled: int64, which training images have no label.
        chosen: some of those, by their places among them.
    """
    places = [int(unlabelled[choice.index]) for choice in chosen]
    tests = images.test_sample(len(places)).tolist() if images.n_labels == 0 else []
    pixels = torch.cat([images.train[places], images.test[tests]])
    rows: list[list[int]] = []
    titles: list[list[str]] = []
    for word, start, n in (("", 0, len(places)), ("test ", len(places), len(tests))):
        shown = min(n, SHOWN_TO_LABEL) // PER_ROW_TO_LABEL * PER_ROW_TO_LABEL or n  # whole rows
        width = min(PER_ROW_TO_LABEL, shown)
        if n and (not rows or width == len(rows[0])):
            rows += [[start + k + i for i in range(width)] for k in range(0, shown, width)]
            titles += [[f"{word}{k + i + 1}" for i in range(width)] for k in range(0, shown, width)]
    alt = f"Images to label first, in order, the first of {len(places)}"
    alt += f"; and some of {len(tests)} to test on, at random." if tests else "."
    picture = plots.image_rows(pixels, rows, titles, alt, alt, name="label_first")
    n_train = len(images.train)
    table: list[dict[str, Any]] = [
        {"rank": i, "image": file_name(images, place), "split": "train", "stands for": choice.like, "label": ""}
        for i, (place, choice) in enumerate(zip(places, chosen, strict=True), 1)
    ]
    table += [{"rank": i, "image": file_name(images, n_train + t), "split": "test", "stands for": "", "label": ""}
              for i, t in enumerate(tests, 1)]  # fmt: skip
    return picture.with_rows(table)


def label_first_sentence(images: Images, n_chosen: int) -> str:
    """What the list is, in words."""
    n = int((images.train_labels < 0).sum())
    if n == 0:
        return "*Every training image has a label, so there is nothing to choose.*"
    said = (
        f"{n:,} training images have no label that can be used. The {n_chosen:,} below differ as much as these do: "
        "each is the most typical of a group. "
    )
    if images.n_labels == 0:
        said += (
            "With them come as many held-out images, drawn at random, to test on: on typical images alone, any "
            "classifier would look better than it is. "
        )
    return said + (
        "The link below the picture gives all as a table. Fill in its last column, and save it as `labels.csv` beside "
        "the images, or add its rows to the one that is there; of an array, set its labels."
    )
