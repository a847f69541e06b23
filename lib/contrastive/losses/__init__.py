"""Losses as pure functions of projections, each with its paper.

`nt_xent(z1, z2, temperature)` takes N x D projections of two views, not yet normalised, and gives the mean loss over
the 2N anchors.
"""

from .infonce import batch_info_nce, info_nce
from .ntxent import nt_xent, nt_xent_and_top1, whole_matrix
from .pairs import LOSSES, chance_loss, lowest_loss
from .prototypes import prototype_cross_entropy, share_in_use, sharpened, sinkhorn
from .redundancy import barlow_twins, vicreg
from .regression import cosine_regression
from .supcon import sup_con
