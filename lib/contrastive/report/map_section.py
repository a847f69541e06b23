"""What the evaluation's page shows of single images: a map, likely label errors, and what to label next."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data import Images
from ..evaluation import Findings, diagnostics, probes
from ..evaluation.arms import MOST_GENERAL
from ..evaluation.general import general_features, general_network
from ..evaluation.kept_probe import KeptProbe
from ..evaluation.label_errors import Suspect, judged_places, label_errors
from ..evaluation.label_first import Choice, choose_next
from ..training import Run, load_encoder, untrained_method
from .data_section import file_name
from .explorer import Explorer, explore

OWN, IMAGENET, RANDOM = "pretrained", "ImageNet", "random"
NEIGHBOURS = 6


@dataclass(frozen=True)
class Mapped:
    """Images on a map. places: int64, training images counted first, then test images. judged: int64, which of the
    judged images each is, -1 for the others."""

    pixels: Tensor
    labels: Tensor
    places: Tensor
    judged: Tensor


def mapped(images: Images, f: Findings, most: int) -> Mapped:
    """The images for a map: judged ones; under cross-validation with training images without a label, as far as there
    is room."""
    sample, n_train = f.judging.sample(most), len(images.train)
    pixels, labels = f.judging.pixels[sample], f.judging.labels[sample]
    if not f.judging.n_folds:
        return Mapped(pixels, labels, n_train + sample, sample)
    places = f.judging.index[sample]
    without = (images.train_labels < 0).nonzero().flatten()
    order = torch.from_numpy(np.random.default_rng(0x3A9).permutation(len(without)))
    more = without[order[: most - len(sample)]].sort().values
    return Mapped(
        torch.cat([pixels, images.train[more]]), torch.cat([labels, images.train_labels[more]]),
        torch.cat([places, more]), torch.cat([sample, torch.full((len(more),), -1)]),
    )  # fmt: skip


def spaces(run: Run, images: Images, f: Findings) -> dict[str, Callable[[Tensor], Tensor]]:
    """What gives features of uint8 images, by name: the pretrained encoder, ImageNet's network if it was compared, and
    the encoder with random weights."""
    own, device = run.settings, run.settings.runtime.device
    encoder, untrained = load_encoder(run).to(device), untrained_method(run).encoder.to(device)
    found: dict[str, Callable[[Tensor], Tensor]] = {OWN: lambda x: probes.embed(encoder, x)}
    if f.has("general", f.few):
        network = general_network(own.evaluation, images, device, own.runtime.precision)
        assert network is not None
        found[IMAGENET] = lambda x: general_features(network, x)
    return found | {RANDOM: lambda x: probes.embed(untrained, x)}


def image_map(run: Run, images: Images, f: Findings, kept: KeptProbe, most: int) -> Explorer:
    """A map of at most so many images, by each kind of features.

    Args:
        run: whose encoder it is.
        images: that it was trained on.
        f: what was found.
        kept: a probe for images that were not judged.
        most: images.
    """
    m = mapped(images, f, most)
    features = {name: features_of(m.pixels) for name, features_of in spaces(run, images, f).items()}
    points = {name: diagnostics.map_2d(h, run.settings.runtime.seed) for name, h in features.items()}
    own = features[OWN]
    probabilities = kept.probe.probabilities(own.cpu())
    seen = m.judged >= 0
    probabilities[seen] = f.evaluations[0].probabilities[m.judged[seen]]
    nearest = probes.nearest_neighbours(own, list(range(len(own))), min(NEIGHBOURS, len(own) - 1))
    every = torch.cat([images.groups, images.test_groups])
    groups = [images.group_names[i] for i in every[m.places].tolist()] if len(every) else None
    names = [file_name(images, i) for i in m.places.tolist()] if images.train_names else None
    return explore(
        m.pixels,
        points,
        m.labels,
        probabilities,
        images.classes,
        [row[1:] for row in nearest],
        groups=groups,
        names=names,
    )


def suspects(run: Run, images: Images, f: Findings) -> tuple[list[Suspect], Tensor]:
    """Likely label errors among the training images, by the features that serve better; and which training images those
    are that were looked at, int64."""
    looked = images.labelled[judged_places(images.train_labels[images.labelled], run.settings.runtime.seed)]
    name = OWN
    if f.has("general") and len(looked) <= MOST_GENERAL and f.percent("general")["mean"] > f.percent("linear")["mean"]:
        name = IMAGENET
    features = spaces(run, images, f)[name](images.train[looked])
    groups = images.groups[looked] if len(images.groups) else None
    seed = run.settings.runtime.seed
    return label_errors(features, images.train_labels[looked], len(images.classes), groups, seed), looked


def label_next(run: Run, images: Images, n: int) -> list[Choice]:
    """Training images to label next; none where all have a label."""
    if images.n_labels == len(images.train):
        return []
    features = probes.embed(load_encoder(run).to(run.settings.runtime.device), images.train)
    return choose_next(features, images.train_labels, len(images.classes), n, run.settings.runtime.seed)
