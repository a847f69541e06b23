"""Checkpoints of a training: written so that one survives anything, checked before anything in them is believed."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from ..storage.files import DamagedError, atomic_write, say, sync_folder, write_failure
from ..data.readers import fit_memory
from ..settings.model import Settings, UserError
from .loop import Position, Training

STATE, PREVIOUS = "state.pt", "state.previous.pt"
# What `pack` puts into a state
KINDS = dict(settings=str, code=str, data=str, history=list, method=OrderedDict, optimizer=dict, position=dict)
STATE_FORMAT = 3  # 1: features in another order; 2: between epochs only, without a checksum


# --- The file -----------------------------------------------------------------------------------------------------


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write `state.pt`, the one before it becoming `state.previous.pt` once the new one has been read back whole.

    Raises: RunError when it cannot be written; then the old ones are still there.
    """
    buffer = io.BytesIO()
    torch.save({**state, "format": STATE_FORMAT}, buffer)
    new = folder / f"{STATE}.new"
    atomic_write(new, seal(buffer.getvalue()))
    try:
        unseal(new.read_bytes())
        if _is_whole(folder / STATE):  # a damaged one must not take the place of the one before
            (folder / STATE).replace(folder / PREVIOUS)
        new.replace(folder / STATE)
        sync_folder(folder)
    except (OSError, ValueError) as error:
        raise write_failure(folder / STATE, error) from None


def _is_whole(path: Path) -> bool:
    try:
        unseal(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, with its tensors on the CPU, or None when there is none.

    Says so when the newest is damaged. Raises: UserError when none is whole, or another version wrote it.
    """
    problem: DamagedError | None = None
    for path in (folder / STATE, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            state = _read(path)
        except DamagedError as error:
            problem = problem or error
            continue
        if problem is not None:
            say(f"{problem} The checkpoint before it is used.")
        return state
    if problem is not None:
        raise UserError(f"{problem} Delete {folder} to train the run anew.")
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        fit_memory(path.stat().st_size, path)
        content = unseal(path.read_bytes())
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed")  # torch.save does not; a bomb would
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        state_format = state["format"]
        if type(state_format) is not int or not all(type(state[name]) is kind for name, kind in KINDS.items()):
            raise TypeError("not what pack gives")
    except Exception as error:  # a damaged or hostile file raises many things
        raise DamagedError(f"{path} is damaged, or of another version ({type(error).__name__}).") from None
    if state_format != STATE_FORMAT:
        raise UserError(f"{path} is of another version. Delete {path.parent} to train the run anew.")
    return state


def seal(content: bytes) -> bytes:
    """A zip file without a comment, as torch.save writes it, with the SHA-256 of its bytes as the comment.

    It stays a file that torch.load reads. PyTorch itself reads tensors without looking at the zip file's checksums.
    """
    digest = hashlib.sha256(content[:-2]).hexdigest().encode()
    return content[:-2] + len(digest).to_bytes(2, "little") + digest


def unseal(content: bytes) -> bytes:
    """The content of a sealed zip file. Raises: ValueError when it is not what was sealed."""
    plain = content[:-66] + b"\0\0"
    if seal(plain) != content:
        raise ValueError("the checksum is wrong")
    return plain


# --- What is in it ------------------------------------------------------------------------------------------------


def pack(training: Training, position: Position, history: list[dict[str, Any]], code: str, data: str) -> dict[str, Any]:
    """All that decides how a training goes on, for `save_state`."""
    return {
        "settings": training.settings.canonical_json(),
        "code": code,
        "data": data,
        "history": history,
        "method": training.method.state_dict(),
        "optimizer": training.optimizer.state_dict()["state"],
        "position": position.state(),
    }


def unpack(state: dict[str, Any], training: Training, path: Path) -> tuple[Position, list[dict[str, Any]]]:
    """Put a saved state into a training that has just been started. Returns position and history.

    Raises: DamagedError when the state does not fit; then the training is of no more use.
    """
    try:
        training.method.load_state_dict(state["method"])
        _load_optimizer(training.optimizer, state["optimizer"])
        position, history = training.position(state["position"]), state["history"]
        if len(history) != position.epoch or not all(_is_epoch(i, entry) for i, entry in enumerate(history, 1)):
            raise ValueError("the history does not fit")
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise DamagedError(f"{path} does not fit its run ({type(error).__name__}). Delete {path.parent}.") from None
    return position, history


def same_settings(state: dict[str, Any], settings: Settings, folder: Path) -> None:
    """Raises: UserError when a state is of another run."""
    if state.get("settings") != settings.canonical_json():
        raise UserError(f"the checkpoint in {folder} is of another run. Delete that folder.")


def _is_epoch(number: int, entry: dict[str, Any]) -> bool:
    numbers = all(type(value) in (int, float) and math.isfinite(value) for value in entry.values())
    return numbers and entry["epoch"] == number


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[int, dict[str, torch.Tensor]]) -> None:
    """Load the moments. What steers the optimiser, such as weight decay, stays as the settings have it."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if saved and set(saved) != set(range(len(parameters))):
        raise ValueError("another number of parameters")
    state: dict[int, dict[str, torch.Tensor]] = {}
    for i, moments in saved.items():
        if set(moments) != {"step", "exp_avg", "exp_avg_sq"} or moments["step"].shape != ():
            raise ValueError("not the state of Adam")
        state[i] = {"step": moments["step"].float()}
        for name in ("exp_avg", "exp_avg_sq"):
            if moments[name].shape != parameters[i].shape:
                raise ValueError(f"{name} has another shape")
            # The fused step trusts the moments to lie in memory as the parameter does; a file may say otherwise.
            state[i][name] = torch.empty_like(parameters[i], requires_grad=False).copy_(moments[name])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
