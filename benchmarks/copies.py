"""`python -m benchmarks.copies DATA...`: what `find_copies` finds in data sets, and of the copies made of them.

A data set is given as for `contrastive`, by name or path. Each part of it is searched as it is; what is found there is
to be looked at, for it may be true: `--show FOLDER` writes the pairs as pictures. Then some images are altered, one way
at a time, and added to it.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from contrastive.data import load_images
from contrastive.data.copies import Copy, find_copies, groups_of_copies
from contrastive.settings import UserError

Alteration = Callable[[Image.Image, np.random.Generator], Image.Image]


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert(image.mode)


def _resized(image: Image.Image, factor: float) -> Image.Image:
    small = image.resize([round(side * factor) for side in image.size], Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _cropped(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    left, top = rng.random(2) * share
    box = width * left, height * top, width * (1 - share + left), height * (1 - share + top)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


def _levels(image: Image.Image, gain: float, offset: float) -> Image.Image:
    return image.point([max(0, min(255, round(v * gain + offset))) for v in range(256)] * len(image.getbands()))


def _mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


ALTERATIONS: dict[str, Alteration] = {
    "JPEG, quality 95": lambda image, rng: _jpeg(image, 95),
    "JPEG, quality 75": lambda image, rng: _jpeg(image, 75),
    "JPEG, quality 50": lambda image, rng: _jpeg(image, 50),
    "to half the size and back": lambda image, rng: _resized(image, 0.5),
    "to 0.75 of the size and back": lambda image, rng: _resized(image, 0.75),
    "to twice the size and back": lambda image, rng: _resized(image, 2),
    "cropped by 5%": lambda image, rng: _cropped(image, 0.05, rng),
    "cropped by 10%": lambda image, rng: _cropped(image, 0.1, rng),
    "mirrored": lambda image, rng: _mirrored(image),
    "brighter": lambda image, rng: _levels(image, 1.15, 8),
    "darker": lambda image, rng: _levels(image, 0.85, -8),
    "mirrored, JPEG 75": lambda image, rng: _jpeg(_mirrored(image), 75),
    "mirrored, half": lambda image, rng: _resized(_mirrored(image), 0.5),
    "mirrored, cropped by 5%, JPEG 75": lambda image, rng: _jpeg(_cropped(_mirrored(image), 0.05, rng), 75),
    "cropped by 10%, JPEG 50, darker": lambda image, rng: _levels(_jpeg(_cropped(image, 0.1, rng), 50), 0.85, -8),
}


def as_picture(image: Tensor) -> Image.Image:
    """A uint8 C x H x W as Pillow has it."""
    return Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy())


def altered(images: Tensor, alteration: Alteration, seed: int = 0) -> Tensor:
    """Copies of uint8 N x C x H x W."""
    rng = np.random.default_rng(seed)
    made = [np.atleast_3d(np.asarray(alteration(as_picture(image), rng))) for image in images]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


def recall(images: Tensor, alteration: Alteration, n: int) -> float:
    """The share of n copies, added to the images, that is found with what they are copies of."""
    source = np.random.default_rng(1).permutation(len(images))[:n]
    copies = find_copies(torch.cat([images, altered(images[source], alteration)]))
    group = groups_of_copies(copies, len(images) + n)
    return float(np.mean(group[source] == group[len(images) :]))


def show(images: Tensor, copies: list[Copy], path: Path) -> None:
    """Write pairs of images as a picture, one above the other, the least alike first; at most 100."""
    pairs = [torch.cat([images[c.a], images[c.b]], 1) for c in sorted(copies, key=lambda copy: copy.likeness)[:100]]
    pairs += [torch.zeros_like(pairs[0])] * (-len(pairs) % 20)
    rows = [torch.cat(pairs[i : i + 20], 2) for i in range(0, len(pairs), 20)]
    path.parent.mkdir(parents=True, exist_ok=True)
    as_picture(torch.cat(rows, 1)).save(path)


def measure(name: str, images: Tensor, n_copies: int, picture: Path | None) -> None:
    """Print what is found in images as they are, and of the copies made of some."""
    start = time.perf_counter()
    found = find_copies(images)
    seconds, near = time.perf_counter() - start, [copy for copy in found if not copy.exact]
    print(f"{name}: {len(images):,} images in {seconds:.1f} s")
    print(f"  as they are: {len(found) - len(near)} exact copies, {len(near)} near ones", flush=True)
    if picture is not None and near:
        show(images, near, picture)
    for kind, alteration in ALTERATIONS.items():
        share = recall(images, alteration, min(n_copies, len(images) // 10))
        print(f"  {kind:34s}{share:7.1%}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Measure and print. Returns the exit code: 0, or 2 when the request was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copies", description=__doc__)
    parser.add_argument("data", nargs="+", help="names or paths of data sets")
    parser.add_argument("--copies", type=int, default=300, help="how many images are altered")
    parser.add_argument("--first", type=int, default=20_000, help="how many images of a part are searched at most")
    parser.add_argument("--show", type=Path, help="folder for pictures of what is found in the data as they are")
    args = parser.parse_args(argv)
    for name in args.data:
        try:
            data = load_images(name)
        except UserError as mistake:
            print(f"error: {mistake}", file=sys.stderr)
            return 2
        for part, images in (("train", data.train), ("test", data.test)):
            picture = args.show and args.show / f"{data.name}-{part}.png"
            measure(f"{data.name}, {part}", images[: args.first], args.copies, picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
