"""Exact and near copies among the images of a data set, before a test image that was trained on spoils an evaluation.

A near copy was compressed anew, resized and resized back, cropped a little, mirrored, made brighter or darker, or some
of these. Images of different things can look alike, too, as digits and X-rays do, so the search goes three ways:

1. Each image's nearest others, mirrored or not, by what is left of a 16x16 grey thumbnail when every direction is
   scaled by how much it varies in this data set and how little by cropping.
2. Each such pair is laid one on the other, by least squares over shift, zoom, brightness and contrast, and the
   correlation of its finer structure is its likeness: first with the thumbnails, then with the pixels.
3. What a likeness means differs: two photographs are seldom 0.8 alike, two ones of MNIST often 0.99. So the
   unlikeness of a pair is divided by that of the least alike of the image's nearest others. How small this ratio gets
   without copies is extrapolated from all pairs of the data set: its tail is close to a power law.

The constants were chosen on the training parts of CIFAR-10 (5,000 JPEGs), PneumoniaMNIST (5,232 X-rays, 28x28) and
MNIST (20,000 digits), RARE also with a look at what is found among all 70,000 digits: now nothing. On the test parts
`python -m benchmarks.copies` finds of copies that it makes in 15 ways: of CIFAR-10 99% to 100%; of X-rays 98% to 100%
(training part: 93% to 100%); of digits 97% to 100% if mirrored, brighter or JPEGs of quality 75, 82% of quality 50, 61%
cropped by 5%, 34% by 10%, none halved in size. Of the X-rays as they are it reports one pair, perhaps one patient's;
of the 6,000 photographs 14 pairs, by eye all the same picture or its mirror image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as JPEG has it
THUMB = 16  # pixels a side
LARGEST = 64  # pixels a side, to which larger images are reduced
DIMENSIONS = 32  # of a descriptor's even part, and of its odd one
CROP = 0.08  # of a side, that descriptors are made robust to
ROBUSTNESS = 10.0  # how much more what cropping changes counts than what tells images apart
NEIGHBOURS = 6
FARTHEST = 0.13  # shift in halves of a side, and zoom, that alignment looks for
BLANK = 2.0  # grey levels of standard deviation, below which an image has no near copies
FAINT = 0.3  # the same of the finer structure
COARSE, FINE = (0.3, 2.0), (1.5, 3.0)  # pixels of blur: finer structure is what lies between
SCREEN = 0.4, 0.03  # the pixels are looked at below this ratio of unlikeness, and of this share of pairs at least
RARE = 2e-6  # share of pairs that may pass though they are no copies
HIGHEST = 0.1  # ratio of unlikeness, below which pairs may be copies
FEW = 500, 0.03, 0.5  # of fewer pairs nothing is extrapolated: the ratio to pass, and the most that others are alike
ROWS, PIXELS = 64, 2**17  # of similarities, and to be aligned, at once


@dataclass(frozen=True)
class Copy:
    """Two images that are copies of each other.

    a, b: their indices, a < b. exact: whether they have the same pixels. likeness: the correlation of their finer
    structure when one is laid on the other; 1 of exact copies. mirrored: whether one is the mirror image of the other.
    """

    a: int
    b: int
    exact: bool
    likeness: float
    mirrored: bool


def find_copies(images: Tensor) -> list[Copy]:
    """The pairs of images that are copies of each other; of exact ones each with the first.

    It is deterministic, and the order of the images is of no account. Nearly blank images have exact copies only.
    It prefers to miss: of small, smooth images, such as digits, copies that are halved in size, and many that are
    cropped, cannot be told from other images. Of more than NEIGHBOURS near copies of an image not every pair is given,
    but they are linked, unless more than a tenth of all images have so many.

    Args:
        images: uint8 N x C x H x W with 1 channel or 3; may be memory-mapped.

    Returns:
        Pairs in rising order. `groups_of_copies` makes groups of them.
    """
    distinct, found = _exact(images)
    found += _near(images, distinct) if len(distinct) > 1 else []
    return sorted(found, key=lambda copy: (copy.a, copy.b))


def groups_of_copies(copies: Iterable[Copy], n: int) -> np.ndarray:
    """int64 n: a number for each image, the same for images that are linked by copies, directly or by others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.array([(copy.a, copy.b) for copy in copies], dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _exact(images: Tensor) -> tuple[np.ndarray, list[Copy]]:
    """Indices of the images without exact copies, in the order of their checksums, which is that of no file; and the
    links of the others."""
    first: dict[bytes, int] = {}
    found = []
    for i, image in enumerate(images):
        a = first.setdefault(hashlib.blake2b(image.contiguous().numpy(), digest_size=16).digest(), i)
        if a != i:
            found.append(Copy(a, i, exact=True, likeness=1.0, mirrored=False))
    return np.array([first[digest] for digest in sorted(first)], dtype=np.int64), found


def _near(images: Tensor, index: np.ndarray) -> list[Copy]:
    """The near copies among the images at these indices, which are distinct."""
    parts = np.array_split(index, -(-len(index) * images[0].numel() // 2**21))
    thumbs = torch.cat([_grey(images[part], THUMB, THUMB).half() for part in parts])  # of 11 bits, which are enough
    structured = torch.cat([part.float().flatten(1).std(1) >= BLANK for part in thumbs.split(500)])
    index, thumbs = index[structured.numpy()], thumbs[structured]
    if len(index) < 2:
        return []
    a, b, mirrored = _candidates(*_descriptors(thumbs))
    pairs = [a, b, mirrored, torch.zeros(len(a), 4)]
    likeness, move = _likeness(lambda i: thumbs[i].float(), pairs, ((0.8, 4),), COARSE)
    others = _likeness_of_others(likeness, a, b, len(thumbs))
    ratio = (1 - likeness) / (1 - others)
    near = ratio <= max(SCREEN[0], float(np.quantile(ratio.numpy(), SCREEN[1])))
    pairs = [x[near] for x in (a, b, mirrored, move)]
    height, width = (min(LARGEST, side) for side in images.shape[-2:])
    likeness, _ = _likeness(lambda i: _grey(images[index[i.numpy()]], height, width), pairs, ((1.5, 2), (0.8, 3)), FINE)
    fine = (1 - likeness) / (1 - others[near])
    passed = fine < _threshold(ratio, fine[ratio[near] >= HIGHEST])
    ends = np.sort(index[torch.stack(pairs[:2])[:, passed].numpy()], axis=0).tolist()
    how = (x[passed].tolist() for x in (likeness.clamp(max=1), pairs[2]))
    return [Copy(a, b, False, like, mirror) for a, b, like, mirror in zip(*ends, *how, strict=True)]


def _grey(images: Tensor, height: int, width: int) -> Tensor:
    """Grey levels, N x height x width."""
    x = images.float()
    x = torch.einsum("nchw,c->nhw", x, torch.tensor(GREY)) if x.shape[1] == 3 else x[:, 0]
    if x.shape[1:] == (height, width):
        return x
    return F.interpolate(x[:, None], size=(height, width), mode="bilinear", antialias=True)[:, 0]


def _halves(thumbs: Tensor) -> tuple[Tensor, Tensor]:
    """The even part of each thumbnail and the odd one, which a mirror image has with the other sign."""
    x = thumbs - thumbs.mean((1, 2), keepdim=True)
    x = x / x.flatten(1).norm(dim=1)[:, None, None]
    mirror, half = x.flip(-1), THUMB // 2
    return (x + mirror)[..., :half].flatten(1), (x - mirror)[..., :half].flatten(1)


def _descriptors(thumbs: Tensor) -> tuple[Tensor, Tensor]:
    """Even and odd parts, in the directions that tell the images apart more than cropping changes them; both
    together of length 1."""
    size = THUMB**2 // 2
    mean = torch.zeros(size, dtype=torch.float64)
    total, within = torch.zeros(2, 2, size, size, dtype=torch.float64)
    places = ((-1, -1), (1, -1), (-1, 1), (1, 1), (0, 0))
    for part in thumbs.split(1000):
        x = part.float()
        halves = _halves(x)
        mean += halves[0].double().sum(0)
        for h, half in enumerate(halves):
            total[h] += (half.T @ half).double() / len(thumbs)
        for across, down in places:
            move = CROP * torch.tensor([-1.0, across, -1.0, down]).expand(len(x), 4)
            for h, (half, cropped) in enumerate(zip(halves, _halves(_moved(x, move)[0]), strict=True)):
                within[h] += ((cropped - half).T @ (cropped - half)).double() / len(thumbs) / len(places)
    mean /= len(thumbs)  # of the even parts; that of the odd ones is zero, for mirror images count alike
    total[0] -= torch.outer(mean, mean)
    ridge = 1e-3 * float(total[0].trace() + total[1].trace()) / THUMB**2 + 1e-12
    directions = []
    for t, w in zip(total, within, strict=True):
        factor = torch.linalg.inv(torch.linalg.cholesky(t + ROBUSTNESS * w + ridge * torch.eye(size)))
        order = torch.linalg.eigh(factor @ t @ factor.T).eigenvectors.flip(1)
        directions.append((factor.T @ order[:, :DIMENSIONS]).float())
    found = []
    for part in thumbs.split(1000):
        even, odd = _halves(part.float())
        found.append(F.normalize(torch.cat([(even - mean.float()) @ directions[0], odd @ directions[1]], 1)))
    both = torch.cat(found)
    return both[:, :DIMENSIONS], both[:, DIMENSIONS:]


def _candidates(even: Tensor, odd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of which one is among the other's nearest, as a < b; and whether they are nearer mirrored."""
    n, k = len(even), min(NEIGHBOURS, len(even) - 1)
    near = torch.empty(n, k, dtype=torch.int64)
    for rows in torch.arange(n).split(ROWS):
        similar = (odd[rows] @ odd.T).abs_().addmm_(even[rows], even.T)
        similar[torch.arange(len(rows)), rows] = -2  # itself
        near[rows] = similar.topk(k, dim=1).indices
    one, other = torch.arange(n).repeat_interleave(k), near.flatten()
    pairs = torch.unique(torch.minimum(one, other) * n + torch.maximum(one, other))
    a, b = pairs // n, pairs % n
    mirrored = [(odd[i] * odd[j]).sum(1) < 0 for i, j in zip(a.split(10**5), b.split(10**5), strict=True)]
    return a, b, torch.cat(mirrored)


def _likeness(
    grey: Callable[[Tensor], Tensor], pairs: Sequence[Tensor], blurs: Sequence[tuple[float, int]], band: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """The likeness of pairs, and how the first is to be moved onto the second.

    Args:
        grey: gives the images at some indices, in grey.
        pairs: indices of the first and of the second; whether they are mirrored; how the first is moved, roughly.
        blurs: in pixels, and for how many steps they are aligned with it. band: as of `_correlation`.
    """
    likeness, moves = [], []
    size = max(PIXELS // grey(pairs[0][:1]).numel(), 1)
    for i, j, mirrored, move in zip(*(part.split(size) for part in pairs), strict=True):
        x, y = grey(i), grey(j)
        x = torch.where(mirrored[:, None, None], x.flip(-1), x)
        for sigma, steps in blurs:
            move = _aligned(_blurred(x, sigma), _blurred(y, sigma), move, steps)
        likeness.append(_correlation(x, y, move, band))
        moves.append(move)
    return torch.cat(likeness), torch.cat(moves)


def _aligned(x: Tensor, y: Tensor, move: Tensor, steps: int) -> Tensor:
    """The move of x onto y, bettered by Gauss-Newton steps over zoom and shift of both axes, gain and offset."""
    n, h, w = x.shape
    u, v = _places(w), _places(h)[:, None]
    terms = torch.ones(n, 6, h, w)
    for _ in range(steps):
        z, inside = _moved(x, move)
        du = F.pad(z[:, :, 2:] - z[:, :, :-2], (1, 1)) * (w / 4)
        dv = F.pad(z[:, 2:] - z[:, :-2], (0, 0, 1, 1)) * (h / 4)
        for i, term in enumerate((du * u, du, dv * v, dv, z)):
            terms[:, i] = term
        masked = (terms * inside[:, None]).flatten(2)
        square = masked @ terms.flatten(2).mT
        square.diagonal(dim1=1, dim2=2).mul_(1 + 1e-3).add_(1e-3)  # damped: some images lack structure along an axis
        fit = torch.linalg.solve(square, masked @ y.flatten(1)[:, :, None])[:, :, 0]
        gain = torch.where(fit[:, 4:5].abs() < 0.2, 0.2, fit[:, 4:5])
        move = (move + (fit[:, :4] / gain).clamp(-0.06, 0.06)).clamp(-FARTHEST, FARTHEST)
    return move


def _moved(x: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
    """Images with both axes moved, by linear interpolation, and 1 where that lies within them, 0 elsewhere."""
    (across, in_u), (down, in_v) = _sampling(x.shape[2], move[:, :2]), _sampling(x.shape[1], move[:, 2:])
    return down @ x @ across.mT, in_v[:, :, None] * in_u[:, None, :]


def _sampling(n: int, move: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices that sample an axis of n pixels at (1 + zoom) u + shift for every u; and whether that is within it."""
    place = (1 + move[:, :1]) * _places(n) + move[:, 1:]
    pixel = (((place + 1) * n - 1) / 2).clamp(0, n - 1)
    return (1 - (pixel[:, :, None] - torch.arange(n)).abs()).clamp(min=0), (place.abs() <= 1).float()


def _places(n: int) -> Tensor:
    """Where the pixels of an axis lie, its ends being -1 and 1."""
    return (torch.arange(n) * 2 + 1) / n - 1


def _blurred(x: Tensor, sigma: float) -> Tensor:
    """Images, blurred by a Gaussian of so many pixels."""
    ranges = [torch.arange(side, dtype=torch.float32) for side in x.shape[1:]]
    down, across = (F.normalize(torch.exp(-(((n[:, None] - n) / sigma) ** 2) / 2), p=1.0) for n in ranges)
    return down @ x @ across.T


def _correlation(x: Tensor, y: Tensor, move: Tensor, band: Sequence[float]) -> Tensor:
    """Of the structure between two blurs, where a moved x lies on y; 0 where one has next to none."""
    x, inside = _moved(x, move)
    n = inside.sum((1, 2))
    share = [_blurred(inside, sigma).clamp(min=1e-6) for sigma in band]  # so that what is not inside is left out
    x, y = (_blurred(z, band[0]) / share[0] - _blurred(z, band[1]) / share[1] for z in (x * inside, y * inside))
    x, y = ((z - ((z * inside).sum((1, 2)) / n)[:, None, None]) * inside for z in (x, y))
    of_x, of_y = x.square().sum((1, 2)), y.square().sum((1, 2))
    found = (x * y).sum((1, 2)) / (of_x * of_y).sqrt().clamp(min=1e-9)
    return torch.where(torch.minimum(of_x, of_y) < FAINT**2 * n, 0.0, found)


def _likeness_of_others(likeness: Tensor, a: Tensor, b: Tensor, n: int) -> Tensor:
    """For each pair, how alike other images are: the least of the likenesses of either one's pairs, the larger of both.

    No image's counts for more than that of 9 in 10 images: if it has many copies, its others are copies, too.
    """
    least = torch.ones(n)
    for end in (a, b):
        least.scatter_reduce_(0, end, likeness, "amin")
    most = float(least.quantile(0.9))
    least.clamp_(0, most if len(likeness) >= FEW[0] else min(most, FEW[2]))
    return torch.maximum(least[a], least[b]).clamp(max=1 - 1e-6)


def _threshold(ratio: Tensor, fine: Tensor) -> float:
    """The ratio of fine unlikeness that a share of RARE falls below without copies: the 1% quantile, extrapolated as if
    its logarithm fell by as much for each power of ten as that of the coarse ratio does from the 10% quantile.

    ratio: coarse, of all pairs. fine: of those that were looked at, without any that may be copies.
    """
    sure = ratio[ratio >= HIGHEST].numpy()
    rank = len(sure) // 100
    if len(sure) < FEW[0] or len(fine) <= rank:
        return FEW[1]
    at = np.quantile(sure, (0.1, 0.01))
    return float(min(fine.sort().values[rank] * (at[1] / at[0]) ** np.log10(0.01 / RARE), HIGHEST))
