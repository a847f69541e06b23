"""What is compared. An arm is a way to pretrain the same encoder and head on the same images, in the manner of its
library's own examples. Each gives a function of the epoch's number that trains it and returns images and seconds.

All arms have the encoder that the settings name, with the same layers in the same order, and a head of two linear
layers. The simple CNN is three times convolution, 2x2 max-pooling, BatchNorm, ReLU. (`lightly, usual blocks` alone has
the pooling last, as most tutorials do, which is slower.) Ours computes it by its own code, in bfloat16 where the
processor has it, the others by PyTorch's layers in float32. `tuned` has what a user could set by hand as well:
bfloat16, maps laid out channels last, a fused optimiser; `ours, float32` is ours without bfloat16.
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
from contrastive.data.processes import cores
from contrastive.encoders import Encoder, build_encoder
from contrastive.encoders.cnn import CNNSettings
from contrastive.methods import decay_groups
from contrastive.methods.simclr import SimCLRSettings
from contrastive.settings import Settings
from contrastive.training import begin_epoch, start
from contrastive.training.devices import same_bits
from contrastive.training.loop import Training, finish_epoch, take_step
from contrastive.training.optimisers import learning_rate
from contrastive.training.state import LoopState

from .losses import Loss, matrix_nt_xent
from .views import kornia_views, torchvision_view

Epoch = Callable[[int], tuple[int, float]]
CORES = cores()
WORKERS = f"{CORES} worker{'s' * (CORES > 1)}"  # of a DataLoader, as many as there are cores


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


def synchronize(device: str) -> None:
    """Wait until a GPU has done all that it was told to; the CPU has."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def stock_encoder(settings: Settings, images: Images, pooling_last: bool = False) -> Encoder:
    """The settings' encoder of PyTorch's own layers, in PyTorch's default layout. A ResNet-18 is torchvision's here,
    too; `pooling_last` is of the simple CNN."""
    form = images.format
    if settings.encoder.name != "cnn":
        return build_encoder(settings.encoder, form.shape, form.mean, form.std)
    (channels, height, width), base = form.shape, cnn(settings).base_channels
    layers: list[nn.Module] = []
    for out in (base, 2 * base, 4 * base):
        conv, pool, norm = nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(out)
        layers += [conv, norm, nn.ReLU(), pool] if pooling_last else [conv, pool, norm, nn.ReLU()]
        channels = out
    return Encoder(nn.Sequential(*layers, nn.Flatten()), channels * (height // 8) * (width // 8), form.mean, form.std)


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
    device = settings.runtime.device
    model, own = nn.Sequential(encoder, head).to(device).train(), settings.optimiser
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
            first, second = (
                view.to(device, non_blocking=True).contiguous(memory_format=layout) for view in (first, second)
            )
            with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=low):
                z1, z2 = model(torch.cat([first, second])).chunk(2) if together else (model(first), model(second))
            value = loss(z1.float(), z2.float())
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            seen += len(first)
        synchronize(device)
        return seen, time.perf_counter() - started

    return epoch


# --- The arms -----------------------------------------------------------------------------------------------------


def our_training(settings: Settings, images: Images, index: Tensor) -> Training:
    """This project's training at its start, on the training images of that index."""
    return start(settings, images.format, images.train[index], images.train_labels[index])


def run_steps(training: Training, state: LoopState, n: int) -> None:
    """Take n steps of a training, over as many epochs as they need, with the same bits each time, as `train` does."""
    with same_bits(training.data.device):
        for _ in range(n):
            if state.step == training.steps_of_epoch:
                begin_epoch(training, state.epoch + 1, state)
            take_step(training, state)


def ours(settings: Settings, images: Images, index: Tensor, precision: str | None = None) -> tuple[Epoch, Encoder]:
    """This project's own training loop, in the settings' precision or another one."""
    training = our_training(settings.replace(precision=precision or settings.runtime.precision), images, index)
    state = begin_epoch(training, 0)

    def epoch(number: int) -> tuple[int, float]:
        begin_epoch(training, number, state)
        run_steps(training, state, training.steps_of_epoch)
        done = finish_epoch(training, state)
        return int(done["images"]), done["seconds"]

    return epoch, training.method.encoder


def lightly(
    settings: Settings,
    images: Images,
    index: Tensor,
    workers: int = 0,
    pooling_last: bool = False,
    tuned: bool = False,
) -> tuple[Epoch, Encoder]:
    """lightly's transform with its defaults, its loss, its head (without BatchNorm, as in all arms), a DataLoader."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from torchvision.transforms.functional import to_pil_image

    data, normalize = images.train[index], {"mean": list(images.mean), "std": list(images.std)}
    transform = SimCLRTransform(input_size=data.shape[-1], normalize=normalize)
    encoder, width = stock_encoder(settings, images, pooling_last), simclr(settings).projection_dim
    head = SimCLRProjectionHead(encoder.out_dim, 2 * width, width, batch_norm=False)
    loader = _loader(settings, Views([to_pil_image(image) for image in data], transform), workers)
    loss = NTXentLoss(simclr(settings).temperature)
    return loop(settings, encoder, head, loss, lambda: loader, together=False, tuned=tuned), encoder


def torchvision(
    settings: Settings, images: Images, index: Tensor, workers: int = 0, tuned: bool = False
) -> tuple[Epoch, Encoder]:
    """torchvision's transforms v2 on one image at a time, a DataLoader, and NT-Xent as one matrix."""
    data = images.train[index]
    view = torchvision_view(images.mean, images.std, data.shape[-1])
    encoder = stock_encoder(settings, images)
    loader = _loader(settings, Views(list(data), lambda image: (view(image), view(image))), workers)
    loss = matrix_nt_xent(simclr(settings).temperature)
    return loop(settings, encoder, stock_head(encoder, settings), loss, lambda: loader, tuned=tuned), encoder


def kornia(settings: Settings, images: Images, index: Tensor) -> tuple[Epoch, Encoder]:
    """kornia's augmentations of a whole batch, and NT-Xent as one matrix."""
    data = images.train[index]
    augment = kornia_views(images.mean, images.std, data.shape[-1])
    encoder = stock_encoder(settings, images)

    def batches() -> Iterator[tuple[Tensor, ...]]:
        for chosen in torch.randperm(len(data)).split(settings.optimiser.batch_size):
            if len(chosen) == settings.optimiser.batch_size:
                yield augment(data[chosen].repeat(2, 1, 1, 1).float() / 255).chunk(2)

    loss = matrix_nt_xent(simclr(settings).temperature)
    return loop(settings, encoder, stock_head(encoder, settings), loss, batches), encoder


def _loader(settings: Settings, views: Views, workers: int) -> DataLoader:
    warnings.filterwarnings("ignore", category=UserWarning)  # on the colour of grey images
    return DataLoader(
        views, settings.optimiser.batch_size, shuffle=True, drop_last=True, num_workers=workers,
        persistent_workers=workers > 0, multiprocessing_context="fork" if workers else None,
        pin_memory=settings.runtime.device.startswith("cuda"),
    )  # fmt: skip


ARMS: dict[str, Callable[[Settings, Images, Tensor], tuple[Epoch, Encoder]]] = {
    "ours": ours,
    "ours, float32": partial(ours, precision="float32"),
    "lightly, 0 workers": lightly,
    f"lightly, {WORKERS}": partial(lightly, workers=CORES),
    "lightly, usual blocks": partial(lightly, pooling_last=True),
    "lightly, tuned": partial(lightly, tuned=True),
    "torchvision, 0 workers": torchvision,
    f"torchvision, {WORKERS}": partial(torchvision, workers=CORES),
    "kornia": kornia,
}
