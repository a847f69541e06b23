"""Contrastive pretraining on a few thousand unlabelled images, and what it is worth to a linear classifier."""

from .data import load_images
from .settings import Settings, UserError, notebook_settings
from .training import Run, load_encoder, pretrain, resolve

__version__ = "0.2.0"
__all__ = ["Run", "Settings", "UserError", "load_encoder", "load_images", "notebook_settings", "pretrain", "resolve"]
