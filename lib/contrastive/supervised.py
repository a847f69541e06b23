"""What labels alone give: the same network trained on them, from random weights or from pretrained ones."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from .augment import Augment
from .encoders import Encoder
from .settings import Settings
from .training import augmentations, initial_method, lr_schedule, parameter_groups

BATCH, LR, LR_PRETRAINED, WEIGHT_DECAY = 128, 2e-3, 1e-3, 1e-2


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
    batches of 128, by AdamW with a cosine. augmented: with the augmentations of the pretraining. From scratch it starts
    from the weights that the pretraining started from. `pretrained` itself is left as it is.
    """
    device = data.device
    encoder = copy.deepcopy(pretrained) if pretrained is not None else initial_method(settings).encoder
    encoder = encoder.requires_grad_(True).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = nn.Sequential(encoder, nn.Linear(encoder.feature_dim, n_classes).to(device)).train()
    batch = min(BATCH, len(data))
    steps = max(settings.supervised_steps, math.ceil(len(data) / batch))
    lr = LR if pretrained is None else LR_PRETRAINED
    schedule = lr_schedule(settings.but(epochs=steps, warmup_epochs=min(50, steps // 5), schedule="cosine", lr=lr), 1)
    augment = augmentations(settings, encoder, data)[0] if augmented else Augment("none", encoder.mean, encoder.std)
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
    return model


@torch.no_grad()
def predict(model: nn.Sequential, images: Tensor) -> Tensor:
    """Class probabilities, float32 N x classes, of uint8 images, from what `train_classifier` made."""
    model.eval()
    encoder: Any = model[0]
    return torch.cat([model[1](encoder(encoder.prepare(batch))).softmax(1) for batch in images.split(512)])
