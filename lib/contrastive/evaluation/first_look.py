"""What can be said of the images within the first minute: what a linear classifier gets before any pretraining."""

from __future__ import annotations

from torch import nn

from ..data import Images, counted, split, why_no_validation
from ..encoders import Encoder
from ..settings import Settings
from ..training import initial_method, n_labels_beside_validation
from .probes import embed, fit_probe

LABELS, JUDGED, LEAST = 1000, 2000, 200  # at most, and of large images at least
SMALL = 3 * 64**2  # values of an image, beyond which fewer images are looked at, or it would take long
PREFIX = "First look: "  # of the sentence, by which a terminal knows it


def first_look(settings: Settings, images: Images) -> str:
    """How many validation images a linear classifier gets right from raw pixels, and from the encoder's features with
    the random weights that training starts from, in a sentence; why that cannot be said where there are too few labels.

    Args:
        settings: resolved ones.
        images: theirs.
    """
    if why := why_no_validation(images):
        return f"{PREFIX}{why}"
    splits = split(images, settings.data.n_images or 0, settings.runtime.seed)
    small = min(SMALL / images.train[0].numel(), 1)
    n_fit = min(max(int(LABELS * small), LEAST), n_labels_beside_validation(settings, images))
    fit, judged = splits.rest[:n_fit], splits.validation[: max(int(JUDGED * small), LEAST)]
    n_choose = max(len(fit) // 5, 1)
    device = settings.runtime.device
    labels, truth = images.train_labels[fit].to(device), images.train_labels[judged].to(device)
    (channels, height, width), found = images.format.shape, []
    pixels = Encoder(nn.Flatten(), channels * height * width, (0.0,) * channels, (1.0,) * channels)
    for encoder in (pixels, initial_method(settings, images.format).encoder):
        x = embed(encoder.to(device), images.train[fit])
        choose, rest = (x[:n_choose], labels[:n_choose]), (x[n_choose:], labels[n_choose:])
        found.append(fit_probe(rest, choose, len(images.classes)).accuracy(embed(encoder, images.train[judged]), truth))
    usual = images.train_labels[fit].mode().values
    guessed = 100 * int((images.train_labels[judged] == usual).sum()) / len(judged)
    return (
        f"{PREFIX}with {counted(len(fit), 'label')}, a linear classifier gets {found[0]:.1f} % of "
        f"{counted(len(judged), 'validation image')} right from raw pixels, and {found[1]:.1f} % from a network that "
        f"has learnt nothing yet (random weights); always guessing the most frequent class gets {guessed:.1f} %. "
        "Pretraining has to beat all of these."
    )
