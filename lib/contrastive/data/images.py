"""Named data sets -> `Images`, all of it in memory as uint8; and which images may be used for what."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .mnist import IDX_FILES, NoNetworkError, check_idx, ensure_mnist, is_original, read_idx
from .readers import data_file, read_image_folder, read_npz
from ..settings.model import Settings, UserError, data_root, nearest

NAMES = ("auto", "mnist", "digits")
MAX_CLASSES = 1000
LEAST_TO_CHOOSE = 50  # labels: a fifth of fewer would say little
MNIST_STATISTICS = ((0.1307,), (0.3081,))  # the recipe's constants


@dataclass(frozen=True)
class Images:
    """A labelled data set in memory.

    train, test: uint8 N x C x H x W. train_labels, test_labels: int64 N. classes: their names.
    mean, std: per channel, of images in [0, 1]. sha256: of the four tensors. note: what a reader must know
    about where the data came from; empty when they are what was asked for.
    """

    name: str
    train: Tensor = field(repr=False)
    train_labels: Tensor = field(repr=False)
    test: Tensor = field(repr=False)
    test_labels: Tensor = field(repr=False)
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    note: str = ""

    def test_sample(self, n: int) -> Tensor:
        """Rising int64 indices of n test images, or of all, the same every time. In files they may lie by class."""
        order = np.random.default_rng(0x7E57).permutation(len(self.test))
        return torch.from_numpy(np.sort(order[:n]))

    def leaked(self) -> int:
        """How many test images are among the training images, pixel by pixel."""
        train, test = (
            [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.numpy()]
            for images in (self.train, self.test)
        )
        known = set(train)
        return sum(image in known for image in test)


@dataclass(frozen=True)
class Splits:
    """Which training images are used for what, as int64 indices drawn by seed; the test images stay apart.

    pretrain: the unlabelled images. validation: never pretrained on, of each class about a fifth at most; its
    prefixes are balanced over classes. rest: all other training images, among them those pretrained on; its prefixes
    are balanced too. Balanced means: as long as no class runs out.
    """

    pretrain: Tensor
    validation: Tensor
    rest: Tensor
    n_classes: int

    def budget(self, n: int) -> tuple[Tensor, Tensor]:
        """Indices of the n labels of a budget: those to fit on and, a fifth of them, those to choose with.

        Balanced, and nested: a larger budget holds every smaller one. Only the second part is guaranteed
        never to have been pretrained on. Of fewer than LEAST_TO_CHOOSE labels, or five of each class, none is spared to
        choose with; such a budget is within a larger one if that has a quarter more.
        """
        rounds = n // 5 // self.n_classes if n >= LEAST_TO_CHOOSE else 0  # whole ones, or some class would be left out
        n_choose = max(min(rounds * self.n_classes, len(self.validation)), n - len(self.rest))
        return self.rest[: n - n_choose], self.validation[:n_choose]


def load_images(dataset: str | Settings = "auto") -> Images:
    """Load a data set by name or by path, or the one that some settings name.

    A path is that of a folder with images in {train,test}/<class>/, all of one size; of a folder with the four IDX
    files of MNIST or their like; or of an .npz file with {train,test}_{images,labels}, as MedMNIST has them.

    `auto` is MNIST if it is on disk or can be downloaded, else scikit-learn's digits, and then `note` says why.
    Raises: UserError when the data cannot be had or are damaged.
    """
    return _load(dataset.dataset if isinstance(dataset, Settings) else dataset, str(data_root()))


@lru_cache(maxsize=2)
def _load(dataset: str, root: str) -> Images:
    if dataset == "digits":
        return _digits()
    if dataset in ("auto", "mnist"):
        raw = Path(root) / "MNIST" / "raw"
        try:
            ensure_mnist(Path(root))
        except NoNetworkError as problem:
            if dataset == "mnist":
                raise UserError(
                    f"MNIST is not in {raw} and {problem}. Put its four files ({', '.join(IDX_FILES)}; plain or .gz) "
                    "there, or set CONTRASTIVE_DATA to the folder that holds MNIST/raw; meanwhile use "
                    "the data set 'digits', which is bundled."
                ) from None
            os.environ.setdefault("CONTRASTIVE_OFFLINE", str(problem))  # one look is enough, also for notebooks
            return _digits(
                f"MNIST is not in {inert(str(raw))} and {problem}, so these are scikit-learn's 8x8 digits, enlarged to "
                "28x28."
            )
        check_idx(raw, Path(root))
        note = "" if is_original(raw) else f"The files in {inert(str(raw))} are not those of the original MNIST."
        return _images("mnist", [read_idx(raw / name) for name in IDX_FILES], note, MNIST_STATISTICS)
    path = Path(os.path.expanduser(dataset))
    if os.path.isfile(path) and path.suffix == ".npz":
        return _images(_path_name(path), read_npz(data_file(path, path.parent)))
    if os.sep in dataset and not os.path.exists(path):
        raise UserError(f"there is no {path}. Give a folder of images or an .npz file, or one of: {', '.join(NAMES)}.")
    if not os.path.isdir(path):
        raise UserError(f"{nearest(dataset, NAMES, 'data set')} A folder of images, or an .npz file, does as well.")
    if not any(os.path.exists(path / part) for part in ("train", "test")):
        check_idx(path, path)
        return _images(_path_name(path), [read_idx(path / name) for name in IDX_FILES])
    parts, classes, left_out = read_image_folder(path)
    note = f"{left_out} files that are no images by their names were left out." if left_out else ""
    return _images(_path_name(path), parts, note, classes=classes)


def inert(text: str) -> str:
    """A name from outside with everything replaced that HTML, Markdown, TeX or a terminal might take for a command."""
    return "".join(c if c.isalnum() or c in " -.,()+/:" else "_" for c in text)


def _path_name(path: Path) -> str:
    """The own name of a folder or file, without taking that of a named data set or torchvision's `raw`."""
    path = path.resolve()
    name = inert(path.parent.name if path.name == "raw" else path.stem)[:60] or "data"
    return f"{name} (folder)" if name.lower() in NAMES else name


