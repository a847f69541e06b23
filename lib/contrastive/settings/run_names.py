"""What names a run: the values that decide its weights, and the versions of the code that turns them into weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Settings

# Components that decide an encoder's weights. The others only decide what is measured afterwards.
DECISIVE = ("data", "views", "encoder", "method", "optimiser", "runtime")


def identity(settings: Settings) -> str:
    """Canonical JSON of what decides a run's weights, for resolved settings: of each component its VERSION and the
    values that are not its defaults, and the checksum of the images."""
    parts = {}
    for name in DECISIVE:
        component = getattr(settings, name)
        parts[name] = {"version": component.VERSION, **component.decisive()}
    parts["data"]["sha256"] = settings.data_sha256
    return json.dumps(parts, sort_keys=True)


def digest(text: str) -> str:
    """Eight characters for a canonical text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_name(settings: Settings) -> str:
    """Name of the run with these settings, e.g. `mnist-simclr-cnn-15ep-s0-1a2b3c4d`. Resolve them first.

    Only the digest at its end counts; the words before it are for people.
    """
    data = "".join(c if c.isalnum() else "_" for c in Path(settings.data.dataset).name)[:32] or "data"
    names = "-".join("".join(c if c.isalnum() else "_" for c in s.name) for s in (settings.method, settings.encoder))
    return f"{data}-{names}-{settings.optimiser.epochs}ep-s{settings.runtime.seed}-{digest(identity(settings))}"
