"""What labels alone give: the same network trained on them, from random weights or from pretrained ones."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Generator, Tensor, nn

from ..augment.operations import Augment
from ..data.images import Images
from ..encoders.cnn import Encoder
from ..storage.files import atomic_write, locked, say
from ..training.runs import TRAINING_CODE, code_hash
from ..evaluation.probes import weights_hash
from ..settings.model import RunError, Settings, UserError, runs_root, spell_policy
from ..training.loop import augmentations, initial_method, lr_schedule, parameter_groups

BATCH, LR, LR_PRETRAINED, WEIGHT_DECAY = 128, 5e-3, 1e-3, 1e-2  # the first LR chosen on validation images
# Settings that decide a network's weights, besides the augmentations and the weights that it starts from
DECISIVE = ("encoder", "features", "supervised_steps", "seed", "precision", "device")


def spaced(budgets: Sequence[int], always: int) -> list[int]:
    """Of rising numbers of labels those at least twice the one before, and `always`: each takes a network minutes."""
    kept: list[int] = []
    for n in budgets:
        if not kept or n >= 2 * kept[-1] or n == always:
            kept.append(n)
    return kept


def classifier(
    settings: Settings, images: Images, index: Tensor, pretrained: Encoder | None = None, augmented: bool = True
) -> nn.Sequential:
    """`train_classifier` on the training images at `index`, int64 N; or what it made before of the very same.

    All of them are kept in `$CONTRASTIVE_RUNS/supervised/`, each under a digest of all that decides its weights and one
    of its content: runs may share them, and an evaluation that was interrupted goes on.
    """
    decisive = {
        "code": code_hash((*TRAINING_CODE, "supervised")),
        "data": [images.sha256, hashlib.sha256(index.cpu().numpy().tobytes()).hexdigest()],
        "start": weights_hash(pretrained or initial_method(settings).encoder),
        "fine_tuned": pretrained is not None,
        "augment": spell_policy(settings.augment) if augmented else None,
        **{name: getattr(settings, name) for name in DECISIVE},
    }
    key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
    folder, device, n_classes = runs_root() / "supervised", torch.device(settings.device), len(images.classes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}. Set CONTRASTIVE_RUNS.") from None
    with locked(folder / key, "training a network on labels"):
        for path in folder.glob(f"{key}-*.safetensors"):
            if (weights := _whole(path)) is not None:
                model = _untrained(settings, n_classes, pretrained).to(device)
                model.load_state_dict(weights)
                return model
        data, labels = images.train[index].to(device), images.train_labels[index].to(device)
        model = train_classifier(settings, data, labels, n_classes, pretrained, augmented)
        content = save({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()})
        atomic_write(folder / f"{key}-{_digest(content)}.safetensors", content)
    return model


def _whole(path: Path) -> dict[str, Tensor] | None:
    """The weights in a file whose name ends in their digest; None, and the file gone, if that is wrong."""
    content = path.read_bytes()
    if path.stem.partition("-")[2] == _digest(content):
        return load(content)
    say(f"{path} is damaged: its checksum is wrong. The network is trained again.")
    path.unlink()
    return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _untrained(settings: Settings, n_classes: int, pretrained: Encoder | None) -> nn.Sequential:
    """An encoder, fresh or a copy of a pretrained one, with a linear layer that the settings' seed decides."""
    encoder = copy.deepcopy(pretrained) if pretrained is not None else initial_method(settings).encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return nn.Sequential(encoder.requires_grad_(True), nn.Linear(encoder.feature_dim, n_classes))


def train_classifier(
    settings: Settings,
    data: Tensor,
    labels: Tensor,
    n_classes: int,
    pretrained: Encoder | None = None,
    augmented: bool = True,
) -> nn.Sequential:
    """The encoder with a linear layer, all of it trained on labels: from scratch, or fine-tuned from `pretrained`.

    data: uint8 N x C x H x W; labels: int64 N, on one device. At least `supervised_steps` steps and one pass, in
    batches of 128, by AdamW with a cosine. augmented: with the augmentations of the pretraining's first views, as large
    as the images, which is what it will be judged on. From scratch it starts from the weights that the pretraining
    started from. `pretrained` itself is left as it is. Raises: RunError when its weights are no longer finite.
    """
    device = data.device
    model = _untrained(settings, n_classes, pretrained).to(device).train()
    encoder: Any = model[0]
    batch = min(BATCH, len(data))
    steps = max(settings.supervised_steps, math.ceil(len(data) / batch))
    lr = LR if pretrained is None else LR_PRETRAINED
    schedule = lr_schedule(settings.but(epochs=steps, warmup_epochs=min(50, steps // 5), schedule="cosine", lr=lr), 1)
    whole = settings.but(view_size=None)
    augment = augmentations(whole, encoder, data)[0] if augmented else Augment("none", encoder.mean, encoder.std)
    optimizer = torch.optim.AdamW(parameter_groups(model, WEIGHT_DECAY), fused=True)
    shuffle, draws = Generator().manual_seed(settings.seed), Generator(device).manual_seed(settings.seed)
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(data), generator=shuffle).to(device)
        index, order = order[:batch], order[batch:]
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        views = augment(data[index], draws).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16"):
            logits = model(views)
        loss = F.cross_entropy(logits.float(), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if not all(weights.isfinite().all() for weights in model.parameters()):  # it would pass for a weak control
        raise RunError(
            f"the network trained on {len(data):,} labels has weights that are not finite. Try precision=float32."
        )
    return model


@torch.no_grad()
def predict(model: nn.Sequential, images: Tensor) -> Tensor:
    """Class probabilities, float32 N x classes, of uint8 images, from what `train_classifier` made."""
    model.eval()
    encoder: Any = model[0]
    return torch.cat([model[1](encoder(encoder.prepare(batch))).softmax(1) for batch in images.split(512)])
