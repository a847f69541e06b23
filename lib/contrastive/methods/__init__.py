"""Methods of pretraining, one file each: nine that need no labels, and two that learn from labels, to compare with.

`build_method(encoder, settings)` makes the one that was chosen; a new one is a `Method` that registers itself.
"""

# They register themselves
from . import barlow_twins, byol, dino, moco, mocov3, simclr, simsiam, supcon, supervised, swav, vicreg
from .base import Batch, Logged, Method, Output, Progress, build_method, decay_groups
