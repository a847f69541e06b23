"""Methods of pretraining, one file each: SimCLR, BYOL, MoCo v2, and learning from labels.

`build_method(encoder, settings)` makes the one that was chosen; a new one is a `Method` that registers itself.
"""

from . import byol, moco, simclr, supervised  # which register themselves
from .base import Batch, Logged, Method, Output, Progress, build_method, decay_groups
