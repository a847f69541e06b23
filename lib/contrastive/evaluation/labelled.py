"""What labels alone give: the same network trained on them, from random weights or from pretrained ones."""

import hashlib
import json
import math
from collections.abc import Sequence

from torch import Tensor

from ..data import Images
from ..encoders import RANDOM, Encoder
from ..encoders.general import GeneralEncoder
from ..methods.supervised import Supervised
from ..settings import RunError, Settings
from ..storage.cache import memo_record
from ..storage.tensors import hash_tensors
from ..training import initial_method, start, train
from ..training.loop import DivergedError
from ..training.memory import TooLargeError

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
    n, general = len(index), pretrained if isinstance(pretrained, GeneralEncoder) else None
    own, steps = recipe(settings, n, pretrained, augmented)
    encoder = pretrained or initial_method(own, images.format).encoder
    decisive = {
        "run": json.loads(own.identity),
        "steps": steps,
        "labels": hashlib.sha256(index.cpu().numpy().tobytes()).hexdigest(),
        "start": hash_tensors(encoder.state_dict()),
    } | ({} if general is None else {"general": general.identity})
    method = initial_method(own, images.format, general).to(settings.runtime.device)
    assert isinstance(method, Supervised)

    def compute() -> dict[str, Tensor]:
        training = start(own, images.format, images.train[index], images.train_labels[index], steps, pretrained)
        try:
            train(training)
        except TooLargeError:  # whose advice is for the pretraining
            raise RunError(
                f"the network trained on {n:,} labels does not fit the GPU's memory in batches of "
                f"{own.optimiser.batch_size}. Free some of it, or use a smaller image_size, or device=cpu."
            ) from None
        except DivergedError:
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
        local_views=None, local_view_size=None, local_augment=None, initial_weights=RANDOM, initial_sha256=None,
        precision="float32" if general and settings.runtime.device == "cpu" else settings.runtime.precision,
    )  # fmt: skip
    return own, steps
