"""Files of tensors and JSON that cannot hold code and tell when they are damaged: safetensors with a checksum."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from .files import DamagedError, atomic_write

ENTRY = (
    "contrastive"  # one entry, since the format keeps several in no fixed order, and the same should be the same bytes
)


def write_tensors(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and what belongs to them. Raises: RunError when the file cannot be written."""
    # Copies, since weights may be tied, which the format does not take
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    sealed = {**metadata, "sha256": _digest(metadata, whole)}
    atomic_write(path, save(whole, {ENTRY: json.dumps(sealed, sort_keys=True, allow_nan=False)}))


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `write_tensors` wrote there, in which safetensors checked sizes first.

    Raises: DamagedError, naming the file; FileNotFoundError.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})[ENTRY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.pop("sha256") != _digest(metadata, tensors):
            raise ValueError("the checksum is wrong")
    except FileNotFoundError:
        raise
    except Exception as error:  # safetensors has its own, and files may be anything
        raise DamagedError(f"{path} is damaged, or of another version ({type(error).__name__}).") from None
    return metadata, tensors


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names, such as a module's `state_dict()`."""
    return _digest({}, {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _digest(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
