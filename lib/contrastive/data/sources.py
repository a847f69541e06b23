"""Data sets by name or path -> `Images`: all of it in memory, as uint8."""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..settings import UserError, data_root, did_you_mean
from .idx import IDX_FILES, check_idx, is_original, read_idx
from .images import Images, inert, make_images
from .mnist import NoNetworkError, ensure_mnist
from .readers import data_file, read_image_folder, read_npz

NAMES = ("auto", "mnist", "sklearn_digits")


def load_images(dataset: str = "auto") -> Images:
    """Load a data set by name or by path.

    A path is that of a folder with images in {train,test}/<class>/, all of one size; of a folder with the four IDX
    files of MNIST or their like; or of an .npz file with {train,test}_{images,labels}, as MedMNIST has them.

    `auto` is MNIST if it is on disk or can be downloaded, else scikit-learn's digits, and then `note` says why.
    Raises: UserError when the data cannot be had or are damaged.
    """
    return _load("sklearn_digits" if dataset == "digits" else dataset, str(data_root()))


@lru_cache(maxsize=2)
def _load(dataset: str, root: str) -> Images:
    if dataset == "sklearn_digits":
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
                    "the data set 'digits' (sklearn_digits), which is bundled."
                ) from None
            os.environ.setdefault("CONTRASTIVE_OFFLINE", str(problem))  # one look is enough, also for notebooks
            return _digits(
                f"MNIST is not in {inert(str(raw))} and {problem}, so these are scikit-learn's 8x8 digits, enlarged to "
                "28x28."
            )
        check_idx(raw, Path(root))
        note = "" if is_original(raw) else f"The files in {inert(str(raw))} are not those of the original MNIST."
        return _idx_images("mnist", raw, note, handwriting=True)
    path = Path(os.path.expanduser(dataset))
    if os.path.isfile(path) and path.suffix == ".npz":
        return make_images(_path_name(path), read_npz(data_file(path, path.parent)))
    if os.sep in dataset and not os.path.exists(path):
        raise UserError(f"there is no {path}. Give a folder of images or an .npz file, or one of: {', '.join(NAMES)}.")
    if not os.path.isdir(path):
        raise UserError(
            f"{did_you_mean(dataset, NAMES, 'data set')} A folder of images, or an .npz file, does as well."
        )
    if not any(os.path.exists(path / part) for part in ("train", "test")):
        check_idx(path, path)
        return _idx_images(_path_name(path), path)
    arrays, classes, left_out = read_image_folder(path)
    note = f"{left_out} files that are no images by their names were left out." if left_out else ""
    return make_images(_path_name(path), arrays, note, classes=classes)


def _idx_images(name: str, folder: Path, note: str = "", handwriting: bool = False) -> Images:
    return make_images(name, [read_idx(folder / file) for file in IDX_FILES], note, handwriting=handwriting)


def _path_name(path: Path) -> str:
    """The own name of a folder or file, without taking that of a named data set or torchvision's `raw`."""
    path = path.resolve()
    name = inert(path.parent.name if path.name == "raw" else path.stem)[:60] or "data"
    return f"{name} (folder)" if name.lower() in (*NAMES, "digits") else name


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
    arrays = [part[index].numpy() for index in (train, test) for part in (images, labels)]
    return make_images("sklearn_digits", arrays, note, handwriting=True)
