"""Encoders (images -> features h), each with parameters of its own, and projection heads (h -> z).

`build_encoder(settings.encoder, shape, mean, std)` makes the one that was chosen; a new one registers itself.
"""

from . import cnn, resnet  # which register themselves
from .base import Encoder, build_encoder, check_view
from .heads import HEADS, normalised_mlp, projection_head
