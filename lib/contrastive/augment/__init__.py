"""Random views of images: operations (tensor -> tensor), policies (text), and the batched pipeline.

`Augment("simclr", mean, std)(images, generator)` gives one view of each image, each with its own draw.
"""

from .pipeline import Augment, View, ViewMaker
from .policies import (
    AUTO,
    OPERATIONS,
    POLICIES,
    automatic_policy,
    describe_policy,
    parse_policy,
    spell_policy,
    with_smaller_crops,
)
