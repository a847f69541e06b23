"""What labels alone give: the same network trained on them, from random weights or from pretrained ones."""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor

from ..data import ImageFormat, Images
from ..encoders import Encoder
from ..encoders.general import GeneralEncoder
from ..methods.supervised import Supervised
from ..settings import RunError, Settings, UserError
from ..storage.cache import memo_record
from ..storage.tensors import hash_tensors
from ..training import initial_method, start, train
from ..training.workers import in_workers, jobs_that_pay

BATCH, LR, LR_PRETRAINED, WEIGHT_DECAY = 128, 5e-3, 1e-3, 1e-2  # the first LR chosen on validation images
WARMUP_STEPS = 50
# Of a network that others trained, of which a step takes a second: chosen on validation images, too. In float32, since
# depthwise convolutions learn more slowly in bfloat16 on processors.
BATCH_GENERAL, LR_GENERAL, STEPS_GENERAL = 32, 3e-4, 100
MOST_CROSS_VALIDATED = 3  # numbers of labels


def network_budgets(budgets: Sequence[int], headline: int, cross_validated: bool) -> list[int]:
    """With which numbers of labels networks are trained, each of which takes seconds to minutes: the largest and the
    headline's, and of the others those at most a third of the next larger one. In cross-validation, where it is a
    network for each fold, the largest three of these."""
    kept = list[int]()
    for n in sorted(budgets, reverse=True):
        if not kept or 3 * n <= kept[-1] or n == headline:
            kept.append(n)
    return kept[: MOST_CROSS_VALIDATED if cross_validated else None][::-1]


def middle_and_headline(budgets: Sequence[int], headline: int) -> list[int]:
    """Of numbers of labels the middle one of those below the headline's, and the headline's: with that alone nobody
    would know how many labels are saved, since networks from scratch have no more of them."""
    below = [n for n in budgets if n < headline]
    return [below[len(below) // 2], headline] if below else [headline]


def classifier(
    settings: Settings, images: Images, index: Tensor, pretrained: Encoder | None = None, augmented: bool = True
) -> Supervised:
    """The encoder with a linear layer, all of it trained on labels; or what was trained before of the very same.

    By method `supervised` and AdamW with a cosine, in batches of 128, for at least `supervised_steps` steps and one
    pass. From scratch it starts from the weights that the pretraining started from.

    Args:
        settings: of the pretraining, resolved.
        images: its images.
        index: int64 N, the training images whose labels are used.
        pretrained: an encoder to fine-tune, which is left as it is; by default random weights.
        augmented: with the augmentations of the pretraining's first views, as large as the images, which is what it
            will be judged on.

    Raises:
        RunError: when the loss or a gradient is no longer finite.
    """
    return _classifier(settings, images.format, *_rows(images, index), index, pretrained, augmented)


def train_together(
    settings: Settings, images: Images, wanted: Sequence[tuple[Tensor, dict[str, Any]]]
) -> Iterator[tuple[int, float]]:
    """Train networks at once, in as many processes as pay, so that `classifier` finds them; nothing where it does not.

    Args:
        settings, images: as of `classifier`.
        wanted: for each network the index of its labels, and how it is trained, as `classifier` takes it.

    Returns:
        The place of each network that is done, and the seconds that it took, shared among the processes.
    """
    steps = sum(
        recipe(settings, len(index), how.get("pretrained"), how.get("augmented", True))[1] for index, how in wanted
    )
    jobs = jobs_that_pay(settings.runtime.device, len(wanted), steps)
    if jobs == 1:
        return
    tasks = [
        (settings, images.format, *_rows(images, index), index, how.get("pretrained"), how.get("augmented", True))
        for index, how in wanted
    ]
    for i, seconds in in_workers(_kept, tasks, jobs):
        yield i, (seconds or 0.0) / jobs


def _rows(images: Images, index: Tensor) -> tuple[Tensor, Tensor]:
    return images.train[index], images.train_labels[index]


def _kept(*task: Any) -> float:
    """Have a network trained and kept. Returns the seconds that it took; one that fails will fail where it is used."""
    began = time.perf_counter()
    with suppress(UserError):
        _classifier(*task)
    return time.perf_counter() - began


def _classifier(
    settings: Settings,
    image_format: ImageFormat,
    data: Tensor,
    labels: Tensor,
    index: Tensor,
    pretrained: Encoder | None,
    augmented: bool,
) -> Supervised:
    n, general = len(index), pretrained if isinstance(pretrained, GeneralEncoder) else None
    own, steps = recipe(settings, n, pretrained, augmented)
    encoder = pretrained or initial_method(own, image_format).encoder
    decisive = {
        "run": json.loads(own.identity),
        "steps": steps,
        "labels": hashlib.sha256(index.cpu().numpy().tobytes()).hexdigest(),
        "start": hash_tensors(encoder.state_dict()),
    } | ({} if general is None else {"general": general.identity})
    method = initial_method(own, image_format, general).to(settings.runtime.device)
    assert isinstance(method, Supervised)

    def compute() -> dict[str, Tensor]:
        training = start(own, image_format, data, labels, steps, pretrained)
        try:
            train(training)
        except RunError:  # whose advice is for the pretraining
            raise RunError(
                f"the network trained on {n:,} labels has a loss or gradients that are not finite. Try "
                "precision=float32."
            ) from None
        return dict(training.method.state_dict())

    method.load_state_dict(memo_record("supervised", decisive, compute, "training a network on labels"))
    return method


def recipe(settings: Settings, n: int, pretrained: Encoder | None, augmented: bool) -> tuple[Settings, int]:
    """How a network is trained on n labels, by which settings, and for how many steps."""
    general, usual = isinstance(pretrained, GeneralEncoder), settings.evaluation.supervised_steps
    batch = min(BATCH_GENERAL if general else BATCH, n)
    steps = max(min(usual, STEPS_GENERAL) if general else usual, math.ceil(n / batch))
    own = settings.replace(
        method="supervised", optimiser="adamw",
        lr=LR_GENERAL if general else LR if pretrained is None else LR_PRETRAINED,
        weight_decay=WEIGHT_DECAY, batch_size=batch, epochs=math.ceil(steps / (n // batch)), schedule="cosine",
        warmup_epochs=min(WARMUP_STEPS, steps // 5) / (n // batch), n_images=max(n, 2), view_size=None,
        augment=settings.views.augment if augmented else "none", second_augment=None,
        precision="float32" if general and settings.runtime.device == "cpu" else settings.runtime.precision,
    )  # fmt: skip
    return own, steps
