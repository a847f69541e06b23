"""Twelve of the fifteen corruptions of MNIST-C (Mu & Gilmer 2019, 1906.02337), for grey or colour images of any size.

Functions of uint8 images N x C x H x W and of a generator on their device: uint8 of the same shape, each image with its
own draws. Definitions and strengths are those of the published data, the defaults in corruptions.py of
github.com/google-research/mnist-c; lengths, there in pixels of 28x28 images, grow with the side. Grey levels are
rounded at the end. What scikit-image and ImageMagick did there is done here with tensors.

Left out: fog, which takes a fractal of 256 x 256 random heights for each image; spatter and canny_edges, which are
chains of scikit-image's filters, thresholds and tracing of edges that would have to be rebuilt to the letter.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Generator, Tensor

from ..augment.operations import warp
from ..settings import UserError

SIDE = 28  # of the images that the published lengths are meant for
BATCH = 1000  # images at a time, which bounds the memory


def corrupt(name: str, images: Tensor, seed: int) -> Tensor:
    """`images` (uint8, N x C x H x W) with one of CORRUPTIONS, drawn from `seed` alone. Raises: UserError."""
    if name not in CORRUPTIONS:
        raise UserError(f"there is no corruption {name!r}: choose one of {', '.join(CORRUPTIONS)}.")
    generator = Generator(images.device).manual_seed(seed)
    return torch.cat([CORRUPTIONS[name](batch, generator) for batch in images.split(BATCH)])


def shot_noise(images: Tensor, generator: Generator) -> Tensor:
    """Poisson noise, each channel for itself: white is 3 counts on average, and no more than 3 are told apart."""
    return _levels(torch.poisson(_unit(images) * 3, generator=generator) / 3)


def impulse_noise(images: Tensor, generator: Generator) -> Tensor:
    """Make 17 % of the values black or white, half each, every channel for itself."""
    draw = torch.rand(images.shape, generator=generator, device=images.device)
    return images.masked_fill(draw < 0.17 / 2, 255).masked_fill(draw >= 1 - 0.17 / 2, 0)


def glass_blur(images: Tensor, generator: Generator) -> Tensor:
    """Blur with a Gaussian (0.7 pixels), swap neighbours at random twice over the image, blur again.

    Only up and down, since the published code had scikit-image take the columns of a grey image for its channels.
    """
    ratio = _ratio(images)
    blur = _gaussian(images.shape[-2], 0.7 * ratio).to(images.device)
    x = (blur @ images.float() + 1e-3).byte()  # cut off, as published, but not what falls short by rounding errors
    return _levels(blur @ _unit(_shuffle(x, max(1, round(ratio)), 2, generator)))


def motion_blur(images: Tensor, generator: Generator) -> Tensor:
    """ImageMagick's motion blur, radius 10 and sigma 3: the mean of the pixels in one direction, up to 45 degrees from
    the right, with half a Gaussian as weights. Edges repeat."""
    ratio, device = _ratio(images), images.device
    angle = torch.deg2rad(torch.rand(len(images), 1, generator=generator, device=device) * 90 - 45)
    step = torch.arange(2 * math.ceil(10 * ratio) + 1, device=device)
    weights = torch.exp(-0.5 * (step / (3 * ratio)) ** 2)
    right, down = ((step * along - 0.5).ceil().long().unbind(1) for along in (angle.cos(), angle.sin()))
    rows, columns = (torch.arange(size, device=device) for size in images.shape[-2:])
    image = torch.arange(len(images), device=device).view(-1, 1, 1)
    source = images.permute(0, 2, 3, 1)
    blurred = torch.zeros(source.shape, device=device)
    for weight, x, y in zip(weights / weights.sum(), right, down, strict=True):
        row = (rows + y.unsqueeze(1)).clamp_(0, len(rows) - 1).unsqueeze(2)
        column = (columns + x.unsqueeze(1)).clamp_(0, len(columns) - 1).unsqueeze(1)
        blurred += weight * source[image, row, column]
    return _levels(blurred.permute(0, 3, 1, 2) / 255)


def shear(images: Tensor, generator: Generator) -> Tensor:
    """Slant by 0.4 radians to the left or the right: as scikit-image did until 0.18, a sine and a cosine, which stretch
    the image a little, rather than a tangent. Bilinear, as are the next three; black comes in from outside."""
    angle = 0.4 * _signs(1, images, generator)[0]
    zero = torch.zeros_like(angle)
    return _warped(images, zero + 1, -angle.sin(), zero, zero, angle.cos(), zero)


def rotate(images: Tensor, generator: Generator) -> Tensor:
    """Turn about the centre by 0.4 radians, one way or the other."""
    angle = 0.4 * _signs(1, images, generator)[0]
    zero = torch.zeros_like(angle)
    return _warped(images, angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero)


def scale(images: Tensor, generator: Generator) -> Tensor:
    """Shrink to 0.7 of the size, about the centre. Nothing is drawn."""
    zero = torch.zeros(len(images), device=images.device)
    return _warped(images, zero + 1 / 0.7, zero, zero, zero, zero + 1 / 0.7, zero)


def translate(images: Tensor, generator: Generator) -> Tensor:
    """Move by 3 pixels, to the left or the right, and up or down."""
    x, y = 3 / SIDE * _signs(2, images, generator)
    zero = torch.zeros_like(x)
    return _warped(images, zero + 1, zero, x * images.shape[-1], zero, zero + 1, y * images.shape[-2])


def brightness(images: Tensor, generator: Generator) -> Tensor:
    """Add 0.5 to the value of HSV, at most up to 1; hue and saturation stay. Nothing is drawn."""
    x = images.float()  # not in [0, 1]: here every grey level would lie between two, where rounding errors decide
    value = x.amax(1, keepdim=True)
    brighter = (value + 255 / 2).clamp(max=255)
    return (torch.where(x == value, brighter, x * (brighter / value)) + 0.5).byte()


def stripe(images: Tensor, generator: Generator) -> Tensor:
    """Invert the left and the right quarter. Nothing is drawn."""
    result, quarter = images.clone(), images.shape[-1] // 4
    for part in (slice(None, quarter), slice(images.shape[-1] - quarter, None)):
        result[..., part] = 255 - images[..., part]
    return result


def dotted_line(images: Tensor, generator: Generator) -> Tensor:
    """Add a line from edge to edge, of which every second pair of columns is left."""
    start, end = torch.randint(27, (2, len(images)), generator=generator, device=images.device)
    line = _line(images, torch.zeros_like(start), start, torch.full_like(start, 27), end)
    line = line * (_centres(images.shape[-1], images.device).add(0.5).floor() % 4 >= 2)
    return _levels(_unit(images) + line.unsqueeze(1))


def zigzag(images: Tensor, generator: Generator) -> Tensor:
    """Add a zigzag, 2 pixels to either side of a line from column 2 to column 25."""
    start = torch.randint(27, (len(images),), generator=generator, device=images.device)
    rise = torch.randint(-5, 5, (len(images),), generator=generator, device=images.device)
    angle = torch.atan(rise / 23)
    cos, sin, length = angle.cos(), angle.sin(), 23 / angle.cos()
    # Along the line and beside it. The last corner's height is what the published formula says.
    corners: list[tuple] = [(0, 0), (2, 2), (6, -2), (10, 2), (14, -2), (18, 2), (22, -2), (length, -1 / (length - 20))]
    points = [(2 + cos * along - sin * beside, start + sin * along + cos * beside) for along, beside in corners]
    lines = torch.stack([_line(images, *first, *second) for first, second in pairwise(points)], dim=1)
    return _levels(_unit(images) + lines.sum(1, keepdim=True))


_ALL = [shot_noise, impulse_noise, glass_blur, motion_blur, shear, scale, rotate, brightness, translate]
_ALL += [stripe, dotted_line, zigzag]
CORRUPTIONS: dict[str, Callable[[Tensor, Generator], Tensor]] = {function.__name__: function for function in _ALL}


def _unit(images: Tensor) -> Tensor:
    """float32 in [0, 1]."""
    return images.float() / 255


def _levels(x: Tensor) -> Tensor:
    """uint8 from numbers of which those in [0, 1] count."""
    return (x.clamp(0, 1) * 255 + 0.5).byte()


def _ratio(images: Tensor) -> float:
    """How many times the published 28 pixels the shorter side has."""
    return min(images.shape[-2:]) / SIDE


def _signs(count: int, images: Tensor, generator: Generator) -> Tensor:
    """count x N of -1 or 1, with even chances."""
    return torch.randint(2, (count, len(images)), generator=generator, device=images.device) * 2.0 - 1


def _warped(images: Tensor, *affine: Tensor) -> Tensor:
    """Warp by the entries of 2 x 3 matrices, row by row, N each."""
    return _levels(warp(_unit(images), torch.stack(affine, dim=1).view(-1, 2, 3)))


def _gaussian(size: int, sigma: float) -> Tensor:
    """size x size: blurs, from the left, up and down. Edges repeat; cut off at 4 sigma, as in SciPy."""
    half = int(4 * sigma + 0.5)
    tap = torch.arange(-half, half + 1)
    weights = torch.exp(-0.5 * (tap / sigma) ** 2)
    source = (torch.arange(size).unsqueeze(1) + tap).clamp_(0, size - 1)
    return torch.zeros(size, size).scatter_add_(1, source, (weights / weights.sum()).expand(size, -1))


def _shuffle(x: Tensor, reach: int, times: int, generator: Generator) -> Tensor:
    """Go over the pixels of N x C x H x W from the last to the first, `times` times, and swap each, with a chance of a
    half, with one that lies -reach to reach - 1 rows below and columns to the right."""
    n, _, height, width = x.shape
    near = torch.arange(-reach, reach, device=x.device)
    moves = (near.unsqueeze(1) * width + near).flatten()
    moves = torch.cat([moves, torch.zeros_like(moves)])  # the other half stays
    pixels = x.permute(2, 3, 0, 1).reshape(height * width, n, -1).clone()
    image = torch.arange(n, device=x.device)
    for _ in range(times):
        for row in range(height - reach, reach, -1):
            move = moves[torch.randint(len(moves), (width, n), generator=generator, device=x.device)]
            for column in range(width - reach, reach, -1):
                here = row * width + column
                there = move[column] + here
                mine, other = pixels[here].clone(), pixels[there, image]
                pixels[there, image] = mine
                pixels[here] = other
    return pixels.view(height, width, n, -1).permute(2, 3, 0, 1)


def _centres(size: int, device: torch.device) -> Tensor:
    """Where the pixels of a side lie, counted in those of 28."""
    return (torch.arange(size, device=device) + 0.5) * SIDE / size - 0.5


def _line(images: Tensor, c0: Tensor, r0: Tensor, c1: Tensor, r1: Tensor) -> Tensor:
    """A white line, N x H x W in [0, 1], between columns c0 < c1 and rows r0 and r1 (N each, in pixels of 28), which
    fades with the distance d, up or down, as 1 + log(1 - d / 2.3)."""
    columns, rows = _centres(images.shape[-1], images.device), _centres(images.shape[-2], images.device)
    c0, r0, c1, r1 = (corner.unsqueeze(1) for corner in (c0, r0, c1, r1))
    height = (r1 - r0) / (c1 - c0) * (columns - c0) + r0
    distance = (rows.unsqueeze(1) - height.unsqueeze(1)).abs()
    line = (1 - distance / 2.3).clamp_(min=0).log_().add_(1).clamp_(min=0)
    pixel = (columns + 0.5).floor()
    return line * ((pixel >= c0.floor()) & (pixel < c1.ceil())).unsqueeze(1)
