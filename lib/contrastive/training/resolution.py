"""What settings mean for these images and this machine."""

import math
from dataclasses import replace
from typing import Any

from ..augment import AUTO, automatic_policy
from ..data import (
    NAMES,
    Images,
    counted,
    default_budgets,
    most_labels,
    n_unlabelled,
    read_images,
    split,
    why_no_evaluation,
    why_no_validation,
)
from ..data.manifest import LEAST_TEST
from ..encoders import check_view
from ..encoders.general import USUAL, general_encoder
from ..settings import ENCODERS, METHODS, Settings, UserError, absolute, as_text
from .devices import choose_device, choose_precision

USUAL_N_IMAGES = 5000
STEPS_OF_EPOCH = 4  # at least, where nobody asked for a batch size
LEAST_STEPS = 300  # of a training for which nobody asked for epochs: fewer leave even its checks undecided
# Of the side of digits, which have a border: smaller views cost less, and on validation images of MNIST they gave
# features that are as good (100, 600 and 5,000 labels, four seeds).
VIEW_OF_DIGITS = 24 / 28
# What follows the data, unless it was asked for
FITTED = ("n_images", "batch_size", "epochs", "view_size", "budgets", "ablation_labels")


def resolve(settings: Settings, images: Images | None = None) -> tuple[Settings, Images]:
    """The settings with every `auto` and None replaced by what it means here; and the images.

    Numbers that nobody asked for fit what there is. That nothing can be evaluated is no mistake here: see
    `check_evaluation`.

    Args:
        settings: any.
        images: those to use, if they are not to be loaded as the settings say.

    Returns:
        Settings, which now name a run (`settings.run_name`), and the images, whose `note` says what a reader must know
        of where they came from, and which numbers shrank.

    Raises:
        UserError: when the data cannot serve these settings.
    """
    images = read_images(settings.data) if images is None else images
    check_images(settings, images)
    n_images = _n_images(settings, images)
    split(images, n_images, settings.runtime.seed)
    batch_size = settings.optimiser.batch_size
    if batch_size > n_images and "batch_size" in settings.asked:
        raise UserError(
            f"parameter batch_size={batch_size}: there are only {n_images} unlabelled images (n_images). Ask for at "
            f"most {n_images}."
        )
    if "batch_size" not in settings.asked:
        batch_size = min(batch_size, max(n_images // STEPS_OF_EPOCH, 2))
    transfer = settings.evaluation.transfer
    if transfer is not None and transfer not in NAMES:  # wherever a notebook's kernel starts
        transfer = absolute(transfer)
    weights = settings.evaluation.weights
    policy, _ = automatic_policy(images)
    device = choose_device(settings.runtime.device)
    labelled, validated = not why_no_evaluation(images), not why_no_validation(images)
    found: dict[str, Any] = dict(
        transfer=transfer,
        weights=None if weights is None else absolute(weights),
        dataset=images.name if settings.data.dataset in NAMES else absolute(settings.data.dataset),
        n_images=n_images,
        batch_size=batch_size,
        epochs=_epochs(settings, n_images, batch_size),
        view_size=_view_size(settings, images),
        augment=policy if settings.views.augment == AUTO else settings.views.augment,
        second_augment=policy if settings.views.second_augment == AUTO else settings.views.second_augment,
        ablation_labels=_ablation_labels(settings, images) if validated else settings.ablations.ablation_labels,
        budgets=_budgets(settings, images, n_images) if labelled else settings.evaluation.budgets,
        device=device,
        precision=choose_precision(settings.runtime.precision, device),
    )
    resolved = settings.found(images.sha256, **found)
    said = _fitted(settings, resolved, images)
    if said and said not in images.note:
        images = replace(images, note=f"{images.note} {said}".strip())
    return resolved, images


def _n_images(settings: Settings, images: Images) -> int:
    """How many images to pretrain on, with any of the seeds. Raises: UserError."""
    asked = settings.data.n_images
    if asked is not None and settings.data_sha256 == images.sha256:  # resolved before, perhaps with other seeds, too
        return asked
    pools = {seed: n_unlabelled(images, seed) for seed in _seeds(settings, images)}
    least = min(pools, key=lambda seed: pools[seed])
    if pools[least] < 2:
        raise UserError(f"{images.name} has {len(images.train):,} training images: too few to pretrain on.")
    if asked is not None and "n_images" in settings.asked:
        split(images, asked, least)  # raises where they are not that many
        return asked
    return min(asked or USUAL_N_IMAGES, pools[least])


def _seeds(settings: Settings, images: Images) -> range:
    """The seeds with which different numbers of images are kept for validation: with groups all of them, else one."""
    n = max(settings.report.n_seeds, settings.ablations.ablation_seeds) if len(images.groups) else 1
    return range(settings.runtime.seed, settings.runtime.seed + n)


def _epochs(settings: Settings, n_images: int, batch_size: int) -> int:
    """The preset's epochs; of few images more, until there are LEAST_STEPS steps, or as many as the preset has of more
    images."""
    if "epochs" in settings.asked:
        return settings.optimiser.epochs
    usual = Settings(preset=settings.preset)
    steps = (usual.data.n_images or USUAL_N_IMAGES) // usual.optimiser.batch_size * usual.optimiser.epochs
    needed = math.ceil(min(steps, LEAST_STEPS) / max(n_images // batch_size, 1))
    return max(settings.optimiser.epochs, needed)


def _ablation_labels(settings: Settings, images: Images) -> int:
    """How many labels a probe that judges a point of a grid has: a preset's, as far as there are some beside those of
    the validation images."""
    own = settings.ablations.ablation_labels
    return own if "ablation_labels" in settings.asked else min(own, n_labels_beside_validation(settings, images))


def n_labels_beside_validation(settings: Settings, images: Images) -> int:
    """How many labels there are, with any of the seeds, beside those of the validation images."""
    return min(len(split(images, 0, seed).rest) for seed in _seeds(settings, images))


def _view_size(settings: Settings, images: Images) -> int | None:
    """The views' size, if the encoder can take them; a preset's is left out where it cannot. Raises: UserError."""
    size = settings.views.view_size
    if size is None and settings.preset == "quick" and "view_size" not in settings.asked and images.handwriting:
        size = round(images.format.shape[1] * VIEW_OF_DIGITS)
    try:
        check_view(settings.encoder, images.format.shape, size, "parameter view_size")
    except UserError:
        if "view_size" in settings.asked:
            raise
        return None
    # Who asks for what the images have gets what `none` would be, which is how to ask for it in preset quick
    return None if size == images.format.shape[1] and "view_size" in settings.asked else size


def _budgets(settings: Settings, images: Images, n_images: int) -> tuple[int, ...] | None:
    """Numbers of labels to evaluate with: those asked for; a preset's, as far as there are labels; else by the data."""
    budgets, n_classes = settings.evaluation.budgets, len(images.classes)
    if budgets and "budgets" in settings.asked:
        return budgets
    most = n_labels_to_train_on(settings, images)
    fitting = tuple(n for n in budgets or () if n_classes <= n <= most)
    usual = fitting or default_budgets(most, n_classes, n_images, settings.evaluation.level == "full")
    return tuple(sorted({*usual, most})) if images.cross_validated and not fitting else usual


def n_labels_to_train_on(settings: Settings, images: Images) -> int:
    """How many labels a classifier can get at most: all; in cross-validation those beside any fold, with any seed."""
    if not images.cross_validated:
        return images.n_labels
    first = settings.runtime.seed
    return most_labels(images, range(first, first + settings.report.n_seeds))


def _fitted(before: Settings, after: Settings, images: Images) -> str:
    """Which of the preset's numbers are others here, and why, in sentences; empty if none is."""
    values, now = before.flat(), after.flat()
    changed = [name for name in FITTED if values[name] not in (None, now[name])]
    others = ", ".join(f"{name}={as_text(now[name])}" for name in changed if name != "view_size")
    said = [f"There are few images, so some numbers of the preset are others: {others}."] if others else []
    if "view_size" in changed:
        size = "x".join(map(str, images.format.shape[1:]))
        said.append(f"The preset's view_size={values['view_size']} does not suit images of {size}: views are as large.")
    return " ".join(said)


def check_images(settings: Settings, images: Images) -> None:
    """Raises: UserError when these images are too small for the encoder, or lack labels that the method needs."""
    encoder, (_, height, width) = settings.encoder, images.format.shape
    smallest = ENCODERS[encoder.name].SMALLEST
    if min(height, width) < smallest:
        raise UserError(
            f"the images of {images.name} have {height}x{width} pixels: encoder {encoder.name} needs at least "
            f"{smallest}x{smallest}. Larger ones are made of them by image_size={smallest}."
        )
    lacking = len(images.train) - images.n_labels
    if METHODS[settings.method.name].NEEDS_LABELS and lacking:
        raise UserError(
            f"method={settings.method.name} learns from labels, and {lacking:,} of {len(images.train):,} images"
            f" of {images.name} to train on have none. Choose another method."
        )


def check_report(settings: Settings, images: Images) -> None:
    """Raises: UserError when there are too few images for a report to show anything."""
    n, n_shown = settings.data.n_images or 0, len(images.to_look_at(LEAST_TEST)[0])
    if n_shown < LEAST_TEST:
        kind = "test image" if len(images.test) else "image"  # without test images it shows those to train on
        raise UserError(
            f"{images.name} has {counted(n_shown, kind)}: a report needs at least {LEAST_TEST} to show. Add "
            f"some. {images.note}".strip()
        )
    if n < LEAST_TEST:
        raise UserError(f"a report needs at least {LEAST_TEST} images to pretrain on; n_images is {n}.")


def transfer_images(settings: Settings) -> Images:
    """The data set to transfer to, read as the settings' own is. Raises: UserError."""
    own = {"dataset": settings.evaluation.transfer, "label": None, "group": None, "drop_copies": False}
    return read_images(settings.data.model_copy(update=own))


def check_evaluation(settings: Settings, images: Images) -> None:
    """Raises: UserError when there are too few labels to evaluate a run with, or the images are not like those to
    transfer to."""
    if why := why_no_evaluation(images):
        raise UserError(f"{why} Pretraining (01_pretrain) needs no label.")
    if images.cross_validated and METHODS[settings.method.name].NEEDS_LABELS:
        raise UserError(
            f"method={settings.method.name} trains on labels, and {images.name} has no test split with labels that it "
            "has not seen. Add one (test/), or choose another method."
        )
    budgets, transfer = settings.evaluation.budgets, settings.evaluation.transfer
    if budgets and budgets[-1] > (most := n_labels_to_train_on(settings, images)):
        beside = " beside each fold of the cross-validation" if images.cross_validated else ""
        raise UserError(
            f"parameter budgets={budgets[-1]}: {images.name} has {most:,} training labels{beside}. Ask for at most "
            f"{most}."
        )
    if budgets and budgets[0] < len(images.classes) and settings.evaluation.budget_draw == "balanced":
        raise UserError(
            f"parameter budgets={budgets[0]}: {images.name} has {len(images.classes)} classes, and each needs a label."
        )
    check_general(settings, images)
    if transfer is None:
        return
    other = transfer_images(settings)
    if other.format.shape != images.format.shape:
        sizes = [f"{x.train.shape[1]} channels of {x.train.shape[2]}x{x.train.shape[3]}" for x in (images, other)]
        raise UserError(
            f"parameter transfer={transfer}: the images of {images.name} have {sizes[0]} pixels, those of {other.name} "
            f"{sizes[1]}. Choose a data set of the same form."
        )
    if why := why_no_evaluation(other) or (
        f"{other.name} has no labelled test images." if other.cross_validated else ""
    ):
        raise UserError(f"parameter transfer={transfer}: {why} Choose another data set.")


def check_general(settings: Settings, images: Images) -> None:
    """Raises: UserError when the network to compare with was asked for and cannot be used."""
    own, channels = settings.evaluation, images.format.shape[0]
    if own.general == "none":
        if own.weights is not None:
            raise UserError(f"parameter weights={own.weights} is of no use with general=none. Leave one of them out.")
        return
    if own.general == "auto" and own.weights is None:
        return
    if channels not in (1, 3):
        raise UserError(
            f"parameter general={own.general}: it takes grey and colour images; these have {channels} channels."
        )
    general_encoder(USUAL if own.general == "auto" else own.general, own.weights or "", own.general_size)


def check_validation(settings: Settings, images: Images) -> None:
    """Raises: UserError when there are too few labels to compare settings on validation images."""
    if why := why_no_validation(images):
        raise UserError(f"{why} Pretraining (01_pretrain) needs no label.")
    labels = settings.ablations.ablation_labels
    if labels > (n_rest := n_labels_beside_validation(settings, images)):
        raise UserError(
            f"parameter ablation_labels={labels}: {images.name} has {n_rest:,} training labels beside those of its "
            f"validation images. Ask for at most {n_rest}."
        )
