"""Encoders (images -> features h), each with parameters of its own, and projection heads (h -> z).

`build_encoder(settings.encoder, shape, mean, std)` makes the one that was chosen; a new one registers itself.
"""

from . import cnn, resnet  # which register themselves
from .base import Encoder, build_encoder, count_features
from .heads import normalised_mlp, projection_head
