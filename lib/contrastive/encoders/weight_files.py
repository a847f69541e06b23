"""Files of weights that others trained: found on this disk, read without running any code in them, fitted to a network.

Nothing here asks a network for anything.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from ..settings import UserError

WRAPPERS = ("state_dict", "model_state_dict", "model")  # under which training programs keep a network's weights
PARALLEL = "module."  # what DataParallel puts before each name
COUNTERS = "num_batches_tracked"  # of BatchNorm; files from before 2018 lack them, and frozen networks need none
NAMED_BY_HASH = re.compile(r"-([a-f0-9]{8,})\.pth$")  # the start of a download's SHA-256, by PyTorch's convention
# DenseNets were published when names of layers could hold dots
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of one by `torch.save`, by name. Raises: UserError."""
    check_file(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(
                f"{path} is no file of weights, or damaged ({type(error).__name__}). Get it anew."
            ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how old files are, and what else to call it with
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file may be anything, and each kind of damage has an error of its own
        if isinstance(error, pickle.UnpicklingError) and "unsupported" in str(error).lower():
            raise UserError(
                f"{path} holds code, not only tensors, and code of a file is not run. "
                "Save the weights alone: torch.save(model.state_dict(), FILE)."
            ) from None
        raise UserError(f"{path} is no file of weights, or damaged ({type(error).__name__}). Get it anew.") from None
    return _unwrapped(found, path)


def check_file(path: Path, parameter: str = "weights") -> None:
    """Raises: UserError when there is no regular file at `path`, which a parameter of that name gave."""
    if not path.is_file():
        what = "is no regular file" if path.exists() else "does not exist"
        raise UserError(f"{parameter}={path} {what}. Give a file .pth, .pt or .safetensors.")


def _unwrapped(found: object, path: Path) -> dict[str, Tensor]:
    for name in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items())
    ):
        raise UserError(f"{path} holds no tensors by name. Save them so: torch.save(model.state_dict(), FILE).")
    if all(name.startswith(PARALLEL) for name in found):
        return {name.removeprefix(PARALLEL): tensor for name, tensor in found.items()}
    return found


def fit_weights(body: nn.Module, state: dict[str, Tensor], dropped: tuple[str, ...], name: str, path: Path) -> None:
    """Put weights into a network; all have to fit.

    Args:
        body: the network, without its classifier.
        state: tensors by name.
        dropped: how names start of layers that the network was stripped of. These may have any size, or be missing.
        name: of the network, for people.
        path: of the file, for people.

    Raises:
        UserError: when the weights are of another network.
    """
    own = body.state_dict()
    kept = OrderedDict(
        (OLD_DENSENET.sub(r"\1\2", key), tensor) for key, tensor in state.items() if not key.startswith(dropped)
    )
    fitting = [key for key in own if key in kept and kept[key].shape == own[key].shape]
    missing = [key for key in own if key not in fitting and not key.endswith(COUNTERS)]
    wrong = [*missing, *(key for key in kept if key not in own)]
    mismatch = UserError(
        f"{path} holds weights of another network than {name}: {len(fitting):,} of its {len(own):,} tensors fit"
        f"{_first_wrong(wrong, own, kept)}. Give a file of {name}, or the name of the network that this file is of."
    )
    if wrong:
        raise mismatch
    kept._metadata = getattr(state, "_metadata", OrderedDict())  # type: ignore[attr-defined]  # versions of layers
    try:
        body.load_state_dict(kept, strict=False)
    except (RuntimeError, ValueError):
        raise mismatch from None


def _first_wrong(wrong: list[str], own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Which tensor is the first that does not fit, and how."""
    if not wrong:
        return ""
    key = wrong[0]
    if key not in given:
        return f"; {key} is missing"
    if key not in own:
        return f"; {key} is not part of it"
    there, needed = ("x".join(map(str, of[key].shape)) or "a number" for of in (given, own))
    return f"; {key} is {there} and has to be {needed}"


# --- Caches of other libraries ------------------------------------------------------------------------------------


def hub_file(url: str) -> Path:
    """Where torch.hub, and so torchvision, keeps what it downloaded from a URL."""
    return Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlparse(url).path)


def check_download(path: Path) -> None:
    """Raises: UserError when a downloaded file's content has another checksum than its name tells."""
    told = NAMED_BY_HASH.search(path.name)
    if told is None:
        return
    with path.open("rb") as file:
        if not hashlib.file_digest(file, "sha256").hexdigest().startswith(told[1]):
            raise UserError(f"{path} is damaged: its checksum is wrong. Delete it, and download it anew.")


def huggingface_file(repository: str, names: tuple[str, ...]) -> Path | None:
    """Where the Hugging Face cache has the first of these files of a repository; None if it has none of them."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = repository.partition("@")
    for name in names:
        found = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(found, str):  # otherwise None, or a mark that the repository has no such file
            return Path(found)
    return None
