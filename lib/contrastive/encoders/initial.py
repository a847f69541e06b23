"""The weights that pretraining starts from: random ones, ImageNet's, or those of a file."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ..settings import ENCODERS, EncoderSettings, UserError
from .base import IMAGENET, RANDOM, Encoder, build_encoder
from .weight_files import check_file

ENCODER = "encoder.safetensors"  # in the folder of a run


def weights_file(settings: EncoderSettings) -> Path:
    """Where first weights lie that are not random. Raises: UserError when there is no file."""
    asked = settings.initial_weights
    if asked == IMAGENET:
        cls: type[Encoder] = ENCODERS[settings.name]
        return cls.imagenet_file(settings)
    path = Path(os.path.expanduser(asked)).absolute()
    path = path / ENCODER if path.is_dir() else path
    if not path.exists():
        raise UserError(
            f"initial_weights={asked}: there is no {path}. Choose {RANDOM} or {IMAGENET}, or give a file .pth, .pt or "
            ".safetensors, or the folder of a finished run."
        )
    check_file(path, "initial_weights")
    return path


def found_weights(settings: EncoderSettings, shape: tuple[int, ...], asked: bool) -> dict[str, Any]:
    """The values of an encoder's parameters that say which first weights it has, by their names.

    Weights whose checksum is known may be gone: a run that was trained from them is still found by it.

    Args:
        settings: its own.
        shape: of the images: channels, height, width.
        asked: whether somebody asked for the checksum.

    Raises:
        UserError: when there is no such file, it has another checksum, or its weights do not fit.
    """
    known = settings.initial_sha256
    if settings.initial_weights == RANDOM:
        if asked and known is not None:
            raise UserError("parameter initial_sha256 is of no use with initial_weights=random. Leave one of them out.")
        return {"initial_sha256": None}
    try:
        path = weights_file(settings)
    except UserError:
        if known is None:
            raise
        return {}
    sha256 = _sha256(path)
    if asked and known not in (None, sha256):
        raise _other_weights(path, sha256)
    where = settings.initial_weights if settings.initial_weights == IMAGENET else str(path)
    found = {"initial_weights": where, "initial_sha256": sha256, **ENCODERS[settings.name].fitted(settings, path)}
    _check_fit(settings.model_copy(update=found), shape)
    return found


def load_initial_weights(encoder: Encoder, settings: EncoderSettings) -> None:
    """Give a new encoder the weights that its settings name, if they are not random. Raises: UserError."""
    if settings.initial_weights == RANDOM:
        return
    path = weights_file(settings)
    if settings.initial_sha256 not in (None, sha256 := _sha256(path)):
        raise _other_weights(path, sha256)
    encoder.adopt(settings, path)


@lru_cache(maxsize=8)  # once for each file: settings hold its checksum
def _check_fit(settings: EncoderSettings, shape: tuple[int, ...]) -> None:
    """Raises: UserError when the first weights do not fit, before anything else is done."""
    channels = shape[0]
    with torch.random.fork_rng(devices=[]):
        load_initial_weights(build_encoder(settings, shape, (0.0,) * channels, (1.0,) * channels), settings)


def _sha256(path: Path) -> str:
    seen = path.stat()
    return _hashed(path, seen.st_size, seen.st_mtime_ns)


@lru_cache(maxsize=8)
def _hashed(path: Path, size: int, changed: int) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"initial_weights: {path} cannot be read: {error.strerror}.") from None


def _other_weights(path: Path, sha256: str) -> UserError:
    return UserError(
        f"parameter initial_sha256: {path} has the checksum {sha256[:8]}..., so these are other weights. Get the "
        "right ones, or leave the parameter out."
    )
