"""Lists of images with pictures: labels that are likely to be wrong, and images to label next."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data import Images
from ..evaluation.label_errors import MOST, Suspect
from ..evaluation.label_first import Choice
from . import plots
from .data_section import file_name
from .explorer import inert_cell
from .pictures import Picture

SHOWN, PER_ROW = 24, 8
LONGEST = 11  # letters of a class's name above a picture


def show_label_errors(images: Images, suspects: Sequence[Suspect], place_of: Tensor) -> Picture | None:
    """The images whose labels are likely to be wrong, the surest first, with a table of all; None if there are none.

    Args:
        images: of the data set.
        suspects: from `label_errors`.
        place_of: int64, which image each of those is that `label_errors` was given: training images are counted first,
            then test images.
    """
    if not suspects:
        return None
    places = [int(place_of[suspect.index]) for suspect in suspects]
    titles = [
        f"{_cut(images.classes[suspect.given])}\n→ {_cut(images.classes[suspect.predicted])}, "
        f"{100 * suspect.confidence:.0f} %"
        for suspect in suspects
    ]
    alt = f"Images with labels that may be wrong, the likeliest first: {n_shown(len(suspects))} of {len(suspects):,}."
    caption = f"{alt} Above each its label and, after the arrow, the class that it is taken for and how surely."
    table = [
        {
            "rank": rank,
            "image": file_name(images, place),
            "given": inert_cell(images.classes[suspect.given]),
            "predicted": inert_cell(images.classes[suspect.predicted]),
            "certainty": round(suspect.confidence, 3),
        }
        for rank, (place, suspect) in enumerate(zip(places, suspects, strict=True), 1)
    ]
    return _rows(images, places, titles, alt, caption, "label_errors").with_rows(table)


def label_errors_sentence(n_suspects: int, n_labels: int) -> str:
    """What the list is, in words."""
    looked_at = f"{n_labels:,} labels"
    if n_labels > MOST:
        looked_at = f"{MOST:,} labels, drawn at random from {n_labels:,},"
    if n_suspects == 0:
        return (
            f"No label is suspected to be wrong: of {looked_at} none is of another class for sure, to classifiers that "
            "had not seen it."
        )
    images = "one image" if n_suspects == 1 else f"{n_suspects:,} images"
    return (
        f"Of {looked_at} those below are the most likely to be wrong. Classifiers that had not seen them take {images} "
        "for another class than the label says; first come those that stand out most from images that are labelled "
        "alike. Of the first, many labels may be wrong; the further "
        "down, the more are right, and the images are hard. Look at each before you correct its label."
    )


def show_label_next(images: Images, chosen: Sequence[Choice]) -> Picture | None:
    """The images to label next, in order, with a table of their file names; None if there are none.

    Args:
        images: of the data set.
        chosen: from `choose_next`, of its training images.
    """
    if not chosen:
        return None
    places = [choice.index for choice in chosen]
    alt = f"Images to label next, in order: {n_shown(len(places))} of {len(places):,}."
    table = [
        {"rank": i, "image": file_name(images, choice.index), "split": "train", "stands for": choice.like, "label": ""}
        for i, choice in enumerate(chosen, 1)
    ]
    titles = [str(i) for i in range(1, len(places) + 1)]
    return _rows(images, places, titles, alt, alt, "label_next").with_rows(table)


def label_next_sentence(images: Images, n_chosen: int) -> str:
    """What the list is, in words."""
    n = int((images.train_labels < 0).sum())
    if n == 0:
        return "*Every training image has a label, so there is nothing to choose.*"
    return (
        f"{n:,} training images have no label that can be used. A classifier that is fitted to the {images.n_labels:,} "
        f"labels is unsure of the {n_chosen:,} below. They differ as much as all do that it is unsure of: each is the "
        "most typical of a group. The link below the picture gives all as a table. Fill in its last column, and take "
        "image and label over into `labels.csv` beside the images (with their patients, if it has a column of groups); "
        "of an array, set its labels."
    )


def n_shown(n: int) -> int:
    """Of n images, those that are shown: whole rows, if they fill one."""
    shown = min(n, SHOWN)
    return shown // PER_ROW * PER_ROW or shown


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _rows(images: Images, places: list[int], titles: list[str], alt: str, caption: str, name: str) -> Picture:
    """The first of some images, counted as in `file_name`, in whole rows."""
    shown = n_shown(len(places))
    n_train, width = len(images.train), min(PER_ROW, shown)
    pixels = [images.train[i] if i < n_train else images.test[i - n_train] for i in places[:shown]]
    rows = [list(range(start, start + width)) for start in range(0, shown, width)]
    above = [titles[start : start + width] for start in range(0, shown, width)]
    return plots.image_rows(torch.stack(pixels), rows, above, alt, caption, name=name)
