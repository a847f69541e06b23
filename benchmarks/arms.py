"""What is compared. An arm is a way to pretrain the same encoder and head on the same images, in the manner of its
library's own examples. Each gives a function of the epoch's number that trains it and returns images and seconds.

All arms have the same layers with the same numbers of parameters, in the same order: convolution, 2x2 max-pooling,
BatchNorm, ReLU, three times, and a head of two linear layers. (`lightly, usual blocks` alone has the pooling last, as
most tutorials do, which is slower.) Ours computes them by its own code, in bfloat16 where the processor has it, the
others by PyTorch's layers in float32. `lightly, tuned` has what its user could set by hand as well: bfloat16, maps laid
out channels last, a fused optimiser; `ours, float32` is ours without bfloat16.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from contrastive.data import Images
from contrastive.encoders import Encoder
from contrastive.encoders.cnn import CNNSettings
from contrastive.methods import decay_groups
from contrastive.methods.simclr import SimCLRSettings
from contrastive.settings import Settings
from contrastive.training import begin_epoch, start
from contrastive.training.loop import Training, finish_epoch, take_step
from contrastive.training.optimisers import learning_rate

from .losses import Loss, matrix_nt_xent

Epoch = Callable[[int], tuple[int, float]]


def cnn(settings: Settings) -> CNNSettings:
    """The encoder's own parameters."""
    assert isinstance(settings.encoder, CNNSettings)
    return settings.encoder


def simclr(settings: Settings) -> SimCLRSettings:
    """The method's own parameters."""
    assert isinstance(settings.method, SimCLRSettings)
    return settings.method


def n_images(settings: Settings) -> int:
    """How many images are trained on. The settings have to be resolved."""
    assert settings.data.n_images is not None
    return settings.data.n_images


# --- Encoder and head of stock layers -----------------------------------------------------------------------------


