"""Contrastive pretraining on a few thousand unlabelled images, and what it is worth to a linear classifier."""

import sys
from types import TracebackType


def _in_a_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


# The imports below take seconds. A command that is interrupted meanwhile is to end with a line, as it does later.
if sys.argv and sys.argv[0].replace("\\", "/").rpartition("/")[2] in ("contrastive", "-m"):
    sys.excepthook = _in_a_line

from .data import load_images  # noqa: E402
from .settings import Settings, UserError, notebook_settings  # noqa: E402
from .training import Run, load_encoder, pretrain, resolve  # noqa: E402

__version__ = "0.2.0"
__all__ = ["Run", "Settings", "UserError", "load_encoder", "load_images", "notebook_settings", "pretrain", "resolve"]
