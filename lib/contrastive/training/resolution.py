"""What settings mean for these images and this machine."""

from dataclasses import replace
from typing import Any

from ..augment import AUTO, automatic_policy
from ..data import (
    NAMES,
    Images,
    default_budgets,
    load_images,
    n_unlabelled,
    read_images,
    split,
    why_no_evaluation,
)
from ..encoders import check_view
from ..settings import ENCODERS, Settings, UserError, absolute
from .devices import choose_device, choose_precision

USUAL_N_IMAGES = 5000
STEPS_OF_EPOCH = 4  # at least, where nobody asked for a batch size
LEAST_LABELS = 20  # of a probe that judges a point of a grid


def resolve(settings: Settings, images: Images | None = None) -> tuple[Settings, Images]:
    """The settings with every `auto` and None replaced by what it means here; and the images.

    Numbers that nobody asked for shrink to what there is. That nothing can be evaluated is no mistake here: see
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
    policy, _ = automatic_policy(images)
    device = choose_device(settings.runtime.device)
    found: dict[str, Any] = dict(
        transfer=transfer,
        dataset=images.name if settings.data.dataset in NAMES else absolute(settings.data.dataset),
        n_images=n_images,
        batch_size=batch_size,
        view_size=_view_size(settings, images),
        augment=policy if settings.views.augment == AUTO else settings.views.augment,
        second_augment=policy if settings.views.second_augment == AUTO else settings.views.second_augment,
        ablation_labels=max(min(settings.ablations.ablation_labels, _n_rest(images)), LEAST_LABELS),
        budgets=_budgets(settings, images, n_images),
        device=device,
        precision=choose_precision(settings.runtime.precision, device),
    )
    resolved = settings.found(images.sha256, **found)
    said = _shrunk(settings, resolved, bool(why_no_evaluation(images)))
    if said and said not in images.note:
        images = replace(images, note=f"{images.note} {said}".strip())
    return resolved, images


def _n_images(settings: Settings, images: Images) -> int:
    """How many images to pretrain on. Raises: UserError."""
    first = settings.runtime.seed
    seeds = range(first, first + max(settings.report.n_seeds, settings.ablations.ablation_seeds))
    # With groups, how many are kept for validation depends on the seed.
    pool = min(n_unlabelled(images, seed) for seed in (seeds if len(images.groups) else seeds[:1]))
    if pool < 2:
        raise UserError(f"{images.name} has {len(images.train):,} training images: too few to pretrain on.")
    asked = settings.data.n_images
    if asked is None:
        return min(USUAL_N_IMAGES, pool)
    return asked if "n_images" in settings.asked else min(asked, pool)


def _n_rest(images: Images) -> int:
    """Labels that are not kept for validation, about."""
    return images.n_labels - images.n_labels // 5


def _view_size(settings: Settings, images: Images) -> int | None:
    """The views' size, if the encoder can take them; a preset's is left out where it cannot. Raises: UserError."""
    size = settings.views.view_size
    try:
        check_view(settings.encoder, images.format.shape, size, "parameter view_size")
    except UserError:
        if "view_size" in settings.asked:
            raise
        return None
    return size


def _budgets(settings: Settings, images: Images, n_images: int) -> tuple[int, ...] | None:
    """Numbers of labels to evaluate with: those asked for; a preset's, as far as there are labels; else by the data."""
    budgets, n_classes = settings.evaluation.budgets, len(images.classes)
    if why_no_evaluation(images) or (budgets and "budgets" in settings.asked):
        return budgets
    fitting = tuple(n for n in budgets or () if n_classes <= n <= images.n_labels)
    return fitting or default_budgets(images.n_labels, n_classes, n_images, settings.evaluation.level == "full")


def _shrunk(before: Settings, after: Settings, no_labels: bool) -> str:
    """Which of the preset's numbers are smaller here, in a sentence; empty if none is."""
    values, now = before.flat(), after.flat()
    names = ("n_images", "batch_size", "view_size", *(() if no_labels else ("budgets", "ablation_labels")))
    changed = [f"{name}={_word(now[name])}" for name in names if values[name] not in (None, now[name])]
    return f"There are few images, so some numbers of the preset are smaller: {', '.join(changed)}." if changed else ""


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_images(settings: Settings, images: Images) -> None:
    """Raises: UserError when these images are too small for the encoder."""
    encoder, (_, height, width) = settings.encoder, images.format.shape
    smallest = ENCODERS[encoder.name].SMALLEST
    if min(height, width) < smallest:
        raise UserError(
            f"the images of {images.name} have {height}x{width} pixels: encoder {encoder.name} needs at least "
            f"{smallest}x{smallest}. Larger ones are made of them by image_size={smallest}."
        )


def check_evaluation(settings: Settings, images: Images) -> None:
    """Raises: UserError when there are too few labels to evaluate a run with, or the images are not like those to
    transfer to."""
    if why := why_no_evaluation(images):
        raise UserError(f"{why} Pretraining (01_pretrain) needs no label.")
    budgets, transfer = settings.evaluation.budgets, settings.evaluation.transfer
    if budgets and budgets[-1] > images.n_labels:
        raise UserError(f"parameter budgets={budgets[-1]}: {images.name} has {images.n_labels:,} training labels.")
    if budgets and budgets[0] < len(images.classes):
        raise UserError(
            f"parameter budgets={budgets[0]}: {images.name} has {len(images.classes)} classes, and each needs a label."
        )
    if transfer is None:
        return
    other = load_images(transfer)
    if other.format.shape != images.format.shape:
        sizes = [f"{x.train.shape[1]} channels of {x.train.shape[2]}x{x.train.shape[3]}" for x in (images, other)]
        raise UserError(
            f"parameter transfer={transfer}: the images of {images.name} have {sizes[0]} pixels, those of {other.name} "
            f"{sizes[1]}. Choose a data set of the same form."
        )
    if why := why_no_evaluation(other):
        raise UserError(f"parameter transfer={transfer}: {why} Choose another data set.")
