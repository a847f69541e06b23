"""Contrastive pretraining on a few thousand unlabelled images, and what it is worth to a linear classifier."""

from .data.images import load_images
from .training.runs import Run, load_encoder, pretrain
from .settings.model import Settings, UserError, notebook_settings

__version__ = "0.1.0"
__all__ = ["Run", "Settings", "UserError", "load_encoder", "load_images", "notebook_settings", "pretrain"]
