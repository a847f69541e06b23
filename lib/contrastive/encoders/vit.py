"""Small Vision Transformers (2010.11929), of the sizes of DeiT (2012.12877, table 1)."""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..settings import ENCODERS, EncoderSettings, Float, Int, UserError
from .base import Encoder

EPS = 1e-6  # of LayerNorm, as DeiT has it
GRID, SMALLEST_PATCH, LARGEST_PATCH = 8, 2, 16  # patches along the shorter side; pixels


class ViTSettings(EncoderSettings):
    """Parameters of `ViT`."""

    patch_size: Int | None = Field(
        None, ge=2, le=64, description="side of a patch (default: an eighth of the images' shorter side, from 2 to 16)"
    )
    depth: Int = Field(12, ge=1, le=64, description="blocks of attention and MLP")
    pool: Literal["avg", "cls"] = Field("avg", description="features: the average of all patches, or a class token")
    positions: Literal["sincos", "learnable"] = Field(
        "sincos", description="how patches know where they are: by fixed sines and cosines, or by what is learned"
    )
    drop_path: Float = Field(
        0.0, ge=0, lt=1, description="share of images that skip the last block in training; less in those before it"
    )


# --- The network --------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)).

    Args:
        width: numbers of a token.
        heads: of the attention.
        skipped: share of images for which, in training, a branch is left out (stochastic depth, 1603.09382).
    """

    def __init__(self, width: int, heads: int, skipped: float) -> None:
        super().__init__()
        self.heads, self.skipped = heads, skipped
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens, N x T x width -> the same."""
        x = x + self.sometimes(self.attention(self.norm1(x)))
        return x + self.sometimes(self.mlp(self.norm2(x)))

    def attention(self, x: Tensor) -> Tensor:
        """What each token takes from all of them."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        # Written out. PyTorch's own function takes a processor several times as long for so few tokens of bfloat16; and
        # on a GPU it adds up gradients in an order that changes, where a seed is to decide a run.
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
        return self.projection((weights @ v).transpose(1, 2).flatten(2))

    def sometimes(self, branch: Tensor) -> Tensor:
        """A branch; in training 0 for some images, and larger for the others, so that its mean stays what it is."""
        if not self.training or self.skipped == 0:
            return branch
        kept = torch.empty(branch.shape[0], 1, 1, device=branch.device).bernoulli_(1 - self.skipped)
        return branch * (kept / (1 - self.skipped))


class Transformer(nn.Module):
    """Images, N x C x H x W, of any size -> features, N x width.

    The linear layers start as DeiT's do, by a truncated normal distribution, and the projection of the patches as in
    the code of MoCo v3, by a uniform one (Xavier's), so that it is of use also where it is frozen.

    Args:
        settings: the encoder's parameters.
        shape: of the images, which decides the default size of a patch and where learned positions are.
        width, heads: of the blocks.
    """

    def __init__(self, settings: ViTSettings, shape: tuple[int, ...], width: int, heads: int) -> None:
        super().__init__()
        side, last = patch_size(settings, shape), max(settings.depth - 1, 1)
        self.grid = -(-shape[1] // side), -(-shape[2] // side)  # patches of the images: rows, columns
        self.patches = nn.Conv2d(shape[0], width, side, stride=side)
        self.class_token = nn.Parameter(torch.empty(width)) if settings.pool == "cls" else None
        self.positions = nn.Parameter(torch.empty(*self.grid, width)) if settings.positions == "learnable" else None
        self.blocks = nn.Sequential(
            *(Block(width, heads, settings.drop_path * i / last) for i in range(settings.depth))
        )
        self.norm = nn.LayerNorm(width, EPS)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        for parameter in (self.class_token, self.positions):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
        bound = math.sqrt(6 / (self.patches.weight[0].numel() + width))
        nn.init.uniform_(self.patches.weight, -bound, bound)
        nn.init.zeros_(self.patches.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The features. Zeros on the right and below fill up what is no whole patch."""
        (height, width), side = x.shape[-2:], self.patches.stride[0]
        x = self.patches(F.pad(x, (0, -width % side, 0, -height % side)))
        x = x.flatten(2).transpose(1, 2) + self.places((x.shape[2], x.shape[3]))
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(x.shape[0], 1, -1), x], dim=1)
        x = self.blocks(x)
        # Averaged, then normalised, as timm has it: normalised first, MoCo v3 (2104.02057) lost 7 points of accuracy.
        return self.norm(x.mean(1) if self.class_token is None else x[:, 0])

    def places(self, grid: tuple[int, int]) -> Tensor:
        """What tells the patches of a grid where they are, patches x width. A grid of another size than the images'
        is stretched over theirs."""
        if self.positions is None:
            return sincos(grid, self.grid, self.patches.weight)
        if grid == self.grid:
            return self.positions.flatten(0, 1)
        rows, columns = (resampling(n, m, self.positions) for n, m in zip(self.grid, grid, strict=True))
        return torch.einsum("ai,bj,ijd->abd", rows, columns, self.positions).flatten(0, 1)