def stock_encoder(settings: Settings, images: Images, pooling_last: bool = False) -> Encoder:
    """The simple CNN of PyTorch's own layers, in PyTorch's default layout."""
    (channels, height, width), base = images.format.shape, cnn(settings).base_channels
    layers: list[nn.Module] = []
    for out in (base, 2 * base, 4 * base):
        conv, pool, norm = nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(out)
        layers += [conv, norm, nn.ReLU(), pool] if pooling_last else [conv, pool, norm, nn.ReLU()]
        channels = out
    return Encoder(
        nn.Sequential(*layers, nn.Flatten()), channels * (height // 8) * (width // 8), images.mean, images.std
    )


def stock_head(encoder: Encoder, settings: Settings) -> nn.Module:
    """The projection head: two linear layers."""
    hidden, out = 2 * simclr(settings).projection_dim, simclr(settings).projection_dim
    return nn.Sequential(nn.Linear(encoder.out_dim, hidden), nn.ReLU(), nn.Linear(hidden, out))


class Views(Dataset):
    """Two views of each image, made by a transform that works on one image at a time."""

    def __init__(self, images: list, transform: Callable):
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        first, second = self.transform(self.images[index])
        return first, second


def loop(
    settings: Settings,
    encoder: Encoder,
    head: nn.Module,
    loss: Loss,
    batches: Callable[[], Iterable],
    together: bool = True,
    tuned: bool = False,
) -> Epoch:
    """The usual training loop, with our learning rates and weight decay.

    together: both views go through the network in one batch; else one after the other, as in lightly's examples.
    tuned: bfloat16 (where ours has it), maps laid out channels last, a fused optimiser; else PyTorch's defaults.
    """
    model, own = nn.Sequential(encoder, head).train(), settings.optimiser
    groups = [
        {"params": group["params"], "weight_decay": own.weight_decay * group["decay_share"]}
        for group in decay_groups(model.parameters())
    ]
    optimiser = torch.optim.Adam(groups, lr=own.lr, fused=True if tuned else None)
    layout = torch.channels_last if tuned else torch.contiguous_format
    model.to(memory_format=layout)
    low = tuned and settings.runtime.precision == "bfloat16"
    steps = n_images(settings) // own.batch_size

    def epoch(number: int) -> tuple[int, float]:
        started, seen = time.perf_counter(), 0
        for step, (first, second) in enumerate(batches()):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(own, number * steps + step, own.epochs * steps, steps)
            first, second = (view.contiguous(memory_format=layout) for view in (first, second))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
                z1, z2 = model(torch.cat([first, second])).chunk(2) if together else (model(first), model(second))
            value = loss(z1.float(), z2.float())
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            seen += len(first)
        return seen, time.perf_counter() - started

    return epoch


# --- The arms -----------------------------------------------------------------------------------------------------


def our_training(settings: Settings, images: Images, data: Tensor) -> Training:
    """This project's training at its start. SimCLR sees no labels, so it is given none."""
    return start(settings, images.format, data, torch.empty(0, dtype=torch.int64))


def ours(settings: Settings, images: Images, data: Tensor, precision: str | None = None) -> tuple[Epoch, Encoder]:
    """This project's own training loop, in the settings' precision or another one."""
    training = our_training(settings.replace(precision=precision or settings.runtime.precision), images, data)

    def epoch(number: int) -> tuple[int, float]:
        state = begin_epoch(training, number)
        while state.step < training.steps_of_epoch:
            take_step(training, state)
        done = finish_epoch(training, state)
        return int(done["images"]), done["seconds"]

    return epoch, training.method.encoder


def lightly(
    settings: Settings,
    images: Images,
    data: Tensor,
    workers: int = 0,
    pooling_last: bool = False,
    tuned: bool = False,
) -> tuple[Epoch, Encoder]:
    """lightly's transform with its defaults, its loss, its head (without BatchNorm, as in all arms), a DataLoader."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from torchvision.transforms.functional import to_pil_image

    transform = SimCLRTransform(
        input_size=data.shape[-1], normalize={"mean": list(images.mean), "std": list(images.std)}
    )
    encoder, width = stock_encoder(settings, images, pooling_last), simclr(settings).projection_dim
    head = SimCLRProjectionHead(encoder.out_dim, 2 * width, width, batch_norm=False)
    loader = _loader(settings, Views([to_pil_image(image) for image in data], transform), workers)
    loss = NTXentLoss(simclr(settings).temperature)
    return loop(settings, encoder, head, loss, lambda: loader, together=False, tuned=tuned), encoder


def torchvision(settings: Settings, images: Images, data: Tensor, workers: int = 0) -> tuple[Epoch, Encoder]:
    """torchvision's transforms v2 on one image at a time, a DataLoader, and NT-Xent as one matrix."""
    from torchvision.transforms import v2

    view = v2.Compose(
        [
            v2.RandomResizedCrop(data.shape[-1], scale=(0.08, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(3, (0.1, 2.0))], p=0.5),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(images.mean, images.std),
        ]
    )
    encoder = stock_encoder(settings, images)
    loader = _loader(settings, Views(list(data), lambda image: (view(image), view(image))), workers)
    loss = matrix_nt_xent(simclr(settings).temperature)
    return loop(settings, encoder, stock_head(encoder, settings), loss, lambda: loader), encoder


def kornia(settings: Settings, images: Images, data: Tensor) -> tuple[Epoch, Encoder]:
    """kornia's augmentations of a whole batch, and NT-Xent as one matrix."""
    augment = kornia_views(images, data.shape[-1])
    encoder = stock_encoder(settings, images)

    def batches() -> Iterator[tuple[Tensor, ...]]:
        for index in torch.randperm(len(data)).split(settings.optimiser.batch_size):
            if len(index) == settings.optimiser.batch_size:
                yield augment(data[index].repeat(2, 1, 1, 1).float() / 255).chunk(2)

    loss = matrix_nt_xent(simclr(settings).temperature)
    return loop(settings, encoder, stock_head(encoder, settings), loss, batches), encoder


def kornia_views(images: Images, size: int) -> Callable[[Tensor], Tensor]:
    """The recipe in kornia, for timing. Its colour operations refuse one channel; there brightness and contrast take
    their place. (kornia adds to the brightness where torchvision multiplies.)"""
    from kornia import augmentation as k

    grey = images.train.shape[1] == 1
    jitter = [
        *([k.RandomBrightness((0.6, 1.4), p=0.8), k.RandomContrast((0.6, 1.4), p=0.8)] if grey else []),
        *([] if grey else [k.ColorJiggle(0.4, 0.4, 0.4, 0.1, p=0.8), k.RandomGrayscale(p=0.2)]),
    ]
    return k.AugmentationSequential(
        k.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        k.RandomHorizontalFlip(p=0.5),
        *jitter,
        k.RandomGaussianBlur((3, 3), (0.1, 2.0), p=0.5),
        k.Normalize(torch.tensor(images.mean), torch.tensor(images.std)),
        data_keys=["input"],
    )


def _loader(settings: Settings, views: Views, workers: int) -> DataLoader:
    warnings.filterwarnings("ignore", category=UserWarning)  # on the colour of grey images
    return DataLoader(
        views, settings.optimiser.batch_size, shuffle=True, drop_last=True, num_workers=workers,
        persistent_workers=workers > 0, multiprocessing_context="fork" if workers else None,
    )  # fmt: skip


ARMS: dict[str, Callable[[Settings, Images, Tensor], tuple[Epoch, Encoder]]] = {
    "ours": ours,
    "ours, float32": partial(ours, precision="float32"),
    "lightly, 0 workers": lightly,
    "lightly, 2 workers": partial(lightly, workers=2),
    "lightly, usual blocks": partial(lightly, pooling_last=True),
    "lightly, tuned": partial(lightly, tuned=True),
    "torchvision, 0 workers": torchvision,
    "torchvision, 2 workers": partial(torchvision, workers=2),
    "kornia": kornia,
}
