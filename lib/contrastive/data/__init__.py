"""Data sets by name or path, checked, as uint8 tensors; and which images serve for what.

`load_images("mnist")` gives `Images`, `split` the unlabelled images, the validation images and the label budgets.
"""

from .images import ImageFormat, Images, inert
from .sources import NAMES, forget_images, load_images
from .splits import Splits, default_budgets, headline_labels, n_validation_images, split