def _images(
    name: str,
    arrays: Sequence[np.ndarray],
    note: str = "",
    statistics: tuple[tuple[float, ...], ...] | None = None,
    classes: Sequence[str] = (),
) -> Images:
    train, train_labels, test, test_labels = (torch.from_numpy(np.require(a, requirements=["C", "W"])) for a in arrays)
    train, test = (x.unsqueeze(1) if x.ndim == 3 else x for x in (train, test))
    train_labels, test_labels = train_labels.long(), test_labels.long()
    digest = hashlib.sha256()
    for part in (train, train_labels, test, test_labels):
        digest.update(f"{part.dtype} {tuple(part.shape)}\n".encode())
        digest.update(part.numpy().data)
    if statistics is not None:
        mean, std = statistics
    else:
        mean, std = _statistics(train)
    n_classes = int(max(train_labels.max(), test_labels.max())) + 1
    if min(train_labels.min(), test_labels.min()) < 0 or n_classes > MAX_CLASSES:
        raise UserError(f"the labels of {name} have to be numbers from 0 to {MAX_CLASSES - 1}.")
    shown = [inert(c)[:40] for c in classes or map(str, range(n_classes))]
    shown = [c if shown.count(c) == 1 else f"{c} ({i})" for i, c in enumerate(shown)]
    return Images(name, train, train_labels, test, test_labels, tuple(shown), mean, std, digest.hexdigest(), note)


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images as if in [0, 1], by counting grey levels."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for c in range(images.shape[1]):
        counts = sum(torch.bincount(part[:, c].flatten(), minlength=256) for part in images.split(1000))
        share = torch.as_tensor(counts).double() / (len(images) * images[0, 0].numel())
        means.append((share * levels).sum().item())
        stds.append(max((share * (levels - means[-1]) ** 2).sum().item() ** 0.5, 1e-3))
    return tuple(means), tuple(stds)


def forget_images() -> None:
    """Give back the memory of the data sets that were loaded."""
    _load.cache_clear()


def _digits(note: str = "") -> Images:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float().mul(255 / 16).unsqueeze(1)  # 8x8, grey levels 0 to 16
    images = F.interpolate(small, size=(28, 28), mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
    labels = torch.from_numpy(bunch.target).long()
    # The set has no split of its own; this one is the same for every seed.
    train, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=bunch.target, random_state=0)
    return _images("digits", [part[index].numpy() for index in (train, test) for part in (images, labels)], note)


def split(images: Images, n_images: int, seed: int, draw: int = 0) -> Splits:
    """Draw by seed the validation images and, from the others, the unlabelled ones. Raises: UserError.

    draw: another one gives the same three sets, with label budgets that are drawn anew from them.
    """
    rng = np.random.default_rng([seed, 0x5EED])
    labels = images.train_labels.numpy()
    order, turn = _balanced_order(labels, rng)
    n_validation = _n_validation(images)
    validation = order[turn < _spared(labels)[labels[order]]][:n_validation]
    kept = ~np.isin(order, validation)
    # Balanced again: the turns of each class are counted from the first of its images that is left.
    turn -= np.bincount(labels[validation], minlength=labels.max() + 1)[labels[order]]
    rest = order[kept][np.argsort(turn[kept], kind="stable")]
    if n_images > len(rest):
        raise UserError(
            f"parameter n_images={n_images}: {images.name} has {len(rest):,} training images beside the "
            f"{n_validation:,} kept for validation. Ask for at most {len(rest)}."
        )
    pretrain = rng.permutation(rest)[:n_images]  # without a look at the labels
    if draw > 0:
        rng = np.random.default_rng([seed, 0xD4A3, draw])
        validation, rest = (part[_balanced_order(labels[part], rng)[0]] for part in (validation, rest))
    return Splits(torch.from_numpy(pretrain), torch.from_numpy(validation), torch.from_numpy(rest), len(images.classes))


