"""Random augmentations of a whole batch of tensors, on any device, each image with its own draw.

The operations are functions of images in [0, 1], float32 N x C x H x W, and of one parameter per image; for equal
parameters each agrees with torchvision's function of the same purpose, image by image. Policies draw the parameters.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import processor

SMALL = 40  # pixels a side, up to which a product with small matrices crops faster than one image after the other


def hflip(x: Tensor, flip: Tensor) -> Tensor:
    """Mirror left and right where `flip` (bool, N) is true."""
    return torch.where(flip.view(-1, 1, 1, 1), x.flip(-1), x)


def resized_crop(x: Tensor, box: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Cut out `box` (N x 4: top, left, height, width, in whole pixels) and resize it, bilinearly, to `size` (by
    default the size of `x`). What is made smaller is smoothed first (antialiased). x may be uint8, with values to 255.
    """
    size = size or (x.shape[-2], x.shape[-1])
    if not processor.on_gpu(x) and max(size) > SMALL:  # where a matrix would multiply by zeros nearly everywhere
        out = x.new_empty((*x.shape[:2], *size), dtype=torch.float32)
        for into, image, (top, left, height, width) in zip(out, x, box.int().tolist(), strict=True):
            part = image[None, :, top : top + height, left : left + width].float()
            into.copy_(F.interpolate(part, size=size, mode="bilinear", antialias=True)[0])
        return out.div_(255) if x.dtype == torch.uint8 else out
    # Resizing is separable: rows @ x @ columns, with one small interpolation matrix per image and axis.
    floats = x.float() / 255 if x.dtype == torch.uint8 else x
    top, left, height, width = box.to(floats.dtype).unbind(1)
    rows = _interpolation(top, height, x.shape[-2], size[0])
    columns = _interpolation(left, width, x.shape[-1], size[1])
    return torch.einsum("nhi,ncij,nwj->nchw", rows, floats, columns)


