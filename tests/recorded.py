"""A step's operations recorded on a processor and played again, as a GPU plays a captured graph.

As there, nothing of Python runs when it is played: what was a number while it was recorded stays that number, and what
lies in a tensor is read anew. An operation that reads a value from the device ends the recording.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal")


class Recording(TorchDispatchMode):
    """The operations within a `with` block; `play` does them again, on the same tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple, dict, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        masked = func.name().startswith(("aten::index.", "aten::index_put")) and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        )  # how many there are has to be read, too
        if masked or func.name().startswith(READS):
            raise RuntimeError(f"{func.name()} reads from the device")
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, _tensors(out)))  # kept, so that ids stay theirs
        return out

    @torch.no_grad()
    def play(self) -> None:
        """Do all of it again."""
        made: dict[int, Tensor] = {}

        def now(x: Any) -> Any:
            return made.get(id(x), x) if isinstance(x, Tensor) else x

        for func, args, kwargs, recorded in self.operations:
            out = func(*tree_map(now, args), **tree_map(now, kwargs))
            made.update((id(old), new) for old, new in zip(recorded, _tensors(out), strict=True))


def _tensors(out: Any) -> list[Tensor]:
    parts = out if isinstance(out, (tuple, list)) else [out]
    return [x for x in parts if isinstance(x, Tensor)]
