"""Data sets by name, by path or as arrays, checked, as uint8 tensors; and which images serve for what.

`load_images("mnist")` gives `Images`; `split` gives the unlabelled images, the validation images and the label budgets.
Within: sources (where) -> manifest (a row an image) -> pictures, packed (pixels) -> assemble (`Images`) -> splits.
"""

from .copied import Copy, across_splits, copies_of
from .folding import folds, most_labels, n_folds, n_repeats
from .images import Account, ImageFormat, Images, inert
from .manifest import counted
from .picture import Picture, Undecodable
from .preparation import Preparation
from .sources import NAMES, USUAL_NAMES, find_pictures, forget_images, load_images, read_images
from .splits import (
    Splits,
    default_budgets,
    headline_labels,
    n_unlabelled,
    split,
    why_no_evaluation,
    why_no_validation,
)
