"""What settings mean for these images and this machine."""

import math
from dataclasses import replace
from typing import Any

from ..augment import AUTO, automatic_policy, with_smaller_crops
from ..data import (
    NAMES,
    Images,
    default_budgets,
    n_unlabelled,
    read_images,
    split,
    why_no_evaluation,
    why_no_validation,
)
from ..encoders import check_view, found_weights
from ..settings import METHODS, Settings, UserError, absolute, as_text, recipe_names, recipe_values
from .devices import choose_device, choose_precision
from .requests import check_images, n_labels_beside_validation, n_labels_to_train_on, seeds_to_split

USUAL_N_IMAGES = 5000
STEPS_OF_EPOCH = 4  # at least, where nobody asked for a batch size
LEAST_STEPS = 300  # of a training for which nobody asked for epochs: fewer leave even its checks undecided
# Of the side of digits, which have a border: smaller views cost less, and on validation images of MNIST they gave
# features that are as good (100, 600 and 5,000 labels, four seeds).
VIEW_OF_DIGITS = 24 / 28
SHRINKING = ("n_images", "batch_size", "epochs", "view_size", "budgets", "ablation_labels")  # where images are few
# What follows the data, unless it was asked for
FITTED = tuple(dict.fromkeys((*SHRINKING, *sorted(recipe_names()))))


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
    settings = _by_kind(settings, images)
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
        epochs=_epochs(settings, images, n_images // batch_size),
        view_size=_view_size(settings, images),
        augment=policy if settings.views.augment == AUTO else settings.views.augment,
        second_augment=policy if settings.views.second_augment == AUTO else settings.views.second_augment,
        ablation_labels=_ablation_labels(settings, images) if validated else settings.ablations.ablation_labels,
        budgets=_budgets(settings, images, n_images) if labelled else settings.evaluation.budgets,
        device=device,
        precision=choose_precision(settings.runtime.precision, device),
    )
    found |= found_weights(settings.encoder, images.format.shape, "initial_sha256" in settings.asked)
    resolved = _with_method(settings.found(images.sha256, **found), images)
    said = _fitted(settings, resolved, images)
    if said and said not in images.note:
        images = replace(images, note=f"{images.note} {said}".strip())
    return resolved, images


def _by_kind(settings: Settings, images: Images) -> Settings:
    """Settings of preset quick with what suits such images, where nobody asked for something else."""
    if settings.preset != "quick" or settings.data_sha256 == images.sha256:  # resolved before
        return settings
    chosen = {"encoder": settings.encoder.name, "method": settings.method.name}
    own, usual = settings.flat(), Settings(**chosen).flat()
    recipe = recipe_values(images.kind, chosen.values())
    found = {n: value for n, value in recipe.items() if n not in settings.asked and own[n] == usual[n]}
    return settings.found(settings.data_sha256, **found)


def _with_method(settings: Settings, images: Images) -> Settings:
    """Settings with what follows from the method: its small views, and its own parameters that are None. Raises:
    UserError when it cannot be used so."""
    method = METHODS[settings.method.name]
    values = method.fitted(settings) | _local_views(settings, images)
    # What was found before, for another batch or method, is found anew
    values = {
        name: value for name, value in values.items() if settings.flat()[name] is None or name not in settings.asked
    }
    settings = settings.found(images.sha256, **values)
    method.check(settings)
    return settings


def _local_views(settings: Settings, images: Images) -> dict[str, Any]:
    """How many small views there are, how large, and by which policy. Raises: UserError."""
    own, method, asked = settings.views, METHODS[settings.method.name], settings.asked
    n = own.local_views if "local_views" in asked else None
    if n and not method.MULTI_CROP:
        raise UserError(
            f"parameter local_views={n}: method {settings.method.name} has no use for small views. Leave it out, or "
            "choose another method."
        )
    n = method.LOCAL_VIEWS if n is None else n
    if not n:
        return {"local_views": None, "local_view_size": None, "local_augment": None}
    shape = images.format.shape
    if own.local_view_size is not None and "local_view_size" in asked:
        check_view(settings.encoder, shape, own.local_view_size, "parameter local_view_size")
    height = own.view_size or shape[1]
    sizes = (side for side in range(height // 2, height) if _takes(settings, shape, side))
    size, policy = next(sizes, height), with_smaller_crops(own.augment)
    return {"local_views": n, "local_view_size": size, "local_augment": policy}


def _takes(settings: Settings, shape: tuple[int, ...], side: int) -> bool:
    try:
        check_view(settings.encoder, shape, side, "")
    except UserError:
        return False
    return True


def _n_images(settings: Settings, images: Images) -> int:
    """How many images to pretrain on, with any of the seeds. Raises: UserError."""
    asked = settings.data.n_images
    if asked is not None and settings.data_sha256 == images.sha256:  # resolved before, perhaps with other seeds, too
        return asked
    pools = {seed: n_unlabelled(images, seed) for seed in seeds_to_split(settings, images)}
    least = min(pools, key=lambda seed: pools[seed])
    if pools[least] < 2:
        raise UserError(f"{images.name} has {len(images.train):,} training images: too few to pretrain on.")
    if asked is not None and "n_images" in settings.asked:
        split(images, asked, least)  # raises where they are not that many
        return asked
    return min(asked or USUAL_N_IMAGES, pools[least])


def _epochs(settings: Settings, images: Images, steps_of_epoch: int) -> int:
    """The preset's epochs; of few images more, until there are LEAST_STEPS steps, or as many as the preset has of more
    images."""
    if "epochs" in settings.asked:
        return settings.optimiser.epochs
    usual = _by_kind(Settings(preset=settings.preset), images)
    steps = (usual.data.n_images or USUAL_N_IMAGES) // usual.optimiser.batch_size * usual.optimiser.epochs
    return max(settings.optimiser.epochs, math.ceil(min(steps, LEAST_STEPS) / max(steps_of_epoch, 1)))


def _ablation_labels(settings: Settings, images: Images) -> int:
    """How many labels a probe that judges a point of a grid has: a preset's, as far as there are some beside those of
    the validation images."""
    own = settings.ablations.ablation_labels
    return own if "ablation_labels" in settings.asked else min(own, n_labels_beside_validation(settings, images))


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


def _fitted(before: Settings, after: Settings, images: Images) -> str:
    """Which of the preset's numbers are others here, and why, in sentences; empty if none is."""
    values, now = before.flat(), after.flat()
    changed = [name for name in SHRINKING if values[name] not in (None, now[name])]
    others = ", ".join(f"{name}={as_text(now[name])}" for name in changed if name != "view_size")
    said = [f"There are few images, so some numbers of the preset are others: {others}."] if others else []
    if "view_size" in changed:
        size = "x".join(map(str, images.format.shape[1:]))
        said.append(f"The preset's view_size={values['view_size']} does not suit images of {size}: views are as large.")
    return " ".join(said)
