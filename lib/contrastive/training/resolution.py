"""What settings mean for these images and this machine."""

from ..augment import AUTO, automatic_policy
from ..data import NAMES, Images, default_budgets, load_images, n_validation_images, split
from ..encoders import check_view
from ..settings import ENCODERS, Settings, UserError, absolute
from .devices import choose_device, choose_precision


def resolve(settings: Settings) -> tuple[Settings, Images]:
    """The settings with every `auto` and None replaced by what it means here; and the images.

    Returns:
        Settings, which now name a run (`settings.run_name`), and the images, whose `note` says what a reader must know
        of where they came from.

    Raises:
        UserError: when the data cannot serve these settings.
    """
    images = load_images(settings.data.dataset)
    check_images(settings, images)
    n_rest = len(images.train) - n_validation_images(images)
    n_images = settings.data.n_images if settings.data.n_images is not None else min(5000, n_rest)
    split(images, n_images, settings.runtime.seed)
    if settings.optimiser.batch_size > n_images:
        raise UserError(
            f"parameter batch_size={settings.optimiser.batch_size}: there are only {n_images} unlabelled images "
            f"(n_images). Ask for at most {n_images}."
        )
    check_budgets(settings, images)
    transfer = settings.evaluation.transfer
    if transfer is not None and transfer not in NAMES:  # wherever a notebook's kernel starts
        transfer = absolute(transfer)
    policy, _ = automatic_policy(images)
    n_train, n_classes, full = len(images.train), len(images.classes), settings.evaluation.level == "full"
    device = choose_device(settings.runtime.device)
    resolved = settings.replace(
        transfer=transfer,
        dataset=images.name if settings.data.dataset in NAMES else absolute(settings.data.dataset),
        n_images=n_images,
        augment=policy if settings.views.augment == AUTO else settings.views.augment,
        second_augment=policy if settings.views.second_augment == AUTO else settings.views.second_augment,
        ablation_labels=max(min(settings.ablations.ablation_labels, n_rest), 20),
        budgets=settings.evaluation.budgets or default_budgets(n_train, n_classes, n_images, full),
        device=device,
        precision=choose_precision(settings.runtime.precision, device),
    )
    return resolved.model_copy(update={"data_sha256": images.sha256}), images


def check_images(settings: Settings, images: Images) -> None:
    """Raises: UserError when these images are too few or too small for the encoder."""
    if n_validation_images(images) == 0:
        raise UserError(
            f"{images.name} has {len(images.train)} training images of {len(images.classes)} classes, too few to spare "
            f"a fifth of each class for validation: five of each are enough."
        )
    if len(images.test) < 8:
        raise UserError(f"{images.name} has {len(images.test)} test images: at least 8 are needed.")
    encoder, (_, height, width) = settings.encoder, images.format.shape
    smallest = ENCODERS[encoder.name].SMALLEST
    if min(height, width) < smallest:
        raise UserError(
            f"the images of {images.name} have {height}x{width} pixels: encoder {encoder.name} needs at least "
            f"{smallest}x{smallest}."
        )
    check_view(encoder, images.format.shape, settings.views.view_size, "parameter view_size")


def check_budgets(settings: Settings, images: Images) -> None:
    """Raises: UserError when the images have too few labels, or are not like those to transfer to."""
    budgets, transfer = settings.evaluation.budgets, settings.evaluation.transfer
    if budgets and budgets[-1] > len(images.train):
        raise UserError(f"parameter budgets={budgets[-1]}: {images.name} has {len(images.train):,} training labels.")
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