def _interpolation(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """N x out x size: how much each source pixel (last axis) gives to each pixel of the resized crop."""
    pixel = torch.arange(max(size, out), device=start.device, dtype=start.dtype)
    zoom = (length / out).unsqueeze(1)
    source = (pixel[:out] + 0.5) * zoom - 0.5  # centres of pixels, as in torchvision
    if out >= size:  # nothing can shrink
        source = start.unsqueeze(1) + source.clamp(min=0).minimum((length - 1).unsqueeze(1))  # the crop's edge repeats
        return (source.unsqueeze(2) - pixel[:size]).abs_().neg_().add_(1).clamp_(min=0)
    distance = ((start.unsqueeze(1) + source).unsqueeze(2) - pixel[:size]).abs_()
    weights = distance.div_(zoom.clamp(min=1).unsqueeze(2)).neg_().add_(1).clamp_(min=0)
    inside = (pixel[:size] >= start.unsqueeze(1)) & (pixel[:size] < (start + length).unsqueeze(1))
    weights *= inside.unsqueeze(1)
    return weights / weights.sum(2, keepdim=True)


def warp(x: Tensor, affine: Tensor, displacement: Tensor | None = None) -> Tensor:
    """Move pixels, sampling bilinearly; what comes in from outside is 0.

    affine: N x 2 x 3, as `inverse_affine` gives it: from a pixel of the result, counted from the centre, to its source.
    displacement: N x H x W x 2 (x, y), pixels to add to the sources.
    """
    height, width = x.shape[-2:]
    across = torch.arange(width, device=x.device, dtype=x.dtype) - (width - 1) / 2
    down = (torch.arange(height, device=x.device, dtype=x.dtype) - (height - 1) / 2).unsqueeze(1)
    # By hand, since affine_grid's many tiny matrix products take three times as long as the sampling itself.
    a, b, c, d, e, f = affine.flatten(1).view(-1, 6, 1, 1).unbind(1)
    to_right, to_bottom = a * across + b * down + c, d * across + e * down + f
    if displacement is not None:
        to_right, to_bottom = to_right + displacement[..., 0], to_bottom + displacement[..., 1]
    grid = torch.stack([to_right * (2 / width), to_bottom * (2 / height)], dim=3)  # in halves of each side
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def inverse_affine(degrees: Tensor, scale: Tensor, shear: Tensor, shift: Tensor) -> Tensor:
    """N x 2 x 3, for `warp`: turn counter-clockwise by `degrees`, enlarge by `scale`, slant by `shear` degrees, then
    move by `shift` (N x 2: right and down, in pixels); each about the centre. torchvision's turns the other way.
    """
    angle, slant = torch.deg2rad(degrees), torch.tan(torch.deg2rad(shear))
    cos, sin = angle.cos() / scale, angle.sin() / scale
    matrix = torch.stack([cos + sin * slant, cos * slant - sin, sin, cos], dim=1).view(-1, 2, 2)
    return torch.cat([matrix, -(matrix @ shift.unsqueeze(2))], dim=2)


def smooth_displacement(knots: Tensor, height: int, width: int) -> Tensor:
    """N x 2 x k x k displacements, spread evenly over the image, with bicubic values between them: N x H x W x 2."""
    return F.interpolate(knots, size=(height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def stroke(x: Tensor, amount: Tensor) -> Tensor:
    """Thicken bright strokes (`amount`, N, above 0) or thin them (below 0), by up to a pixel on each side at 1 or -1:
    a blend of the image with its grey-scale dilation or erosion by 3x3 pixels."""
    amount = amount.view(-1, 1, 1, 1)
    thick = torch.where(amount > 0, x, -x)  # erosion is the dilation of the negative
    thick = F.max_pool2d(thick, 3, stride=1, padding=1)
    return torch.lerp(x, torch.where(amount > 0, thick, -thick), amount.abs())


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply by `factor` (N), then clamp to [0, 1]."""
    return (x * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend, by `factor` (N), with the mean of the image's grey levels."""
    return _blend(x, grey(x.mean(dim=(2, 3), keepdim=True)), factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend, by `factor` (N), with the grey image. Nothing changes on one channel."""
    return _blend(x, grey(x), factor) if x.shape[1] == 3 else x


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` (N) of a full circle, in [-0.5, 0.5]. Nothing changes on one channel."""
    if x.shape[1] != 3:
        return x
    high, low = x.amax(1), x.amin(1)
    spread = high - low
    red, green, blue = x.unbind(1)
    scale = spread.masked_fill(spread == 0, 1).reciprocal_()
    hue = torch.where(
        high == red,
        (green - blue).mul_(scale),
        torch.where(high == green, (blue - red).mul_(scale).add_(2), (red - green).mul_(scale).add_(4)),
    ).add_(6 * shift.view(-1, 1, 1))  # in sixths of the circle
    # Each channel is the same trapezoid of the hue, shifted by a third of the circle (HSV to RGB without cases).
    turned = torch.empty_like(x)
    for channel, offset in zip(turned.unbind(1), (5, 3, 1), strict=True):
        k = hue + offset
        k.sub_((k / 6).floor_().mul_(6)).sub_(2).abs_().neg_().add_(2).clamp_(0, 1)  # min(k mod 6, 4 - k mod 6)
        torch.addcmul(high, spread, k, value=-1, out=channel)
    return turned


def gaussian_blur(x: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Blur with a kernel of odd size and standard deviation `sigma` (N, pixels); 0 leaves an image as it is."""
    half, (height, width) = kernel_size // 2, x.shape[-2:]
    tap = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-0.5 * (tap / sigma.clamp(min=1e-6).unsqueeze(1)) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).view(-1, kernel_size, 1, 1, 1)
    # Separable, one tap after the other: a convolution library would plan anew for each number of images.
    x = F.pad(x, (half, half, half, half), mode="reflect")
    across = x[..., :width] * weights[:, 0]
    for i in range(1, kernel_size):
        across.addcmul_(x[..., i : i + width], weights[:, i])
    blurred = across[..., :height, :] * weights[:, 0]
    for i in range(1, kernel_size):
        blurred.addcmul_(across[..., i : i + height, :], weights[:, i])
    return blurred


def grayscale(x: Tensor, where: Tensor) -> Tensor:
    """Replace colour by grey where `where` (bool, N) is true. Nothing changes on one channel."""
    return torch.where(where.view(-1, 1, 1, 1), grey(x), x) if x.shape[1] == 3 else x


def erase(x: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Make a square of `side` pixels black, its corner at `top`, `left` (N each, pixels): cutout (1708.04552)."""
    rows = torch.arange(x.shape[-2], device=x.device) - top.unsqueeze(1)
    columns = torch.arange(x.shape[-1], device=x.device) - left.unsqueeze(1)
    inside = ((rows >= 0) & (rows < side)).unsqueeze(2) & ((columns >= 0) & (columns < side)).unsqueeze(1)
    return x.masked_fill(inside.unsqueeze(1), 0)


def normalize(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Subtract `mean` and divide by `std` (one number per channel)."""
    return (x - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)


def grey(x: Tensor) -> Tensor:
    """Grey levels, N x 1 x H x W, with the weights of ITU-R BT.601 for three channels."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other, x, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def crop_box(uniform, area: tuple[float, float], height: int, width: int) -> Tensor:
    """Random boxes as RandomResizedCrop draws them, float N x 4: share of the area, log-uniform aspect 3/4 to 4/3.

    torchvision draws again when a box does not fit; here its longer side is cut, which costs no loop.
    """
    share = uniform(*area) * height * width
    aspect = torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
    h = (share / aspect).sqrt().round().clamp(1, height)
    w = (share * aspect).sqrt().round().clamp(1, width)
    top = (uniform(0, 1) * (height - h + 1)).floor().clamp(max=height - 1)
    left = (uniform(0, 1) * (width - w + 1)).floor().clamp(max=width - 1)
    return torch.stack([top.minimum(height - h), left.minimum(width - w), h, w], dim=1)
