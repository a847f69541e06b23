"""Encoders (images -> features h), each with parameters of its own, and projection heads (h -> z).

`build_encoder(settings.encoder, shape, mean, std)` makes the one that was chosen; a new one registers itself.
"""

from . import cnn, outside, resnet, resnet9, vit  # which register themselves
from .base import Encoder, build_encoder, check_view
from .heads import HEADS, normalised_mlp, projection_head
from .initial import IMAGENET, RANDOM, found_weights, load_initial_weights