def _n_validation(images: Images) -> int:
    """A fifth of the training images, at most 5,000 and what each class can spare, in whole rounds of the classes."""
    n = min(5000, len(images.train) // 5, int(_spared(images.train_labels.numpy()).sum()))
    return n // len(images.classes) * len(images.classes)


def _spared(labels: np.ndarray) -> np.ndarray:
    """How many images of each class may serve for validation: a fifth, rounded up, and never the last. If each gave
    equally many, a rare class would be used up."""
    count = np.bincount(labels)
    return np.maximum(np.minimum(-(-count // 5), count - 1), 0)


def _balanced_order(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random order of all indices in which every prefix is balanced, as long as no class runs out; and for each, in
    this order, its place within its class, from 0."""
    shuffled = rng.permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)
    for c in np.unique(labels):
        of_class = np.flatnonzero(labels[shuffled] == c)
        turn[of_class] = np.arange(len(of_class))
    order = np.lexsort((rng.random(len(labels)), turn))  # of those with the same turn a random one
    return shuffled[order], turn[order]


def resolve(settings: Settings) -> Settings:
    """The settings with every `auto` and None replaced by what it means for these data and this machine.

    Raises: UserError when the data cannot serve these settings.
    """
    images = load_images(settings)
    is_path = settings.dataset not in NAMES
    if _n_validation(images) == 0:
        raise UserError(
            f"{images.name} has {len(images.train)} training images of {len(images.classes)} classes, too few to spare "
            f"a fifth of each class for validation: five of each are enough."
        )
    if len(images.test) < 8:
        raise UserError(f"{images.name} has {len(images.test)} test images: at least 8 are needed.")
    if min(images.train.shape[-2:]) < 16:
        raise UserError(f"the images of {images.name} are smaller than 16x16 pixels, too small for the encoders.")
    height, width = images.train.shape[-2:]
    if settings.view_size and settings.features == "map":
        seen = settings.view_size, round(settings.view_size * width / height)
        if (seen[0] // 8, seen[1] // 8) != (height // 8, width // 8):
            raise UserError(
                f"parameter view_size={settings.view_size}: {images.name} has {height}x{width} images, and their "
                f"map in the encoder has to be as large as that of the views. "
                f"Use {height // 8 * 8} to {height // 8 * 8 + 7}."
            )
    n_rest = len(images.train) - _n_validation(images)
    n_images = settings.n_images if settings.n_images is not None else min(5000, n_rest)
    split(images, n_images, settings.seed)
    if settings.batch_size > n_images:
        raise UserError(
            f"parameter batch_size={settings.batch_size}: there are only {n_images} unlabelled images (n_images). "
            f"Ask for at most {n_images}."
        )
    if settings.budgets and settings.budgets[-1] > len(images.train):
        raise UserError(
            f"parameter budgets={settings.budgets[-1]}: {images.name} has {len(images.train):,} training labels."
        )
    if settings.budgets and settings.budgets[0] < len(images.classes):
        raise UserError(
            f"parameter budgets={settings.budgets[0]}: {images.name} has {len(images.classes)} classes, and each needs "
            "a label."
        )
    if settings.transfer is not None:
        other = load_images(settings.transfer)
        if other.train.shape[1:] != images.train.shape[1:]:
            sizes = [f"{x.train.shape[1]} channels of {x.train.shape[2]}x{x.train.shape[3]}" for x in (images, other)]
            raise UserError(
                f"parameter transfer={settings.transfer}: the images of {images.name} have {sizes[0]} pixels, those of "
                f"{other.name} {sizes[1]}. Choose a data set of the same form."
            )
    transfer = settings.transfer
    if transfer is not None and transfer not in NAMES:  # wherever a notebook's kernel starts
        transfer = str(Path(os.path.expanduser(transfer)).resolve())
    return settings.but(
        transfer=transfer,
        dataset=str(Path(os.path.expanduser(settings.dataset)).resolve()) if is_path else images.name,
        n_images=n_images,
        ablation_labels=min(settings.ablation_labels, n_rest),
        budgets=settings.budgets
        or _default_budgets(len(images.train), len(images.classes), settings.evaluation == "full"),
        device=_device(settings.device),
        precision=_precision(settings.precision, _device(settings.device)),
    )


def _default_budgets(n_train: int, n_classes: int, full: bool) -> tuple[int, ...]:
    numbers = {100, 600, 5000, 30000}
    if full:  # a few of each class, and one and ten percent
        numbers |= {n_classes, 5 * n_classes, 10 * n_classes, 1000, n_train // 100, n_train // 10}
    return (*sorted(n for n in numbers if n_classes <= n < n_train), n_train)


def _device(name: str) -> str:
    have_mps = torch.backends.mps.is_available()
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"  # mps lacks float64; it has to be asked for
    kind, _, index = name.partition(":")
    if (kind == "cuda" and torch.cuda.device_count() <= int(index or 0)) or (kind == "mps" and not have_mps):
        raise UserError(f"parameter device={name}: this machine has no such device. Use cpu, or auto.")
    return name


def _precision(name: str, device: str) -> str:
    """bfloat16 where the hardware multiplies it; elsewhere it is emulated, many times slower than float32."""
    if name != "auto":
        return name
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device == "cpu" and cpu_flags() & {"avx512_bf16", "amx_bf16"} else "float32"


def cpu_flags() -> set[str]:
    """The processor's feature flags as Linux tells them; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))
