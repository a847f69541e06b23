"""Whether images can serve what is asked for, and how many labels there are for it."""

from ..data import (
    Images,
    counted,
    most_labels,
    read_images,
    split,
    why_no_evaluation,
    why_no_validation,
)
from ..data.manifest import LEAST_TEST
from ..encoders.general import USUAL, general_encoder
from ..settings import ENCODERS, METHODS, Settings, UserError


def seeds_to_split(settings: Settings, images: Images) -> range:
    """The seeds with which different numbers of images are kept for validation: with groups all of them, else one."""
    n = max(settings.report.n_seeds, settings.ablations.ablation_seeds) if len(images.groups) else 1
    return range(settings.runtime.seed, settings.runtime.seed + n)


def n_labels_beside_validation(settings: Settings, images: Images) -> int:
    """How many labels there are, with any of the seeds, beside those of the validation images."""
    return min(len(split(images, 0, seed).rest) for seed in seeds_to_split(settings, images))


def n_labels_to_train_on(settings: Settings, images: Images) -> int:
    """How many labels a classifier can get at most: all; in cross-validation those beside any fold, with any seed."""
    if not images.cross_validated:
        return images.n_labels
    first = settings.runtime.seed
    return most_labels(images, range(first, first + settings.report.n_seeds))


def check_images(settings: Settings, images: Images) -> None:
    """Raises: UserError when these images are too small for the encoder, or lack labels that the method needs."""
    ENCODERS[settings.encoder.name].check(settings.encoder, images.format.shape)
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