def sincos(grid: tuple[int, int], own: tuple[int, int], like: Tensor) -> Tensor:
    """2-D sine-cosine positions, as in the code of MoCo v3 (2104.02057): sines and cosines of the row, then of the
    column, each of width / 4 frequencies from 1 down to nearly 1 / 10,000.

    They are computed each time, which takes no time, so that they need not be kept with the weights.

    Args:
        grid: rows and columns.
        own: those of the grid that it is stretched over, in whose patches places are counted.
        like: the weights of the patches, width x ...: of the dtype and on the device that the positions are to have.

    Returns:
        patches x width.
    """

    def count(n: int) -> Tensor:
        return torch.arange(n, dtype=like.dtype, device=like.device)

    quarter, waves = len(like) // 4, []
    frequencies = 10_000 ** (-count(quarter) / quarter)
    for n, m in zip(grid, own, strict=True):
        angles = torch.outer((count(n) + 0.5) * (m / n) - 0.5, frequencies)
        waves.append(torch.cat([angles.sin(), angles.cos()], dim=1))
    rows, columns = waves[0][:, None].expand(*grid, -1), waves[1].expand(*grid, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)


def resampling(n: int, m: int, like: Tensor) -> Tensor:
    """The matrix, m x n, that makes m numbers along a line of n, by bicubic interpolation, smoothed where these are
    fewer. The gradients of matrices have the same bits each time, also on a GPU; those of an interpolation do not."""
    units = torch.eye(n, dtype=like.dtype, device=like.device)[None, :, None]
    return F.interpolate(units, size=(1, m), mode="bicubic", antialias=True)[0, :, 0].T


# --- The encoders -------------------------------------------------------------------------------------------------


def patch_size(settings: EncoderSettings, shape: tuple[int, ...]) -> int:
    """The side of a patch, in pixels: by default such that images have about 8 x 8 of them, as those of CIFAR-10 have
    with patches of 4, up to the usual 16."""
    assert isinstance(settings, ViTSettings)
    usual = (min(shape[1:]) + GRID // 2) // GRID
    return settings.patch_size or min(max(usual, SMALLEST_PATCH), LARGEST_PATCH)


class ViT(Encoder):
    """A Vision Transformer with random weights: patches, 12 blocks, a final LayerNorm; no dropout.

    By default it has no class token, which has to learn first where to look: the average of all patches is as good in
    MoCo v3 (2104.02057), and better where training is short (2205.01580).
    """

    Parameters = ViTSettings
    SMALLEST = 8
    WIDTH: ClassVar[int]
    HEADS: ClassVar[int]
    body: Transformer

    def __init__(
        self, settings: ViTSettings, shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__(Transformer(settings, shape, self.WIDTH, self.HEADS), self.WIDTH, mean, std)

    @property
    def patches(self) -> nn.Conv2d:
        """The projection of the patches, which MoCo v3 keeps as it was drawn."""
        return self.body.patches

    @classmethod
    def check(cls, settings: EncoderSettings, shape: tuple[int, ...], view: tuple[int, ...] | None = None) -> None:
        """As `Encoder.check`; also, no image is to be smaller than a patch."""
        super().check(settings, shape, view)
        patch, side = patch_size(settings, shape), min((view or shape)[1:])
        if side < patch:
            start = "" if view else f"the images have {shape[1]}x{shape[2]} pixels: "
            larger = "larger views" if view else "a larger image_size"
            raise UserError(
                f"{start}encoder {settings.name} has patches of {patch}x{patch}. Use patch_size={side} or less, or "
                f"{larger}."
            )


@ENCODERS.register("vit_tiny")
class ViTTiny(ViT):
    """DeiT-Ti: 192 features; 5.4 million parameters."""

    WIDTH, HEADS = 192, 3


@ENCODERS.register("vit_small")
class ViTSmall(ViT):
    """DeiT-S: 384 features; 21 million parameters."""

    WIDTH, HEADS = 384, 6
