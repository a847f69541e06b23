"""The arms of a comparison: what a linear classifier gets from features, and what networks trained on labels get."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..data import Images
from ..encoders import RANDOM, Encoder
from ..encoders.general import GeneralEncoder
from ..methods import Method
from ..settings import Settings, UserError
from ..storage.files import say
from ..training import initial_method
from .general import general_features
from .probes import embed
from .wavelets import SCATTERED_UP_TO, scattering

Features = Callable[[Tensor], Tensor]  # uint8 N x C x H x W -> float32 N x D
COMPONENTS = 100


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a run's method and encoder, the encoder with random weights, a network that was pretrained on
    other images, if there is one, the images, and which of them (int64) were pretrained on."""

    settings: Settings
    images: Images
    pretrain: Tensor
    method: Method
    encoder: Encoder
    random_encoder: Encoder
    general: GeneralEncoder | None = None

    @property
    def device(self) -> str:
        """Where it is computed."""
        return self.settings.runtime.device

    @cached_property
    def initial_encoder(self) -> Encoder | None:
        """The encoder with the weights that the run was given to start from; None if these were random, or are gone."""
        if self.settings.encoder.initial_weights == RANDOM:
            return None
        try:
            return initial_method(self.settings, self.images.format, continued=True).encoder.to(self.device)
        except UserError as error:
            say(f"the encoder before pretraining is not measured: {error}")
            return None


@dataclass(frozen=True)
class Arm:
    """One of what is compared.

    id: names it in metrics. name: in tables. whom: in a sentence. colour, marker, dashed: of its line. full: measured
    only where `evaluation` is full. features: what a linear probe is fitted to, of a subject; or labels: how a network
    is trained on labels, as arguments of `labelled.classifier`. serves: whether it can be measured of a subject. cheap:
    whether it is measured with more labels than a tenth of all. roles: `scratch` has labels alone, and the better one
    is what is to be beaten; a frozen `control` is what pretraining should not be worse than; `own` ones use the
    pretrained encoder, `general` ones another network; `corrupted` ones meet corrupted images, `transferred` ones other
    images; `index` ones are drawn in the index of reports. joined: two other arms, whose features it has together.
    most: with how many labels it is measured, at most. thorough: whether networks are trained with every budget for
    them, and not with two (see `labelled.middle_and_headline`), unless the evaluation is a full one.
    """

    id: str
    name: str
    whom: str
    colour: str
    marker: str
    dashed: bool = False
    full: bool = False
    features: Callable[[Subject], Features] | None = None
    labels: Callable[[Subject], dict[str, Any]] | None = None
    serves: Callable[[Subject], bool] = lambda subject: True
    cheap: bool = True
    joined: tuple[str, str] | None = None
    most: int | None = None
    thorough: bool = True
    roles: tuple[str, ...] = ()


def pixels(images: Tensor) -> Tensor:
    """uint8 images as float32 rows in [0, 1]."""
    return images.flatten(1).float() / 255


def _projections(subject: Subject) -> Features:
    return lambda x: subject.method.representations(embed(subject.encoder, x))["z"]


def _has_projections(subject: Subject) -> bool:
    return "z" in subject.method.representations(embed(subject.encoder, subject.images.train[:2]))


def _principal(subject: Subject) -> Features:
    """Principal components of the unlabelled images."""
    from sklearn.decomposition import PCA

    rows = pixels(subject.images.train[subject.pretrain]).numpy()
    pca = PCA(min(COMPONENTS, len(rows) - 1, rows.shape[1]), random_state=subject.settings.runtime.seed).fit(rows)
    return lambda x: torch.from_numpy(pca.transform(pixels(x).numpy())).float().to(subject.device)


def _initial(subject: Subject) -> Features:
    encoder = subject.initial_encoder
    assert encoder is not None
    return lambda x: embed(encoder, x)


def _general(subject: Subject) -> Features:
    network = subject.general
    assert network is not None
    return lambda x: general_features(network, x).to(subject.device)


MOST_GENERAL = 10_000  # labels: looking at enlarged images takes minutes for as many
_ALL = (
    Arm("linear", "pretrained, frozen + linear", "the linear probe", "blue", "o",
        features=lambda s: lambda x: embed(s.encoder, x), roles=("own", "corrupted", "transferred", "index")),
    Arm("finetuned", "pretrained, fine-tuned", "the fine-tuned network", "blue", "P", dashed=True,
        labels=lambda s: {"pretrained": s.encoder}, thorough=False, roles=("own",)),
    Arm("general", "ImageNet features + linear", "ImageNet features", "purple", "h",
        features=_general, serves=lambda s: s.general is not None, most=MOST_GENERAL, roles=("general",)),
    Arm("general_own", "ImageNet and pretrained + linear", "ImageNet features joined with the pretrained encoder's",
        "purple", "H", dashed=True, joined=("general", "linear"), serves=lambda s: s.general is not None,
        most=MOST_GENERAL, roles=("own", "general")),
    Arm("supervised", "same network from scratch, augmented", "the same network from scratch, augmented", "orange", "s",
        labels=lambda s: {}, roles=("scratch", "corrupted", "index")),
    Arm("supervised_plain", "same network from scratch, not augmented", "the same network from scratch, not augmented",
        "orange", "v", dashed=True, labels=lambda s: {"augmented": False}, roles=("scratch",)),
    Arm("initial_encoder", "before pretraining, frozen + linear", "the encoder before pretraining", "green", "s",
        features=_initial, serves=lambda s: s.initial_encoder is not None, roles=("control",)),
    Arm("random_encoder", "random, frozen + linear", "the random encoder", "green", "D",
        features=lambda s: lambda x: embed(s.random_encoder, x),
        roles=("control", "corrupted", "transferred", "index")),
    Arm("raw_pixel", "raw pixels + linear", "raw pixels", "grey", "^",
        features=lambda s: lambda x: pixels(x).to(s.device), roles=("control", "transferred")),
    Arm("general_finetuned", "ImageNet, fine-tuned", "the fine-tuned ImageNet network", "purple", "p", dashed=True,
        full=True, labels=lambda s: {"pretrained": s.general}, serves=lambda s: s.general is not None, thorough=False,
        roles=("general",)),
    Arm("pca", "principal components + linear", "principal components", "grey", "X", full=True, features=_principal),
    Arm("scattering", "scattering transform + linear", "the scattering transform", "green", "*", full=True,
        features=lambda s: lambda x: scattering(x).to(s.device),
        serves=lambda s: s.images.train[0].numel() <= SCATTERED_UP_TO, cheap=False),
    Arm("projection", "pretrained, projections z + linear", "the one on projections z", "blue", "d", dashed=True,
        full=True, features=_projections, serves=_has_projections),
)  # fmt: skip
ARMS: dict[str, Arm] = {arm.id: arm for arm in _ALL}


def with_role(role: str) -> tuple[str, ...]:
    """The arms of that role, by their ids."""
    return tuple(arm.id for arm in _ALL if role in arm.roles)


SCRATCH = with_role("scratch")
