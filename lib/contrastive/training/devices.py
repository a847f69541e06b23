"""On what it is computed, and in which precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..processor import cpu_flags
from ..settings import UserError


def choose_device(name: str) -> str:
    """The device that a setting means on this machine. Raises: UserError when it has none such."""
    have_mps = torch.backends.mps.is_available()
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"  # mps lacks float64; it has to be asked for
    kind, _, index = name.partition(":")
    if (kind == "cuda" and torch.cuda.device_count() <= int(index or 0)) or (kind == "mps" and not have_mps):
        raise UserError(f"parameter device={name}: this machine has no such device. Use cpu, or auto.")
    return name


def choose_precision(name: str, device: str) -> str:
    """bfloat16 where the hardware multiplies it; elsewhere it is emulated, many times slower than float32."""
    if name != "auto":
        return name
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device == "cpu" and cpu_flags() & {"avx512_bf16", "amx_bf16"} else "float32"


@contextmanager
def same_bits(device: torch.device) -> Iterator[None]:
    """Have convolutions on a GPU give the same bits each time, so that a seed decides a run and resuming is exact; on
    processors they do. Some of cuDNN's faster ways for float32 add up in an order that changes."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
